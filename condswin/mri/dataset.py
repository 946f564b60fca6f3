"""Slices of prepared files as network inputs and targets."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from condswin.errors import BadDataError
from condswin.fourier import (
    crop_start,
    fftc,
    hybrid_image,
    hybrid_magnitude,
    ifftc,
    magnitude_image,
    readout_hybrid,
)
from condswin.mri.augment import PHASE, draw_move, move, uneven_phase, where
from condswin.mri.coils import Multicoil, open_volume
from condswin.mri.config import AugmentMriConfig, UndersampleConfig
from condswin.mri.masks import draw_mask, name_seed
from condswin.mri.prepared import image_size, prepared_files, read_extent, read_mask
from condswin.mri.reading import KSPACE, MASK, ZERO_FILLED, VolumeReader, checked_blocks, kspace_shape
from condswin.mri.volumes import Volume, around, read_volumes
from condswin.networks.presets import INPUT_CHANNELS, OUTPUT_CHANNELS
from condswin.tasks.slices import Batch, Slices

#: Network inputs are clamped to this many standard deviations, as in fastMRI.
CLAMP = 6.0

# Standard deviations below this share of the volume's maximum belong to empty slices, which would be blown up by them.
_STD_FLOOR = 1e-4


class Normalised(NamedTuple):
    """Network inputs and what undoes their scaling: `output * std + mean`.

    Attributes:
        image: (..., H, W), zero mean and unit standard deviation per slice, clamped.
        mean: (...), per slice, of the zero-filled magnitude.
        std: (...), per slice.
    """

    image: Tensor
    mean: Tensor
    std: Tensor


def normalise(zero_filled: Tensor, maximum: Tensor | float) -> Normalised:
    """Z-scores zero-filled magnitudes (..., H, W) slice by slice.

    Args:
        zero_filled: Magnitudes in any units; the result does not depend on them.
        maximum: Largest value of the volume, or of each slice's (...), which sets the floor of the deviation of empty
            slices.
    """
    std, mean = torch.std_mean(zero_filled, dim=(-2, -1), correction=0)
    floor = _STD_FLOOR * torch.as_tensor(maximum, dtype=torch.float64, device=std.device)
    std = torch.maximum(std, torch.where(floor > 0, floor, 1.0).to(std.dtype))
    image = ((zero_filled - mean[..., None, None]) / std[..., None, None]).clamp(-CLAMP, CLAMP)
    return Normalised(image, mean, std)


def zero_filled_volume(path: Path, undersample: UndersampleConfig, multicoil: Multicoil = "refuse") -> Tensor:
    """Zero-filled magnitudes (slices, H, W) of a prepared file, float32.

    Read if the file has them; else computed, of the size of the target or, without one, of the header's reconstructed
    matrix. A fully sampled file is masked first, seeded by its name.

    Raises:
        BadFileError: The file is unusable.
    """
    with open_volume(path, multicoil) as reader:
        if ZERO_FILLED in reader:
            return torch.from_numpy(reader.read(ZERO_FILLED))
        sampled, size = _sampled(reader, undersample), image_size(reader)
        blocks = [magnitude_image(block, size, sampled) for _, block in checked_blocks(reader, KSPACE)]
    return torch.from_numpy(np.concatenate(blocks))


class ComplexInputs(NamedTuple):
    """What an unrolled network sees of a volume, and what undoes its scaling: `|output| * std`, cropped to `columns`.

    Attributes:
        image: (slices, 3, rows, W): real and imaginary part of the zero-filled image, uncropped along columns and
            divided by `std`; the mask of sampled columns; and, as `UnrolledNetwork` takes them, neighbours.
        std: (slices,), of the cropped zero-filled magnitude.
        columns: Columns of the target.
    """

    image: Tensor
    std: Tensor
    columns: int


def complex_inputs(
    hybrid: Tensor, sampled: Tensor, columns: int, maximum: Tensor | None, beside: Sequence[Tensor] = ()
) -> ComplexInputs:
    """Inputs of an unrolled network from masked hybrid space.

    Args:
        hybrid: (slices, rows, W) of `readout_hybrid`, zero in columns that were not sampled.
        sampled: (W,) or (slices, 1, W) booleans.
        columns: Columns of the target.
        maximum: (slices,), largest value of each slice's volume; of these zero-filled images if None.
        beside: Neighbours of each slice, as `hybrid`; they are scaled as the slice is.
    """
    image = hybrid_image(hybrid)
    magnitude = image[..., crop_start(image.shape[-1], columns) :][..., :columns].abs()
    std = normalise(magnitude, magnitude.max() if maximum is None else maximum).std
    scaled = image / std[..., None, None]
    mask = sampled.to(torch.float32).expand(scaled.shape)
    others = [hybrid_image(each) / std[..., None, None] for each in beside]
    parts = [part for other in others for part in (other.real, other.imag)]
    return ComplexInputs(torch.stack([scaled.real, scaled.imag, mask, *parts], dim=-3), std, columns)


def complex_volume(
    path: Path, undersample: UndersampleConfig, multicoil: Multicoil = "refuse", neighbours: int = 0
) -> ComplexInputs:
    """Inputs of an unrolled network for all slices of a file; masks and sizes as in `zero_filled_volume`.

    Its mask leaves out columns that the scan did not go over. `neighbours` are the network's.

    Raises:
        BadFileError: The file is unusable.
    """
    with open_volume(path, multicoil) as reader:
        sampled, (rows, columns) = _sampled(reader, undersample), image_size(reader)
        sampled = read_extent(reader, sampled if MASK in reader else None).within(sampled)
        hybrid = np.concatenate([readout_hybrid(block, rows) for _, block in checked_blocks(reader, KSPACE)])
    masked = torch.from_numpy(hybrid * sampled)
    beside = [masked[places] for places in around(len(masked), neighbours)]
    return complex_inputs(masked, torch.from_numpy(sampled), columns, None, beside)


def _sampled(reader: VolumeReader, undersample: UndersampleConfig) -> NDArray[np.bool_]:
    if MASK in reader:
        return read_mask(reader)
    return draw_mask(undersample, kspace_shape(reader)[-1], name_seed(reader.path.name)).sampled


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
        return f"{self._volumes[number].path}, slice {slice_}"

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
        seed = (int(torch.randint(2**32, (), dtype=torch.int64)), 0) if self._training else name_seed(volume.path.name)
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
            target = torch.from_numpy(reader.read(volume.target, start, stop))
            if self._holds_hybrid(volume):
                return torch.from_numpy(readout_hybrid(reader.read(KSPACE, start, stop), volume.size[0])), target
            return torch.from_numpy(reader.read(ZERO_FILLED, start, stop)), target


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


def magnitude(output: Tensor, columns: int) -> Tensor:
    """Magnitudes (B, 1, H, columns), float32, of a network's output: itself, or of complex images (B, 2, H, W)."""
    output = output.float()
    if output.shape[1] == 1:
        return output
    magnitude: Tensor = torch.linalg.vector_norm(output, dim=1, keepdim=True)
    return magnitude.narrow(-1, crop_start(magnitude.shape[-1], columns), columns)
