"""Slices of prepared files as network inputs and targets."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from condswin.errors import BadDataError, BadFileError
from condswin.fourier import (
    fftc,
    hybrid_magnitude,
    ifftc,
    readout_hybrid,
)
from condswin.mri.augment import PHASE, draw_move, move, uneven_phase, where
from condswin.mri.config import AugmentMriConfig, UndersampleConfig
from condswin.mri.inputs import complex_inputs, normalise
from condswin.mri.masks import draw_mask, name_seed
from condswin.mri.prepared import prepared_files
from condswin.mri.reading import KSPACE, ZERO_FILLED, VolumeReader
from condswin.mri.volumes import NO_TARGET, Volume, around, read_volumes
from condswin.networks.presets import INPUT_CHANNELS, OUTPUT_CHANNELS
from condswin.tasks.slices import Batch, Slices


class SliceDataset(Slices):
    """Slices of the prepared files of one split, as networks on magnitude images take them.

    An item has `image` (1, H, W), the normalised zero-filled magnitude; `target` (1, H, W), scaled by the image's mean
    and standard deviation; these two as `mean` and `std`; `maximum`, the largest value of the target volume;
    `item`, the slice's number; and `volume`, the volume's.

    Slices of undersampled files are the same every time. Slices of fully sampled files get a fresh mask each time,
    drawn from torch's global generator; without `training` they keep one mask per file, seeded by its name.

    Small splits are held in memory, fully sampled ones transformed along the readout already; of larger ones each item
    opens its file and reads one slice, so no HDF5 handle is ever shared between processes.

    Args:
        folder: `prepared/<split>`.
        undersample: Masks for fully sampled files.
        training: Draw fresh masks, and mirror.
        cache_bytes: Largest split that is held in memory.

    Raises:
        BadDataError: The folder has no file.
        BadFileError: A file is unusable.
    """

    #: Of networks that take these slices: in, out.
    channels: ClassVar[tuple[int, int]] = (1, 1)
    #: Whether slices come with targets, and training draws masks of its own.
    supervised: ClassVar[bool] = True

    def __init__(
        self,
        folder: Path,
        undersample: UndersampleConfig,
        *,
        training: bool,
        cache_bytes: int = 1 << 30,
    ) -> None:
        self._undersample = undersample
        self._training = training
        self._volumes = read_volumes(list(prepared_files(folder).values()))
        if not self._volumes:
            raise BadDataError(f"{folder}: no prepared file; run `condswin undersample` first")
        for volume in self._volumes:
            if self.supervised and volume.target is None:
                raise BadFileError(volume.path, NO_TARGET)
        # Columns of raw signals; 0 where none is hybrid space.
        self._widest = 0
        if any(map(self._width, self._volumes)):
            self._widest = max(max(self._width(volume), volume.size[1]) for volume in self._volumes)
        self._index = [(number, at) for number, volume in enumerate(self._volumes) for at in range(volume.slices)]
        self._cache: list[tuple[Tensor, Tensor]] | None = None
        if sum(map(self._bytes, self._volumes)) <= cache_bytes:
            self._cache = [self._read(volume, 0, volume.slices) for volume in self._volumes]

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """See `Slices`."""
        return [self._size(self._volumes[number]) for number, _ in self._index]

    def __getitem__(self, index: int) -> Batch:
        alone = {name: value[None] for name, value in self.raw(index).items()}
        return {name: value[0] for name, value in self.inputs(alone).items()}

    def raw(self, index: int) -> Batch:
        """See `Slices`: `signal`, hybrid space or a zero-filled image; `target` and numbers; and what was drawn.

        Hybrid space comes with `sampled`, the columns (W,) that count, and `width`, how many it has. Where widths
        differ, zeros follow up to the largest.
        """
        number, slice_ = self._index[index]
        volume = self._volumes[number]
        signal, target = self._signal(number, slice_)
        maximum = torch.tensor(volume.maximum, dtype=torch.float32)
        numbers = {"item": torch.tensor(index), "volume": torch.tensor(number)}
        read = {"signal": signal, "target": target, "maximum": maximum, **numbers}
        return {**self._sampling(volume, read), **(self._drawn(volume) if self._training else {})}

    def inputs(self, batch: Batch) -> Batch:
        """See `Slices`."""
        zero_filled, target = self._zero_filled(batch), batch["target"]
        if "mirrored" in batch:
            for axis, mirrored in zip((-2, -1), batch["mirrored"].unbind(1), strict=True):
                zero_filled, target = (where(mirrored, image.flip(axis), image) for image in (zero_filled, target))
        image, mean, std = normalise(zero_filled, batch["maximum"])
        target = (target - mean[:, None, None]) / std[:, None, None]
        return {"image": image[:, None], "target": target[:, None], "mean": mean, "std": std, **_facts(batch)}

    def telling(self, count: int) -> list[int]:
        """The middle slices of the first volumes."""
        middle = [item for item, (number, at) in enumerate(self._index) if at == self._volumes[number].slices // 2]
        return middle[:count]

    def name(self, item: int) -> str:
        """See `Slices`."""
        number, slice_ = self._index[item]
        return f"{self._volumes[number].path}, slice {slice_ + 1}"

    def _signal(self, number: int, slice_: int) -> tuple[Tensor, Tensor]:
        """Signal and target of a slice of a volume."""
        if self._cache is None:
            signals, targets = self._read(self._volumes[number], slice_, slice_ + 1)
            return signals[0], targets[0]
        return self._cache[number][0][slice_], self._cache[number][1][slice_]

    def _drawn(self, volume: Volume) -> Batch:
        # A mirrored scan is a scan; few volumes go further with it.
        return {"mirrored": torch.stack([torch.rand(()) < 0.5 for _ in range(2)])}

    def _sampling(self, volume: Volume, read: Batch) -> Batch:
        """Adds which columns of hybrid space count; brings splits of several kinds to one shape."""
        if not self._widest:
            return read
        width = self._width(volume)
        sampled = torch.from_numpy(self._mask(volume)) if width else torch.zeros(0, dtype=torch.bool)
        return {
            **read,
            "signal": pad(read["signal"].to(torch.complex64), (0, self._widest - read["signal"].shape[-1])),
            "sampled": pad(sampled, (0, self._widest - width)),
            "width": torch.tensor(width),
        }

    def _zero_filled(self, batch: Batch) -> Tensor:
        signal, target = batch["signal"], batch["target"]
        if "width" not in batch:
            return signal
        widths, columns = sorted(set(batch["width"].tolist())), target.shape[-1]
        if len(widths) > 1:
            zero_filled = torch.empty_like(target)
            for width in widths:
                alike = batch["width"] == width
                zero_filled[alike] = self._zero_filled({name: values[alike] for name, values in batch.items()})
            return zero_filled
        if widths == [0]:
            return signal[..., :columns].real
        return hybrid_magnitude((signal * batch["sampled"][:, None])[..., : widths[0]], columns)

    def _mask(self, volume: Volume) -> NDArray[np.bool_]:
        if volume.sampled is not None:
            return volume.sampled
        # A pair, so that no name's seed is among them.
        fresh = self._training and self.supervised
        seed = (int(torch.randint(2**32, (), dtype=torch.int64)), 0) if fresh else name_seed(volume.path.name)
        return volume.extent.within(draw_mask(self._undersample, volume.kspace[1], seed).sampled)

    def _bytes(self, volume: Volume) -> int:
        """What holding a volume in memory takes."""
        rows, columns = volume.size
        held = 8 * volume.kspace[1] if self._holds_hybrid(volume) else 4 * columns
        return volume.slices * rows * (held + 4 * columns)

    def _size(self, volume: Volume) -> tuple[int, ...]:
        return volume.size

    def _width(self, volume: Volume) -> int:
        return volume.kspace[1] if self._holds_hybrid(volume) else 0

    def _holds_hybrid(self, volume: Volume) -> bool:
        """Whether a signal is hybrid space; else it is the zero-filled magnitude that the file has."""
        return volume.sampled is None

    def _read(self, volume: Volume, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Signal, zero-filled (n, H, W) or hybrid space (n, H, W of k-space), and target (n, H, W) of some slices."""
        with VolumeReader(volume.path) as reader:
            target = self._target(reader, volume, start, stop)
            if self._holds_hybrid(volume):
                return torch.from_numpy(readout_hybrid(reader.read(KSPACE, start, stop), volume.size[0])), target
            return torch.from_numpy(reader.read(ZERO_FILLED, start, stop)), target

    def _target(self, reader: VolumeReader, volume: Volume, start: int, stop: int) -> Tensor:
        return torch.from_numpy(reader.read(str(volume.target), start, stop))


