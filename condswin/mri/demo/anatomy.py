"""Generated anatomy for demo data: a knee along the bones, a limb across them, a head.

Nobody's anatomy and no atlas: nested outlines, rims, septa, folds, vessels and textures of random sizes and contrasts,
so that a network learns what tissue borders look like rather than where they are.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from condswin.mri.demo.phantom import Canvas, Field, Shape


class Contrast(NamedTuple):
    """Signal of each tissue, the brightest about one."""

    fat: float
    marrow: float
    muscle: float
    cortical: float
    cartilage: float
    fluid: float
    ligament: float
    gray: float
    white: float


_PLAIN = Contrast(0.85, 0.65, 0.36, 0.06, 0.5, 0.65, 0.14, 0.5, 0.64)
_FAT_SUPPRESSED = Contrast(0.2, 0.16, 0.38, 0.05, 0.6, 0.9, 0.12, 0.55, 0.46)


def draw_contrast(generator: Generator, *, fat_suppressed: bool) -> Contrast:
    """Contrast of a proton-density scan, jittered; every tenth has tissues shuffled, so that none can be relied on."""
    values = np.array(_FAT_SUPPRESSED if fat_suppressed else _PLAIN)
    values = values * np.exp(0.15 * generator.standard_normal(values.size))
    if generator.random() < 0.1:
        values = generator.permutation(values)
    return Contrast(*(float(value) for value in np.clip(values, 0.02, 1.1)))


def paint_anatomy(canvas: Canvas, contrast: Contrast) -> None:
    """Paints one of the anatomies onto an empty canvas and the clutter that all share."""
    kind = canvas.generator.choice(len(_ANATOMIES), p=[0.5, 0.3, 0.2])
    body = _ANATOMIES[int(kind)](canvas, contrast)
    _clutter(canvas, body)
    # Texture of tissue: multiplies, so that dark stays dark.
    grain = 0.04 * canvas.texture(3.0) + canvas.generator.uniform(0.005, 0.02) * canvas.texture(1.6)
    canvas.image *= np.clip(1 + grain, 0.3, None)


def _knee(canvas: Canvas, contrast: Contrast) -> Shape:
    draw = canvas.generator
    x = canvas.move(0, 0.04)
    body = canvas.shape((x, canvas.move(0, 0.1)), (canvas.drift(0.4, 0.5), canvas.drift(1.1, 1.6)), bumps=0.03)
    _skin_and_fat(canvas, body, contrast)
    depth = draw.uniform(0.02, 0.07) * canvas.size
    _muscles(canvas, body, depth, contrast, int(draw.integers(5, 12)))

    joint = canvas.move(0, 0.12)
    width = canvas.drift(0.22, 0.33)
    gap = float(draw.uniform(0.018, 0.04))
    # The joint's capsule: fluid and fat around the ends of the bones.
    capsule = canvas.shape((x, joint), (width * 1.12, canvas.drift(0.13, 0.22)), bumps=0.06)
    canvas.paint(capsule, capsule.inside(), contrast.fat if draw.random() < 0.6 else contrast.fluid)
    canvas.paint(capsule, 0.6 * _part(canvas.lines(14, 1.2), capsule) * capsule.inside(), contrast.ligament)
    cartilage = float(draw.uniform(0.012, 0.028)) * canvas.size
    for side in (-1, 1):
        end = float(draw.uniform(0.12, 0.17))
        shaft = canvas.shape(
            (x + canvas.move(0, 0.04), joint + side * 0.75),
            (width * canvas.drift(0.5, 0.68), canvas.drift(0.58, 0.64)),
            bumps=0.02,
        )
        _bone(canvas, shaft, contrast, 0)
        lobes = [(-0.52, 0.56), (0.52, 0.56)] if side < 0 else [(-0.4, 0.66), (0.4, 0.66)]
        ends = [
            canvas.shape(
                (x + offset * width, joint + side * (gap / 2 + end)),
                (width * share, canvas.drift(end * 0.92, end * 1.05)),
                bumps=0.045,
            )
            for offset, share in lobes
        ]
        for lobe in ends:
            canvas.paint(lobe, lobe.inside(-cartilage), contrast.cartilage)
        for lobe in ends:
            canvas.paint(lobe, lobe.inside(), contrast.cortical)
        marrow = _marrow(canvas, contrast)
        rim = float(draw.uniform(0.8, 2.2))
        for lobe in (*ends, shaft):
            canvas.paint(lobe, lobe.inside(rim), marrow)
        if draw.random() < 0.7:
            plate = canvas.shape(
                (x, joint + side * (gap / 2 + 2.0 * end)), (width * 0.8, canvas.drift(0.02, 0.05)), bumps=0.1
            )
            canvas.paint(plate, 0.7 * plate.rim(1.3), contrast.cortical)
    for side in (-1, 1):
        # Menisci, collateral ligaments, and cruciates between the bones.
        meniscus = canvas.shape(
            (x + side * width * 0.85, joint), (canvas.drift(0.05, 0.09), canvas.drift(0.012, 0.028)), bumps=0.1
        )
        canvas.paint(meniscus, meniscus.inside(), contrast.ligament)
        band = canvas.shape(
            (x + side * width * 1.08, joint),
            (canvas.drift(0.008, 0.016), canvas.drift(0.15, 0.3)),
            angle=side * draw.uniform(-0.15, 0.15),
        )
        canvas.paint(band, band.inside(), contrast.ligament)
    cruciate = canvas.shape(
        (x, joint), (canvas.drift(0.012, 0.025), canvas.drift(0.06, 0.1)), angle=draw.uniform(-0.8, 0.8)
    )
    canvas.paint(cruciate, 0.9 * cruciate.inside(), contrast.ligament)
    if draw.random() < 0.6:
        fibula = canvas.shape(
            (x + width * draw.choice([-1, 1]) * 1.05, joint + 0.62),
            (canvas.drift(0.04, 0.065), canvas.drift(0.36, 0.48)),
        )
        _bone(canvas, fibula, contrast, float(draw.uniform(1, 2)))
    _vessels(canvas, body, contrast, int(draw.integers(2, 7)))
    return body


def _limb(canvas: Canvas, contrast: Contrast) -> Shape:
    draw = canvas.generator
    middle = (canvas.move(0, 0.04), canvas.move(0, 0.05))
    radius = draw.uniform(0.36, 0.47)
    body = canvas.shape(middle, (canvas.drift(radius, radius), canvas.drift(0.85 * radius, 1.15 * radius)), bumps=0.05)
    _skin_and_fat(canvas, body, contrast)
    _muscles(canvas, body, draw.uniform(0.03, 0.1) * canvas.size, contrast, int(draw.integers(8, 18)))
    for _ in range(int(draw.integers(1, 4))):
        size = draw.uniform(0.05, 0.16)
        bone = canvas.shape(
            (canvas.move(0, 0.2), canvas.move(0, 0.2)),
            (canvas.drift(size, size), canvas.drift(0.7 * size, 1.2 * size)),
            angle=draw.uniform(0, 3),
            bumps=0.09,
        )
        if draw.random() < 0.5:
            canvas.paint(bone, bone.inside(-draw.uniform(1, 4)), contrast.cartilage)
        _bone(canvas, bone, contrast, float(draw.uniform(1, 4)))
    _vessels(canvas, body, contrast, int(draw.integers(4, 10)))
    return body


def _head(canvas: Canvas, contrast: Contrast) -> Shape:
    draw = canvas.generator
    x, y = canvas.move(0, 0.03), canvas.move(0, 0.05)
    wide = draw.uniform(0.34, 0.44)
    radii = (canvas.drift(wide, wide), canvas.drift(1.05 * wide, 1.3 * wide))
    body = canvas.shape((x, y), radii, bumps=0.025)
    _skin_and_fat(canvas, body, contrast)
    scalp = draw.uniform(0.02, 0.045) * canvas.size
    skull = draw.uniform(0.02, 0.05) * canvas.size
    canvas.paint(body, body.inside(scalp), contrast.cortical)
    canvas.paint(
        body, 0.8 * (body.inside(scalp + 0.35 * skull) - body.inside(scalp + 0.7 * skull)), _marrow(canvas, contrast)
    )
    brain = scalp + skull
    # Part of a sulcus's width is cortex of either side, so its signal lies between.
    sulci = contrast.fluid if draw.random() < 0.5 else contrast.cortical
    canvas.paint(body, body.inside(brain), sulci + draw.uniform(0.1, 0.5) * (contrast.gray - sulci))
    # Folds: winding sulci near the surface; the cortex follows them as a band on either side.
    folds = draw.uniform(4, 7)
    field = canvas.texture(1.0, band=(0.5 * folds, 1.3 * folds), coherence=1.2)
    slope = 2 * np.pi * folds / canvas.size
    depth = body.depth - np.float32(brain)
    reach = np.float32(draw.uniform(0.12, 0.2) * canvas.size)
    valley = _part(np.abs(field), body) / np.float32(slope)
    # Distance in pixels to the nearest sulcus or to the surface, whichever is nearer.
    valley = valley + np.maximum(depth - reach, 0) * np.float32(0.5)
    below = np.minimum(valley - np.float32(draw.uniform(0.5, 1.1)), depth)
    cortex = np.float32(draw.uniform(0.017, 0.028) * canvas.size)
    gray = contrast.gray + 0.03 * canvas.texture(3.0)
    white = contrast.white + 0.02 * canvas.texture(3.0)
    canvas.paint(body, np.clip(below + 0.5, 0, 1) * body.inside(brain), gray)
    canvas.paint(body, np.clip((below - cortex) / 1.5 + 0.5, 0, 1) * body.inside(brain), white)
    for side in (-1, 1):
        for _ in range(3):
            nucleus = canvas.shape(
                (x + side * canvas.drift(0.06, 0.13), y + canvas.move(0, 0.1)),
                (canvas.drift(0.02, 0.05), canvas.drift(0.03, 0.08)),
                angle=side * draw.uniform(-0.6, 0.6),
                bumps=0.08,
            )
            canvas.paint(nucleus, draw.uniform(0.4, 1) * nucleus.inside(), gray)
        horn = canvas.shape(
            (x + side * canvas.drift(0.025, 0.05), y + canvas.move(0, 0.08)),
            (canvas.drift(0.012, 0.035), canvas.drift(0.06, 0.14)),
            angle=side * draw.uniform(-0.1, 0.5),
            bumps=0.1,
        )
        canvas.paint(horn, horn.inside(), contrast.fluid)
    falx = canvas.shape((x, y), (np.full_like(x, 0.006), radii[1] * 0.85), bumps=0.02)
    canvas.paint(falx, 0.8 * falx.inside(), contrast.fluid)
    _vessels(canvas, body, contrast, int(draw.integers(2, 7)))
    return body


_ANATOMIES: tuple[Callable[[Canvas, Contrast], Shape], ...] = (_knee, _limb, _head)


def _skin_and_fat(canvas: Canvas, body: Shape, contrast: Contrast) -> None:
    fat = contrast.fat * (1 + 0.06 * canvas.texture(3.0))
    canvas.paint(body, body.inside(), fat)
    canvas.paint(
        body, 0.2 * _part(canvas.lines(canvas.generator.uniform(8, 16), 0.8), body) * body.inside(2), contrast.muscle
    )
    canvas.paint(body, body.rim(canvas.generator.uniform(0.8, 1.8)), contrast.muscle)


def _muscles(canvas: Canvas, body: Shape, depth: float, contrast: Contrast, count: int) -> None:
    walls, level = canvas.cells(body, count, canvas.generator.uniform(0.8, 2.2))
    base = contrast.muscle * (1 + 0.05 * canvas.texture(3.0))
    part = _part(base, body) * (1 + np.float32(0.1) * level)
    inside = body.inside(depth)
    image = canvas.image[:, body.window[0], body.window[1]]
    image += inside * (1 - walls) * (part - image)
    # Fascia around all of it, and fibres with streaks of fat.
    canvas.paint(body, 0.8 * (body.inside(depth - 1.2) - inside), contrast.ligament)
    streaks = _part(canvas.lines(canvas.generator.uniform(9, 18), 0.7), body)
    canvas.paint(body, canvas.generator.uniform(0.05, 0.2) * streaks * inside, contrast.fat)


def _marrow(canvas: Canvas, contrast: Contrast) -> Field:
    """Fatty marrow with trabeculae and patches of red marrow."""
    patches = np.clip(canvas.texture(3.5), -1, 2) * 0.06
    return (contrast.marrow * (1 + patches + 0.03 * canvas.texture(1.2, band=(8, 40)))).astype(np.float32)


def _bone(canvas: Canvas, shape: Shape, contrast: Contrast, rim: float) -> None:
    canvas.paint(shape, shape.inside(), contrast.cortical)
    canvas.paint(shape, shape.inside(max(rim, 1.5)), _marrow(canvas, contrast))


def _vessels(canvas: Canvas, body: Shape, contrast: Contrast, count: int) -> None:
    draw = canvas.generator
    for _ in range(count):
        size = draw.uniform(0.005, 0.012)
        vessel = canvas.shape(
            (canvas.move(0, 0.36), canvas.move(0, 0.4)),
            (canvas.drift(size, size), canvas.drift(size, 2 * size)),
            angle=draw.uniform(0, 3),
            harmonics=2,
        )
        inside = (
            vessel.inside() * np.clip(body.depth[_within(vessel, body)] / 4, 0, 1) if _contains(body, vessel) else None
        )
        if inside is not None:
            canvas.paint(vessel, inside, draw.uniform(0.4, 0.9) if draw.random() < 0.6 else contrast.cortical)


def _clutter(canvas: Canvas, body: Shape) -> None:
    """Small shapes and lines of random signal anywhere in the body."""
    draw = canvas.generator
    for _ in range(int(draw.integers(2, 7))):
        size, stretch = np.exp(draw.uniform(np.log(0.01), np.log(0.09))), draw.uniform(0.15, 1)
        spot = canvas.shape(
            (canvas.move(0, 0.36), canvas.move(0, 0.42)),
            (canvas.drift(size, size), canvas.drift(size * stretch, size * stretch)),
            angle=draw.uniform(0, 3),
            bumps=0.1,
            harmonics=3,
        )
        if _contains(body, spot):
            inside: Field = np.clip(body.depth[_within(spot, body)] / 4, 0, 1)
            inside *= spot.rim(draw.uniform(0.8, 2)) if draw.random() < 0.3 else spot.inside()
            inside *= np.float32(draw.uniform(0.15, 0.7))
            canvas.paint(spot, inside, draw.uniform(0.03, 1))


def _part(field: Field, shape: Shape) -> Field:
    return field[:, shape.window[0], shape.window[1]]


def _contains(outer: Shape, inner: Shape) -> bool:
    return all(a.start <= b.start and b.stop <= a.stop for a, b in zip(outer.window, inner.window, strict=True))


def _within(inner: Shape, outer: Shape) -> tuple[slice, slice, slice]:
    """The window of `inner` in the coordinates of `outer`'s arrays."""
    rows, columns = (
        slice(b.start - a.start, b.stop - a.start) for a, b in zip(outer.window, inner.window, strict=True)
    )
    return slice(None), rows, columns
