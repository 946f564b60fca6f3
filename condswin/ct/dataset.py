"""Slices of prepared CT volumes as a map-style dataset."""

from collections import defaultdict
from pathlib import Path
from typing import ClassVar, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from condswin.ct.augment import augment, misplace
from condswin.ct.geometry import Geometry
from condswin.ct.lesions import draw_lesions
from condswin.ct.prepared import open_prepared, read_slices
from condswin.ct.resampling import Windows, channels
from condswin.errors import BadDataError
from condswin.tasks.slices import Batch, Slices


class Slice(NamedTuple):
    """Where a slice is: index of its case in `SliceDataset.files`, and its position within the case."""

    case: int
    position: int


class SliceDataset(Slices):
    """Axial slices of one split, each with its neighbours.

    Items are dictionaries of `image` (windows * (1 + 2 * neighbours), and 2 with positions, H, W), float32 in -1..1,
    `label` (H, W), int64, and `item`, the slice's number.
    Without `foreground`, `tumour`, `crop` and augmentation, item i is slice i. With these shares, item i is replaced
    with that probability by a random slice that shows liver or tumour; so an ordinary shuffling loader sees that share
    of such slices plus those among the rest. All draws come from torch's global generator.

    Args:
        files: Prepared cases.
        windows: HU windows, a channel for each.
        neighbours: Slices on either side given as extra channels.
        position: Whether two more channels say where in its slice a pixel is.
        foreground: Probability of a liver slice in place of the one asked for.
        tumour: Probability of a slice with tumour.
        crop: Rows and columns to cut at random, around a random pixel of what the slice was drawn for; None for whole
            slices.
        augmented: Whether to change slices at random.
        lesions: Probability that lesions are drawn into a slice that shows liver.
        one_size: Whether to refuse slices of several sizes, which do not batch.
        cache_bytes: Largest split that is held in memory; larger ones are read slice by slice.

    Raises:
        BadDataError: There is no slice, none with liver or tumour to draw, or sizes differ although `one_size` is asked
            for.
        BadFileError: A file is unusable.
    """

    #: Whether labels are read; else all are background.
    labelled: ClassVar[bool] = True

    def __init__(
        self,
        files: list[Path],
        *,
        windows: Windows,
        neighbours: int = 0,
        position: bool = False,
        foreground: float = 0.0,
        tumour: float = 0.0,
        crop: int | None = None,
        augmented: bool = False,
        lesions: float = 0.0,
        one_size: bool = False,
        cache_bytes: int = 1 << 30,
    ) -> None:
        self.files = files
        self.windows = windows
        self.neighbours = neighbours
        self.position = position
        self.shares = {1: foreground, 2: tumour}
        self.crop = crop
        self.augmented = augmented
        self.lesions = lesions
        #: Of slices, rows and columns of each case, mm.
        self.spacings: list[tuple[float, float, float]] = []
        self.slices: list[Slice] = []
        #: Numbers of the slices that show liver (tumour included), and tumour, by label.
        self.showing: dict[int, list[int]] = {1: [], 2: []}
        self._sizes: list[tuple[int, int]] = []
        sizes: dict[tuple[int, int], list[str]] = defaultdict(list)
        needed = 0
        for case, path in enumerate(files):
            with open_prepared(path) as file:
                count, height, width = file["image"].shape
                self.spacings.append((Geometry.from_attributes(file.attrs).spacing[0], *file.attrs["pixel_spacing"]))
                needed += file["image"].nbytes
                if self.labelled:
                    needed += file["label"].nbytes
                    for label, name in ((1, "liver_slices"), (2, "tumour_slices")):
                        self.showing[label] += [len(self.slices) + int(index) for index in file[name]]
                self.slices += [Slice(case, index) for index in range(count)]
                self._sizes += [(crop, crop) if crop else (height, width)] * count
            sizes[height, width].append(path.name)
        if not self.slices:
            raise BadDataError("no slices to learn from or to validate on: the split has no prepared case")
        for name, share, shown, what in (
            ("foreground", foreground, self.showing[1], "liver"),
            ("tumour", tumour, self.showing[2], "tumour"),
            ("synthetic_lesions", lesions, self.showing[1], "liver"),
        ):
            if share and not shown:
                raise BadDataError(
                    f"segmentation.train.{name} is {share:g}, but no slice of the {len(files)} cases shows {what}: "
                    "set it to 0"
                )
        if one_size and not crop and len(sizes) > 1:
            raise BadDataError(_sizes_message(sizes))
        # Loaded here, not on first use, so that worker processes share the pages instead of each loading its own.
        self._cache = [self._load(path) for path in files] if needed <= cache_bytes else None

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """See `Slices`."""
        return self._sizes

    def __getitem__(self, item: int) -> Batch:
        wanted = self._draw()
        if wanted:
            shown = self.showing[wanted]
            item = shown[int(torch.randint(len(shown), ()))]
        case, position = self.slices[item]
        image, labels = self._read(case, position)
        if self.lesions and bool((labels[len(labels) // 2] > 0).any()) and torch.rand(()) < self.lesions:
            image, labels = draw_lesions(image, labels, self.spacings[case])
        label = labels[len(labels) // 2]
        if self.augmented:
            image, label = augment(image, label)
        image = channels(image, self.windows, position=self.position)
        if self.crop:
            image, label = random_crop(image, label, self.crop, around=wanted)
        if self.position and self.augmented:
            image[-2:] = misplace(image[-2:])
        return {"image": image, "label": label, "item": torch.tensor(item)}

    def _draw(self) -> int:
        """The label that the next slice shall show, 0 for none."""
        if not any(self.shares.values()):
            return 0
        drawn = float(torch.rand(()))
        return 2 if drawn < self.shares[2] else 1 if drawn < self.shares[2] + self.shares[1] else 0

    def telling(self, count: int) -> list[int]:
        """Of each of the first cases, the slice with most tumour, or else with most liver."""
        found, first = [], 0
        for path in self.files[:count]:
            with open_prepared(path) as file:
                label = file["label"][:]
            tumour = (label == 2).sum(axis=(1, 2))
            shown = tumour if tumour.any() else (label > 0).sum(axis=(1, 2))
            found.append(first + int(shown.argmax()))
            first += len(label)
        return found

    def name(self, item: int) -> str:
        """See `Slices`."""
        case, position = self.slices[item]
        return f"{self.files[case]}, slice {position + 1}"

    def _read(self, case: int, position: int) -> tuple[Tensor, Tensor]:
        """A slice with its neighbours (C, H, W); and its labels (1, H, W), or where lesions are drawn those of all."""
        labelled = self.neighbours if self.lesions else 0
        if self._cache is not None:
            images, labels = self._cache[case]
            image = images[_around(position, self.neighbours, len(images))].astype(np.float32)
            label = labels[_around(position, labelled, len(labels))] if self.labelled else None
        else:  # opened per item: HDF5 handles do not survive the fork into worker processes
            with open_prepared(self.files[case]) as file:
                image = read_slices(file, position, position + 1, self.neighbours)[0]
                label = self._labels(file, _around(position, labelled, len(file["image"])))
        label = np.zeros((2 * labelled + 1, *image.shape[1:])) if label is None else label
        return torch.from_numpy(image), torch.from_numpy(label.astype(np.int64))

    def _labels(self, file: h5py.File, wanted: NDArray[np.intp]) -> NDArray[np.uint8] | None:
        return file["label"][wanted[0] : wanted[-1] + 1][wanted - wanted[0]] if self.labelled else None

    def _load(self, path: Path) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        with open_prepared(path) as file:
            return file["image"][:], file["label"][:] if self.labelled else np.empty(0, np.uint8)


def _around(position: int, neighbours: int, slices: int) -> NDArray[np.intp]:
    """A slice between its neighbours; beyond the volume its last slice is repeated."""
    return np.clip(np.arange(position - neighbours, position + neighbours + 1), 0, slices - 1)


def random_crop(image: Tensor, label: Tensor, size: int, *, around: int) -> tuple[Tensor, Tensor]:
    """Cuts a square at a random place, after padding smaller slices with air, as prediction pads them.

    Args:
        image: (C, H, W) in -1..1.
        label: (H, W).
        size: Rows and columns of the result.
        around: Put a random pixel of at least this label, where there is one, in the middle; 0 for anywhere.
    """
    missing = [max(0, size - side) for side in label.shape]
    padding = (missing[1] // 2, missing[1] - missing[1] // 2, missing[0] // 2, missing[0] - missing[0] // 2)
    image, label = F.pad(image, padding, value=-1), F.pad(label, padding)
    places = (label >= around).nonzero() if around else label.new_empty(0, 2)
    centre = places[torch.randint(len(places), ())].tolist() if len(places) else None
    starts = []
    for axis, side in enumerate(label.shape):
        start = centre[axis] - size // 2 if centre else int(torch.randint(side - size + 1, ()))
        starts.append(min(max(start, 0), side - size))
    rows, columns = (slice(start, start + size) for start in starts)
    return image[:, rows, columns], label[rows, columns]


def _sizes_message(sizes: dict[tuple[int, int], list[str]]) -> str:
    lines = []
    for (height, width), names in sorted(sizes.items()):
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        lines.append(f"{height}x{width}: {shown}")
    return (
        "training slices must all have one size (rows x columns), found "
        + "; ".join(lines)
        + "; set segmentation.train.crop, or leave the odd ones out"
    )
