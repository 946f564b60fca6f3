"""Which k-space columns an accelerated scan would have measured.

The first five kinds select the same columns as fastMRI's own mask functions (Zbontar et al. 2018; "magic" masks:
Defazio 2019, "Offset Sampling Improves Deep Learning based Accelerated MRI Reconstructions by Exploiting Symmetry")
for the same seed; the frozen sets in the tests hold that. The sixth is the thesis's (Antonelli 2023; see
docs/explanation/mri.md).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from condswin.errors import BadDataError, ConfigError
from condswin.mri.config import UndersampleConfig
from condswin.mri.extent import Extent

Seed = int | Sequence[int]
Columns = NDArray[np.bool_]

#: Share of the width that the thesis's rectangle covers, whatever the centre fraction.
RECTANGLE = 0.2


class Mask(NamedTuple):
    """A drawn mask.

    Attributes:
        sampled: (W,), True where a column is measured.
        num_low_frequencies: Width of the fully sampled centre, columns.
        acceleration: The nominal acceleration that was drawn.
        center_fraction: The nominal centre fraction drawn with it.
        true_acceleration: Columns that can be measured, all of them unless `within` says which, by columns measured.
    """

    sampled: Columns
    num_low_frequencies: int
    acceleration: int
    center_fraction: float
    true_acceleration: float

    def within(self, extent: Extent) -> "Mask":
        """The same mask for a scan that went over some columns only, the others taken out as fastMRI does.

        Raises:
            BadDataError: It samples none of these.
        """
        sampled = extent.within(self.sampled)
        measured = int(sampled.sum())
        if not measured:
            raise BadDataError(f"the mask samples none of the {extent.width} columns that the scan went over")
        return self._replace(sampled=sampled, true_acceleration=extent.width / measured)


def name_seed(name: str) -> tuple[int, ...]:
    """FastMRI's seed for a file: the code points of its name with suffix (`file1000001.h5`)."""
    return tuple(map(ord, name))


def draw_mask(settings: UndersampleConfig, width: int, seed: Seed, *, offset: int | None = None) -> Mask:
    """Draws one of the (acceleration, centre fraction) pairs, then a mask.

    `equispaced` and `magic` add the centre to lines at the nominal distance, so the true acceleration is lower (4x with
    8 % is about 3.2x); the `_fraction` kinds widen the distance to make up for the centre.
    `rectangular_equispaced`, the thesis's, samples a central rectangle of 20 % of the width whatever the centre
    fraction, and every `acceleration`-th line beside it: what it calls 4x is about 2.5x.

    Args:
        settings: Kind of mask and the pairs to choose from.
        width: Number of k-space columns.
        seed: Equal seeds give equal masks; see `name_seed`.
        offset: First line of the regular pattern; the settings' if None, drawn if they have none. `random` ignores it.

    Raises:
        ConfigError: The centre alone exceeds what `random` and `equispaced_fraction` may sample, or nothing is sampled.
    """
    generator = RandomState(seed)
    offset = settings.offset if offset is None else offset
    choice = generator.randint(len(settings.center_fractions))
    fraction, acceleration = settings.center_fractions[choice], settings.accelerations[choice]
    center = round(width * (RECTANGLE if settings.mask == "rectangular_equispaced" else fraction))
    spacing = acceleration
    # One line of rounding is no mistake: the pair may be exactly at its limit for other widths.
    if settings.mask in ("random", "equispaced_fraction") and center * acceleration > width + acceleration:
        raise ConfigError(
            f"reconstruction.undersample: a centre fraction of {fraction} is more of k-space than {acceleration}x "
            f"keeps: take one below {1 / acceleration:.3g}, a lower acceleration or another mask"
        )
    if settings.mask == "magic_fraction":
        center, spacing = _magic_budget(width, acceleration, center)
    sampled = _LINES[settings.mask](generator, width, spacing, center, offset)
    start = (width - center + 1) // 2
    sampled[start : start + center] = True
    if not sampled.any():
        raise ConfigError(
            f"reconstruction.undersample: a {settings.mask} mask of {acceleration}x with a centre fraction of "
            f"{fraction} samples none of {width} columns"
        )
    return Mask(sampled, center, acceleration, fraction, width / int(sampled.sum()))


def _random(generator: RandomState, width: int, acceleration: int, center: int, _: int | None) -> Columns:
    probability = (width / acceleration - center) / max(width - center, 1)
    return generator.uniform(size=width) < probability


def _equispaced(generator: RandomState, width: int, acceleration: int, _: int, offset: int | None) -> Columns:
    sampled = np.zeros(width, dtype=np.bool_)
    sampled[generator.randint(acceleration) if offset is None else offset :: acceleration] = True
    return sampled


def _equispaced_fraction(
    generator: RandomState, width: int, acceleration: int, center: int, offset: int | None
) -> Columns:
    # The distance, not an integer in general, that leaves `width / acceleration` columns in all.
    spare = width - center * acceleration
    sampled = np.zeros(width, dtype=np.bool_)
    if spare > 0:
        distance = acceleration * (width - center) / spare
        first = generator.randint(round(distance)) if offset is None else offset
        sampled[np.around(np.arange(first, width - 1, distance)).astype(np.int64)] = True
    return sampled


def _magic_budget(width: int, acceleration: int, center: int) -> tuple[int, int]:
    wanted = round(width / acceleration)
    center = max(min(center, wanted), 1)
    return center, round(width / (wanted - center)) if wanted > center else 0


def _magic(generator: RandomState, width: int, acceleration: int, _: int, offset: int | None) -> Columns:
    """Lines whose mirror images fall between them, so that conjugate symmetry fills gaps (Defazio 2019)."""
    if acceleration <= 0:
        return np.zeros(width, dtype=np.bool_)
    if offset is None:
        offset = generator.randint(acceleration)
    even = offset % 2 == 0
    upper = np.zeros((width + 1) // 2, dtype=np.bool_)
    lower = np.zeros(width // 2, dtype=np.bool_)
    upper[offset + (1 if even else 2) :: acceleration] = True
    lower[offset + (2 if even else -1) :: acceleration] = True
    return np.fft.fftshift(np.concatenate([upper, lower[::-1]]))


_LINES: dict[str, Callable[[RandomState, int, int, int, int | None], Columns]] = {
    "random": _random,
    "equispaced": _equispaced,
    "equispaced_fraction": _equispaced_fraction,
    "magic": _magic,
    "magic_fraction": _magic,
    "rectangular_equispaced": _equispaced,
}
