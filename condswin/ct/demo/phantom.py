"""A generated abdomen: the anatomy that liver segmentation meets, in Hounsfield units, with the labels of LiTS.

Domain-randomised rather than pretty: body habitus, organ shapes, contrast phase, noise and reconstruction kernel vary
from case to case; in some, organs have any HU at all. Organs are smooth implicit shapes whose surfaces are roughened by
band-limited noise; everything is in millimetres, so any grid can sample it, from the shoulders to the hips.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from condswin.ct.demo.tints import draw_tints

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]

_AIR, _LUNG, _FAT, _WATER = -1000.0, -850.0, -105.0, 5.0
_HU_LIMITS = (-1024, 3071)  # what 12-bit CT stores
_BSPLINE_STD = 0.479**1.5  # of unit white noise after three cubic B-splines


@dataclass(frozen=True)
class Habitus:
    """Sizes of one body, mm."""

    half_width: float
    half_depth: float
    fat: float
    muscle: float


class Abdomen:
    """One case being drawn; `draw` gives the result.

    Args:
        rng: Source of all randomness.
        shape: Slices, rows, columns.
        spacing: Voxel size in the same order, mm.
        tumours: How many to place in the liver.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int, int],
        spacing: tuple[float, float, float],
        tumours: int,
    ) -> None:
        self.rng = rng
        self.shape = shape
        self.spacing = spacing
        self.tumours = tumours
        view = shape[2] * spacing[2]
        half_width = float(np.clip(rng.uniform(135, 195), 0.28 * view, 0.45 * view))
        self.habitus = Habitus(half_width, half_width * rng.uniform(0.62, 0.76), rng.uniform(7, 26), rng.uniform(8, 13))
        axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
        # Upwards from the middle of the liver; high volumes need not have it in their middle.
        spare = max(0, shape[0] * spacing[0] - 170)
        self.z = axes[0][:, None, None] + np.float32(rng.uniform(-18, 5) + spare * rng.uniform(-0.4, 0.4))
        self.tints = draw_tints(rng)
        self.y = axes[1][None, :, None] - np.float32(view * rng.uniform(-0.06, 0.02))  # towards the back
        self.x = axes[2][None, None, :] - np.float32(view * rng.uniform(-0.02, 0.02))  # towards the patient's left
        self.hu = np.full(shape, _AIR, dtype=np.float32)
        self.labels = np.zeros(shape, dtype=np.uint8)

    def draw(self) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
        """Draws the case.

        Returns:
            HU and labels (0 background, 1 liver, 2 tumour), each (slices, rows, columns): upwards, front to back, and
            the patient's right to left.
        """
        self._table()
        self._trunk()
        self._arms()
        self._bowel()
        self._organs()
        self._liver()
        self._chest()
        self._vessels_and_spine()
        self._ribs_and_pelvis()
        return self._scan(), self.labels

    # What surrounds the organs

    def _table(self) -> None:
        top = self.habitus.half_depth + self.rng.uniform(4, 14)
        depth = self.y - top - self.x**2 / self.rng.uniform(500, 1200)
        table = (np.abs(depth) < 2.5) | (np.abs(depth - 22) < 2)
        self._paint(table, self.rng.uniform(-500, 100))

    def _trunk(self) -> None:
        body = self.habitus
        power = self.rng.uniform(2.1, 2.6)
        radius = (np.abs(self.x / body.half_width) ** power + np.abs(self.y / body.half_depth) ** power) ** (1 / power)
        radius = radius + 0.012 * self._noise(60)
        self.depth = (1 - radius) * body.half_depth  # below the skin, mm (about)
        inside = self.depth > 0
        self._paint(inside, _FAT + 6 * self._noise(15))
        self._paint(inside & (self.depth < 2.5), 20)  # skin
        wall = body.fat + 4 * self._noise(50)
        self._paint(self.depth > wall, self.rng.uniform(45, 62))
        self.inner = self.depth - wall - body.muscle  # from the wall of the cavity inwards, mm
        self.cavity = self.inner > 0
        self.ring = self.inner + body.muscle / 2  # from the middle of the muscle wall, mm
        self.wide = body.half_width - body.fat - body.muscle  # half axes of the cavity
        self.deep = body.half_depth - body.fat - body.muscle
        self.spine_y = self.deep * 0.72
        for side in (-1, 1):  # muscles along the spine
            self._paint(self._tube(side * 36, self.spine_y + 26, 30, 21) < 1, 55 - 12 * np.abs(self._noise(7)))

    def _arms(self) -> None:
        if self.rng.random() > 0.35:
            return
        y = self.rng.uniform(-40, 40)
        for side in (-1, 1):
            x = side * (self.habitus.half_width + self.rng.uniform(35, 60))
            arm = self._tube(x, y, self.rng.uniform(25, 45), self.rng.uniform(25, 45)) + 0.1 * self._noise(40)
            self._paint(arm < 1, _FAT)
            self._paint(arm < 0.7, 50 + 10 * self._noise(12))
            bone = self._tube(x, y, 12, 12)
            self._bone(bone < 1, bone < 0.4, self.rng.uniform(400, 900), 100)

    def _bowel(self) -> None:
        self._paint(self.cavity, _FAT + 10 + 10 * self._noise(12))
        loops = self._noise(16) + 0.3 * (self.z < -10)
        bowel = self.cavity & (loops > 0.35)
        # Swallowed contrast agent fills it in some.
        filled = self.rng.uniform(100, 300) if self.rng.random() < 0.2 else self.rng.uniform(15, 60)
        self._paint(bowel, filled + 18 * self._noise(9))
        self._paint(bowel & (loops > 1.5) & (self.y < 0), -900)

    def _organs(self) -> None:
        rng, tints = self.rng, self.tints
        for side in (-1, 1):
            centre = (
                -45 - 12 * (side < 0) + rng.normal(0, 6),
                self.deep * 0.42,
                side * self.wide * rng.uniform(0.38, 0.5),
            )
            kidney = self._blob(centre, (48, 24, 23), 0.05)
            self._paint(kidney > 0, tints.cortex)
            self._paint(kidney > 0.3, tints.medulla)
            self._paint(kidney > 0.72, rng.uniform(-60, 30))
        stomach = self._blob(
            (rng.uniform(10, 35), -self.deep * 0.3, self.wide * rng.uniform(0.3, 0.45)), (50, self.deep * 0.5, 48), 0.15
        )
        self._paint((stomach > 0) & self.cavity, rng.uniform(60, 110))  # wall
        contents = rng.uniform(0, 40), rng.uniform(0, 1.2) * tints.liver, rng.uniform(120, 350)  # water, food, contrast
        content = rng.choice(contents, p=[0.4, 0.45, 0.15])
        self._paint((stomach > 0.12) & self.cavity, content + rng.uniform(4, 40) * self._noise(8))
        gas = (stomach > 0.12) & self.cavity & (self.y < -self.deep * rng.uniform(0.35, 0.65))
        self._paint(gas, -950)  # rises to the front of a patient who lies on the back
        girth = rng.uniform(0.24, 0.42)  # large ones come close to the liver's left lobe
        spleen_centre = (rng.uniform(-15, 35), self.deep * rng.uniform(0.1, 0.4), self.wide * (0.98 - girth))
        spleen_radii = (rng.uniform(38, 80), self.deep * rng.uniform(0.42, 0.68), self.wide * girth)
        spleen = self._blob(spleen_centre, spleen_radii, 0.12)
        self._paint((spleen > 0) & self.cavity, tints.spleen + rng.uniform(2, 8) * self._noise(20))
        pancreas = self._blob((-25, -5, rng.uniform(0, 25)), (16, 13, 60), 0.35)
        self._paint((pancreas > 0) & self.cavity, tints.pancreas + 8 * self._noise(6))

    # The liver and what grows in it

    def _liver(self) -> None:
        rng, liver_hu = self.rng, self.tints.liver
        reach = rng.uniform(0.85, 1.12)
        right = self._blob(
            (rng.uniform(-8, 8), self.deep * 0.05, -self.wide * 0.5),
            (78 * reach, self.deep * 0.82, self.wide * 0.5),
            0.0,
        )
        left = self._blob(
            (rng.uniform(8, 22), -self.deep * 0.45, self.wide * rng.uniform(-0.12, 0.12)),
            (45 * reach, self.deep * 0.42, self.wide * rng.uniform(0.4, 0.62)),
            0.0,
        )
        level = np.logaddexp(8 * right, 8 * left) / 8 + 0.1 * self._noise(45) + 0.035 * self._noise(18)
        dome = rng.uniform(50, 74)  # mm above the middle; the left one is lower and lets stomach and spleen in
        domes = [
            top - 55 * (((self.x - side * self.wide * 0.45) / (self.wide * 0.9)) ** 2 + (self.y / self.deep) ** 2)
            for side, top in ((-1, dome), (1, dome - rng.uniform(8, 22)))
        ]
        self.diaphragm = np.maximum(*domes)
        # Mostly a plane of fat lies between the liver and its neighbours; in lean bodies they touch.
        plane = rng.uniform(0, 0.09)
        self._paint((level > 0.06 - plane) & self.cavity & (self.z < self.diaphragm), _FAT + 10)
        liver = (level > 0.06) & (self.inner > rng.uniform(0, 4.5)) & (self.z < self.diaphragm - 3)
        liver &= self._tube(0, self.spine_y - 6, 34, 34) > 1
        liver &= self._tube(-self.wide * 0.45, self.deep * 0.95, self.wide * 0.3, 22) > 1
        gallbladder = self._blob((-45, -self.deep * 0.2, -self.wide * 0.3), (28, 16, 14), 0.1) > 0
        hilum = self._blob((-12, -self.deep * 0.1, -self.wide * 0.14), (16, 16, 20), 0.4) > 0
        self._paint(gallbladder & self.cavity, _WATER + rng.uniform(0, 15))
        self._paint(hilum & liver, rng.uniform(-60, 20) + 15 * self._noise(6))
        slab = np.abs(self.x - self.wide * rng.uniform(-0.25, 0.05) - 0.3 * self.y - 3 * self._noise(30))
        fissure = (slab < rng.uniform(0, 3.5)) & (self.y < -self.deep * rng.uniform(0, 0.4))
        fissure &= self.z < rng.uniform(-10, 40)
        self._paint(fissure & liver, rng.uniform(-60, 20))
        liver &= ~gallbladder & ~hilum & ~fissure
        liver = _largest(liver)
        self._paint(liver, liver_hu + rng.uniform(2, 6) * self._noise(28) + 3 * self._noise(9))
        self.labels[liver] = 1
        # Two noise fields vanish together along smooth curves: a tree of tubes, wider towards the hilum.
        away = np.sqrt((self.x + self.wide * 0.2) ** 2 + (self.y + self.deep * 0.1) ** 2 + self.z**2)
        width = 0.10 + 0.22 * np.exp(-away / 45)
        tubes = np.hypot(self._noise(27), self._noise(27)) < width
        self._paint(tubes & liver, liver_hu + self.tints.vessels)
        for number in range(self.tumours):
            self._tumour(liver, liver_hu, largest=number == 0)

    def _tumour(self, liver: Mask, liver_hu: float, *, largest: bool) -> None:
        rng = self.rng
        places = np.flatnonzero(liver)
        if not places.size:
            return
        k, i, j = np.unravel_index(rng.choice(places), self.shape)
        pixels = np.exp(rng.uniform(np.log(7 if largest else 3), np.log(40 if largest else 16)))
        radius = max(1.6, pixels / 2 * self.shape[2] / 128) * self.spacing[2]
        centre = (float(self.z[k, 0, 0]), float(self.y[0, i, 0]), float(self.x[0, 0, j]))
        level = self._blob(centre, tuple(radius * rng.uniform(0.8, 1.2, 3)), 0.0)
        if radius > 8:
            level = level + min(0.25, radius / 100) * self._noise(radius)
        level[k, i, j] = 0.5  # however rough, it exists
        tumour = (level > 0) & liver
        kind = rng.choice(["hypodense", "faint", "rim", "necrotic", "bright"], p=[0.45, 0.18, 0.15, 0.15, 0.07])
        contrast = rng.uniform(14, 22) if kind == "faint" else rng.uniform(25, 60)
        texture = rng.uniform(2, 9) * self._noise(7)
        self._paint(tumour, liver_hu + (rng.uniform(20, 40) if kind == "bright" else -contrast) + texture)
        if kind == "rim":
            self._paint(tumour & (level < 0.35), liver_hu + rng.uniform(5, 28))
        if kind == "necrotic":
            self._paint(tumour & (level > 0.5), rng.uniform(10, 40))
        self.labels[tumour] = 2

    # What is drawn over the organs

    def _chest(self) -> None:
        above = self.cavity & (self.z > self.diaphragm) & (self.inner > 2)
        above &= self.labels == 0
        heart = self._blob((95, -self.deep * 0.35, self.wide * 0.12), (50, self.deep * 0.5, self.wide * 0.42), 0.05) > 0
        middle = (self._tube(0, -self.deep * 0.1, 38, self.deep * 0.75) + 0.3 * self._noise(25) < 1) & (self.z > 120)
        vessels = self._noise(9) > 1.9
        self._paint(above, np.where(vessels, -300, _LUNG + 30 * self._noise(20)))
        self._paint(above & middle, np.where(self._noise(14) > 0.3, self.tints.artery, _FAT + 40))
        self._paint(above & heart, self.tints.artery + 12 * self._noise(25))

    def _vessels_and_spine(self) -> None:
        rng = self.rng
        y = self.spine_y
        self._paint(self._tube(rng.uniform(6, 18), y - 30, 12, 12) < 1, self.tints.artery)  # aorta
        cava = (self._tube(-24, y - 32, 12, 10) < 1) & (self.labels == 0)
        self._paint(cava, self.tints.vein)
        marrow, cortex = rng.uniform(130, 240), rng.uniform(350, 800)
        level = (self.z + rng.uniform(0, 34)) % 34  # a vertebra and its disc
        body = self._tube(0, y, 24, 19)
        self._bone(body < 1, body < 0.72, cortex, marrow + 40 * self._noise(4))
        self._paint((body < 1) & (level < 7), rng.uniform(70, 110))
        arch = self._tube(0, y + 29, 17, 15)
        self._bone(arch < 1, arch < 0.6, cortex, marrow)
        self._paint(self._tube(0, y + 27, 9, 8) < 1, 30)  # canal
        process = (np.abs(self.x) < 4) & (self.y > y + 40) & (self.y < y + 66) & (level > 12) & (level < 28)
        wings = (
            (np.abs(self.y - y - 24) < 4) & (np.abs(self.x) < 38) & (np.abs(self.x) > 12) & (level > 16) & (level < 26)
        )
        self._paint((process | wings) & (self.depth > self.habitus.fat / 2), cortex * 0.7)
        for side in (-1, 1):  # psoas
            psoas = self._tube(side * 36, y - 4, 17, 17) - np.clip((self.z + 20) / 40, 0, 1) < 1
            self._paint(psoas & (self.z < -20) & self.cavity & (self.labels == 0) & (body > 1), 55)

    def _ribs_and_pelvis(self) -> None:
        rng = self.rng
        around = np.abs(np.arctan2(self.x, self.y))  # 0 at the back, pi in front
        rung = (self.z + rng.uniform(0, 30) + 26 * around) % 30
        ribs = (np.abs(self.ring) < 4.5) & (rung < 11) & (around < 2.5) & (self.labels == 0)
        ribs &= self.z > rng.uniform(-110, -80)
        core = (np.abs(self.ring) < 2.2) & (np.abs(rung - 5.5) < 3)
        self._bone(ribs, ribs & core, rng.uniform(350, 700), rng.uniform(120, 220))
        if self.z.min() > -110:
            return
        for side in (-1, 1):
            wing_centre = (-185, self.deep * 0.25, side * self.wide * 0.78)
            wing = self._blob(wing_centre, (62, self.deep * 0.7, self.wide * 0.3), 0.1)
            shell = np.abs(wing - 0.25) < 0.1
            self._bone(shell & (self.depth > 8), np.abs(wing - 0.25) < 0.05, 500, rng.uniform(80, 200))
            head = self._blob((-265, 0, side * self.wide * 0.72), (26, 26, 26), 0.0)
            self._bone(head > 0, head > 0.2, 500, rng.uniform(150, 300))
        bladder = self._blob((-250, -self.deep * 0.2, 0), (38, 34, 46), 0.05)
        self._paint((bladder > 0) & self.cavity, rng.choice([rng.uniform(0, 20), rng.uniform(150, 400)], p=[0.7, 0.3]))

    # How a scanner sees it

    def _scan(self) -> NDArray[np.int16]:
        rng = self.rng
        sharp = rng.uniform(0.4, 0.75)
        image = ndimage.gaussian_filter(self.hu, (0.25, sharp, sharp), truncate=3)
        texture = rng.standard_normal(self.shape, dtype=np.float32)
        fine = rng.uniform(0.35, 1.0)  # reconstruction kernel: correlated grain, with its low frequencies taken out
        grain = ndimage.gaussian_filter(texture, (0.2, fine, fine), truncate=3)
        grain -= rng.uniform(0.2, 0.7) * ndimage.gaussian_filter(grain, (0.2, 2.5, 2.5), truncate=3)
        # Most noise is deep inside the body; thick slices and wide pixels have averaged nearly all of it away.
        strength = rng.triangular(2, 9, 25) * np.clip(0.55 + self.depth / 120, 0.4, 1.1)
        image += grain * (strength / grain.std())
        image += rng.uniform(0, 8) * self._noise(100) * (self.depth > 0)  # scatter, beam hardening
        if rng.random() < 0.3:  # faint streaks between the arms, along rows
            rows = ndimage.gaussian_filter(rng.standard_normal((*self.shape[:2], 1), dtype=np.float32), (0.3, 0.7, 0))
            image += rng.uniform(4, 10) * rows * (self.depth > 0)
        image += rng.uniform(-8, 8)  # calibration of this scanner
        if rng.random() < 0.5:  # outside the reconstructed circle
            rows_, columns = np.ogrid[: self.shape[1], : self.shape[2]]
            centre = (np.array(self.shape[1:]) - 1) / 2
            outside = np.hypot(rows_ - centre[0], columns - centre[1]) > self.shape[2] / 2
            image[:, outside] = _HU_LIMITS[0]
        scanned: NDArray[np.int16] = np.clip(np.rint(image), *_HU_LIMITS).astype(np.int16)
        return scanned

    # Tools

    def _paint(self, where: Mask, hu: float | Field) -> None:
        np.copyto(self.hu, np.asarray(hu, np.float32), where=np.broadcast_to(where, self.shape))

    def _bone(self, where: Mask, core: Mask, cortex: float, marrow: float | Field) -> None:
        self._paint(where, cortex)
        self._paint(core, marrow)

    def _tube(self, x: float, y: float, half_width: float, half_depth: float) -> Field:
        """Squared elliptic distance from an axis that runs along the body; 1 on the surface."""
        distance: Field = ((self.x - x) / half_width) ** 2 + ((self.y - y) / half_depth) ** 2
        return distance

    def _blob(self, centre: tuple[float, ...], radii: tuple[float, ...], rough: float) -> Field:
        """1 in the centre of an ellipsoid (z, y, x; mm), 0 on its surface, negative outside."""
        squares = sum(
            ((axis - middle) / radius) ** 2
            for axis, middle, radius in zip((self.z, self.y, self.x), centre, radii, strict=True)
        )
        level = (1 - np.sqrt(squares)).astype(np.float32)
        return level + np.float32(rough) * self._noise(22) if rough else level

    def _noise(self, scale: float) -> Field:
        """Smooth noise of unit variance whose hills are about `scale` mm wide: random cubic B-splines."""
        # Four taps per axis instead of matrix products: the same bits on every machine and number of threads.
        taps = []
        for size, step in zip(self.shape, self.spacing, strict=True):
            places = np.arange(size) * step / (scale / 2) + self.rng.random()
            knots = places.astype(np.intp)
            t = (places - knots).astype(np.float32)
            weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
            taps.append((knots, [weight / 6 for weight in weights]))
        field = self.rng.standard_normal([knots[-1] + 4 for knots, _ in taps], dtype=np.float32)
        field /= np.float32(_BSPLINE_STD)
        for axis, (knots, basis) in enumerate(taps):
            along = [1, 1, 1]
            along[axis] = -1
            parts = [field.take(knots + i, axis) * weight.reshape(along) for i, weight in enumerate(basis)]
            field = np.asarray(parts[0] + parts[1] + parts[2] + parts[3], np.float32)
        return field


def _largest(mask: Mask) -> Mask:
    """The largest connected part."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest: Mask = parts == sizes.argmax()
    return largest