class ComplexSliceDataset(SliceDataset):
    """The same as unrolled networks take them: `image` is (3, H, W of k-space) as in `ComplexInputs`, `mean` is 0.

    Training also turns the phase of the images: everywhere alike, and in half of them more here than there.

    Args:
        folder: See `SliceDataset`.
        undersample: See `SliceDataset`.
        training: Draw fresh masks, mirror, and turn phases.
        cache_bytes: See `SliceDataset`.
        neighbours: Slices on either side, which follow in `image`; undersampled and changed as the slice is.
        augment: How else fully sampled slices are changed; None for not at all.
    """

    channels: ClassVar[tuple[int, int]] = (INPUT_CHANNELS, OUTPUT_CHANNELS)

    def __init__(
        self,
        folder: Path,
        undersample: UndersampleConfig,
        *,
        training: bool,
        cache_bytes: int = 1 << 30,
        neighbours: int = 0,
        augment: AugmentMriConfig | None = None,
    ) -> None:
        self._neighbours, self._augment = neighbours, augment
        super().__init__(folder, undersample, training=training, cache_bytes=cache_bytes)
        if augment and all(volume.sampled is not None for volume in self._volumes):
            raise BadDataError(f"{folder}: train.augment moves fully sampled images, and none is; set it to null")

    def inputs(self, batch: Batch) -> Batch:
        """See `Slices`."""
        target, sampled = batch["target"], batch["sampled"][:, None]
        slices = list(batch["signal"].unbind(1)) if self._neighbours else [batch["signal"]]
        if "turn" in batch:
            *slices, target = (where(batch["mirrored"], part.flip(-2), part) for part in (*slices, target))
            if self._augment:
                slices, target = move(batch, slices, target, self._augment)
            turn = batch["turn"][:, None, None]
            slices = [part * torch.polar(torch.ones_like(turn), 2 * torch.pi * turn) for part in slices]
            if (uneven := batch["uneven"]).any():
                phase = uneven_phase(batch["phase"][uneven], slices[0].shape[-2:])
                for part in slices:
                    part[uneven] = fftc(ifftc(part[uneven]) * phase)
        hybrid, *beside = (part * sampled for part in slices)
        image, std, _ = complex_inputs(hybrid, sampled, target.shape[-1], batch["maximum"], beside)
        target = target / std[:, None, None]
        return {"image": image, "target": target[:, None], "mean": torch.zeros_like(std), "std": std, **_facts(batch)}

    def _signal(self, number: int, slice_: int) -> tuple[Tensor, Tensor]:
        if not self._neighbours:
            return super()._signal(number, slice_)
        volume = self._volumes[number]
        places = [slice_, *(others[slice_] for others in around(volume.slices, self._neighbours))]
        if self._cache is not None:
            return self._cache[number][0][places], self._cache[number][1][slice_]
        first = min(places)
        signals, targets = self._read(volume, first, max(places) + 1)
        return signals[[place - first for place in places]], targets[slice_ - first]

    def _sampling(self, volume: Volume, read: Batch) -> Batch:
        return {**read, "sampled": torch.from_numpy(self._mask(volume))}  # slices of other widths are of another size

    def _drawn(self, volume: Volume) -> Batch:
        # Columns are mirrored by `move` alone: the middle of an even number of them would move against the target's.
        mirrored, turn, uneven = torch.rand(()) < 0.5, torch.rand(()), torch.rand(()) < 0.5
        phase = torch.randn(6, 6) * (PHASE * torch.rand(())) if uneven else torch.zeros(6, 6)
        moved = draw_move(movable=volume.sampled is None) if self._augment else {}
        return {"mirrored": mirrored, "turn": turn, "uneven": uneven, "phase": phase, **moved}

    def _size(self, volume: Volume) -> tuple[int, ...]:
        return (*volume.size, volume.kspace[1])

    def _holds_hybrid(self, volume: Volume) -> bool:
        return True


def _facts(batch: Batch) -> Batch:
    return {name: batch[name] for name in ("maximum", "item", "volume")}
