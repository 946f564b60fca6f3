"""Painting with soft-edged shapes and textures: stacks of slices that look like anatomy.

A canvas holds all slices of a volume. Positions are in units of the target image's side, origin in the middle, `u`
along columns and `v` along rows; everything painted varies slowly from slice to slice.
"""

from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.random import Generator
from numpy.typing import NDArray

Field = NDArray[np.float32]


class Shape(NamedTuple):
    """A closed shape on a part of the canvas.

    Attributes:
        window: Rows and columns of the canvas that hold it.
        depth: (slices, h, w), distance inside the outline in pixels, negative outside.
    """

    window: tuple[slice, slice]
    depth: Field

    def inside(self, margin: float = 0.0) -> Field:
        """Coverage 0..1 of the part more than `margin` pixels inside the outline, with edges of one pixel."""
        coverage: Field = np.clip(self.depth - np.float32(margin - 0.5), 0, 1)
        return coverage

    def rim(self, thickness: float) -> Field:
        """Coverage 0..1 of the outermost `thickness` pixels."""
        return self.inside() - self.inside(thickness)


class Canvas:
    """Slices being painted.

    Args:
        generator: Source of all randomness.
        slices: Number of slices.
        shape: Rows and columns.
        size: Pixels per unit of length.
    """

    def __init__(self, generator: Generator, slices: int, shape: tuple[int, int], size: int) -> None:
        self.generator = generator
        self.slices = slices
        self.size = size
        self.image: Field = np.zeros((slices, *shape), np.float32)
        rows, columns = shape
        u: Field = ((np.arange(columns) - columns // 2) / size).astype(np.float32)
        v: Field = ((np.arange(rows) - rows // 2) / size).astype(np.float32)
        self._u: Field = u
        self._v: Field = v
        # Bends every outline, so that nothing stays an ellipse.
        bend, ripple = 0.024 * generator.uniform(0.5, 1.3), 0.003 * generator.uniform(0.2, 1.2)
        self.u: Field = u + bend * self.texture(5.0) + ripple * self.texture(3.0)
        self.v: Field = v[:, None] + bend * self.texture(5.0) + ripple * self.texture(3.0)
        self._slack = 4 * bend + 0.02

    def drift(self, low: float, high: float, change: float = 0.2) -> Field:
        """A parameter (slices,) drawn from `low`..`high` that changes by the share `change` or so over the volume."""
        ramp = np.linspace(-0.5, 0.5, self.slices, dtype=np.float32)
        value = self.generator.uniform(low, high)
        return (value * (1 + change * self.generator.standard_normal() * ramp)).astype(np.float32)

    def move(self, center: float, spread: float, change: float = 0.04) -> Field:
        """A coordinate (slices,) around `center` that wanders by about `change` over the volume."""
        ramp = np.linspace(-0.5, 0.5, self.slices, dtype=np.float32)
        start = center + spread * self.generator.uniform(-1, 1)
        return (start + change * self.generator.standard_normal() * ramp).astype(np.float32)

    def texture(self, exponent: float, *, band: tuple[float, float] | None = None, coherence: float = 1.1) -> Field:
        """A random field (slices, rows, columns) with power spectrum 1/f^exponent, zero mean and unit deviation.

        Natural images have an exponent of about 2; larger ones are smoother.

        Args:
            exponent: Of the power spectrum.
            band: Lowest and highest frequency kept, cycles per unit of length; all if None.
            coherence: Radians by which the field turns into an independent one over the volume.
        """
        rows, columns = self.image.shape[1:]
        frequency = np.hypot(
            np.fft.fftfreq(rows)[:, None] * self.size, np.fft.rfftfreq(columns)[None, :] * self.size
        ).astype(np.float32)
        gain = np.zeros_like(frequency)
        # Nothing slower than the field of view of the target: slower waves would be offsets.
        kept = frequency >= (0.7 if band is None else band[0])
        if band is not None:
            kept &= frequency <= band[1]
        gain[kept] = frequency[kept] ** np.float32(-exponent / 2)
        noise = self.generator.standard_normal((2, rows, columns), dtype=np.float32)
        first, second = scipy.fft.irfft2(scipy.fft.rfft2(noise) * gain, s=(rows, columns))
        angle = np.linspace(0, coherence, self.slices, dtype=np.float32)[:, None, None]
        field = np.cos(angle) * first + np.sin(angle) * second
        normalised: Field = ((field - field.mean()) / field.std()).astype(np.float32)
        return normalised

    def shape(
        self,
        center: tuple[Field, Field],
        radii: tuple[Field, Field],
        *,
        angle: float = 0.0,
        bumps: float = 0.05,
        harmonics: int = 5,
    ) -> Shape:
        """A closed shape: an ellipse of which the radius varies with the direction.

        Args:
            center: u and v, (slices,) each.
            radii: Half axes, (slices,) each.
            angle: Of the first axis against u, radians.
            bumps: Relative variation of the radius.
            harmonics: Number of waves around the outline that vary it, from two on.
        """
        reach = float(np.hypot(*(radius.max() for radius in radii))) if angle else None
        extent = [(reach or float(radius.max())) * (1 + 2.5 * bumps) + self._slack for radius in radii]
        window = (
            _span(self._v, float(center[1].min()) - extent[1], float(center[1].max()) + extent[1]),
            _span(self._u, float(center[0].min()) - extent[0], float(center[0].max()) + extent[0]),
        )
        x = self.u[:, window[0], window[1]] - center[0][:, None, None]
        y = self.v[:, window[0], window[1]] - center[1][:, None, None]
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        x, y = (cos * x + sin * y) / radii[0][:, None, None], (cos * y - sin * x) / radii[1][:, None, None]
        distance = np.sqrt(x * x + y * y) + np.float32(1e-6)
        outline = np.ones_like(distance)
        direction = (x + 1j * y) / distance
        wave = direction
        for harmonic in range(2, 2 + harmonics):
            wave = wave * direction
            amplitude = bumps * self.generator.standard_normal() / (harmonic - 1)
            phase = self.generator.uniform(0, 2 * np.pi) + self.move(0, 0, 0.8)
            factor = (amplitude * np.exp(1j * phase)).astype(np.complex64)[:, None, None]
            outline += (wave * factor).real
        # Along the shorter axis the distance is exact, elsewhere near enough for an edge of a pixel.
        scale = self.size * np.minimum(radii[0], radii[1])[:, None, None]
        return Shape(window, ((outline - distance) * scale).astype(np.float32))

    def paint(self, shape: Shape, coverage: Field, value: float | Field) -> None:
        """Lays a value, or a field of the canvas's shape, over the image where `coverage` is one."""
        part = self.image[:, shape.window[0], shape.window[1]]
        laid = value[:, shape.window[0], shape.window[1]] if isinstance(value, np.ndarray) else np.float32(value)
        part += coverage * (laid - part)

    def lines(self, frequency: float, thickness: float) -> Field:
        """Coverage 0..1 of winding lines, about `thickness` pixels wide and `1 / (2 * frequency)` apart."""
        field = self.texture(1.0, band=(0.5 * frequency, 1.3 * frequency))
        # A wave of unit deviation has a slope of about 2 pi f per unit of length where it crosses zero.
        slope = np.float32(2 * np.pi * frequency / self.size)
        return np.clip(np.float32(thickness / 2 + 0.5) - np.abs(field) / slope, 0, 1)

    def cells(self, shape: Shape, count: int, thickness: float) -> tuple[Field, Field]:
        """Splits a shape's window into cells around random points.

        Returns:
            Coverage of the walls between cells, and a value per cell of zero mean and unit deviation, in the window.
        """
        x, y = self.u[:, shape.window[0], shape.window[1]], self.v[:, shape.window[0], shape.window[1]]
        nearest = np.full(x.shape, np.inf, np.float32)
        second = nearest.copy()
        value = np.zeros_like(nearest)
        for _ in range(count):
            stretch = self.generator.uniform(0.7, 1.4)
            px, py = (
                self.move(*_middle(axis, self.generator), change=0.03)[:, None, None]
                for axis in ((float(x.min()), float(x.max())), (float(y.min()), float(y.max())))
            )
            distance = np.sqrt((stretch * (x - px)) ** 2 + (y - py) ** 2)
            closer = distance < nearest
            second = np.where(closer, nearest, np.minimum(second, distance))
            nearest = np.where(closer, distance, nearest)
            value = np.where(closer, np.float32(self.generator.standard_normal()), value)
        walls = np.clip(thickness / 2 + 0.5 - (second - nearest) * self.size / 2, 0, 1)
        return walls.astype(np.float32), value.astype(np.float32)


def _middle(bounds: tuple[float, float], generator: Generator) -> tuple[float, float]:
    return generator.uniform(*bounds), 0.0


def _span(axis: Field, low: float, high: float) -> slice:
    first, last = np.searchsorted(axis, [low, high])
    return slice(min(int(first), len(axis) - 1), max(int(last), int(first) + 1))
