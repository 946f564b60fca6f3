"""Slices of prepared files as network inputs and targets."""

from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from condswin.errors import BadDataError
from condswin.fourier import (
    ComplexArray,
    crop_start,
    fftc,
    hybrid_magnitude,
    ifftc,
    magnitude_image,
    readout_hybrid,
)
from condswin.mri.coils import Multicoil, open_volume
from condswin.mri.config import UndersampleConfig
from condswin.mri.masks import draw_mask, name_seed
from condswin.mri.prepared import image_size, prepared_files, read_extent, read_mask
from condswin.mri.reading import KSPACE, MASK, ZERO_FILLED, VolumeReader, checked_blocks, kspace_shape
from condswin.mri.volumes import Volume, read_volumes
from condswin.networks.unrolled import INPUT_CHANNELS, OUTPUT_CHANNELS
from condswin.tasks.slices import Batch, Slices

#: Network inputs are clamped to this many standard deviations, as in fastMRI.
CLAMP = 6.0

#: Largest standard deviation of the uneven phase that training adds, radians.
PHASE = 3.0

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
        maximum: Largest value of the volume, which sets the floor of the deviation of empty slices.
    """
    std, mean = torch.std_mean(zero_filled, dim=(-2, -1), correction=0)
    std = std.clamp_min(_STD_FLOOR * float(maximum) or 1.0)
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
            divided by `std`; and the mask of sampled columns.
        std: (slices,), of the cropped zero-filled magnitude.
        columns: Columns of the target.
    """

    image: Tensor
    std: Tensor
    columns: int


def complex_inputs(hybrid: ComplexArray, sampled: np.ndarray, columns: int, maximum: float | None) -> ComplexInputs:
    """Inputs of an unrolled network from masked hybrid space.

    Args:
        hybrid: (..., rows, W) of `readout_hybrid`, zero in columns that were not sampled.
        sampled: (W,) booleans.
        columns: Columns of the target.
        maximum: Largest value of the volume; of these zero-filled images if None.
    """
    image = torch.from_numpy(ifftc(hybrid))
    magnitude = image[..., crop_start(image.shape[-1], columns) :][..., :columns].abs()
    largest = float(magnitude.max()) if maximum is None else maximum
    std = normalise(magnitude, largest).std
    scaled = image / std[..., None, None]
    mask = torch.from_numpy(sampled).to(torch.float32).expand(scaled.shape)
    return ComplexInputs(torch.stack([scaled.real, scaled.imag, mask], dim=-3), std, columns)


def complex_volume(path: Path, undersample: UndersampleConfig, multicoil: Multicoil = "refuse") -> ComplexInputs:
    """Inputs of an unrolled network for all slices of a file; masks and sizes as in `zero_filled_volume`.

    Its mask leaves out columns that the scan did not go over.

    Raises:
        BadFileError: The file is unusable.
    """
    with open_volume(path, multicoil) as reader:
        sampled, (rows, columns) = _sampled(reader, undersample), image_size(reader)
        sampled = read_extent(reader, sampled if MASK in reader else None).within(sampled)
        hybrid = np.concatenate([readout_hybrid(block, rows) for _, block in checked_blocks(reader, KSPACE)])
    return complex_inputs(hybrid * sampled, sampled, columns, None)


def _sampled(reader: VolumeReader, undersample: UndersampleConfig) -> NDArray[np.bool_]:
    if MASK in reader:
        return read_mask(reader)
    return draw_mask(undersample, kspace_shape(reader)[-1], name_seed(reader.path.name)).sampled


class SliceDataset(Slices):
    """Slices of the prepared files of one split, as networks on magnitude images take them.

    An item has `image` (1, H, W), the normalised zero-filled magnitude; `target` (1, H, W), scaled by the image's mean
    and standard deviation; these two as `mean` and `std`; `maximum`, the largest value of the target volume;
    and `item`, the slice's number.

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
        self._index = [(number, at) for number, volume in enumerate(self._volumes) for at in range(volume.slices)]
        self._cache: list[tuple[Tensor, Tensor]] | None = None
        if sum(map(self._bytes, self._volumes)) <= cache_bytes:
            self._cache = [self._read(volume, 0, volume.slices) for volume in self._volumes]

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """See `Slices`."""
        return [self._size(self._volumes[number]) for number, _ in self._index]

    def __getitem__(self, index: int) -> Batch:
        number, slice_ = self._index[index]
        volume = self._volumes[number]
        if self._cache is None:
            signals, targets = self._read(volume, slice_, slice_ + 1)
            signal, target = signals[0], targets[0]
        else:
            signal, target = self._cache[number][0][slice_], self._cache[number][1][slice_]
        maximum = torch.tensor(volume.maximum, dtype=torch.float32)
        return {**self._item(volume, signal, target), "maximum": maximum, "item": torch.tensor(index)}

    def telling(self, count: int) -> list[int]:
        """The middle slices of the first volumes."""
        middle = [item for item, (number, at) in enumerate(self._index) if at == self._volumes[number].slices // 2]
        return middle[:count]

    def name(self, item: int) -> str:
        """See `Slices`."""
        number, slice_ = self._index[item]
        return f"{self._volumes[number].path}, slice {slice_}"

    def _item(self, volume: Volume, signal: Tensor, target: Tensor) -> Batch:
        zero_filled = signal
        if volume.sampled is None:
            zero_filled = torch.from_numpy(
                hybrid_magnitude(signal.numpy() * self._mask(volume, signal), volume.size[1])
            )
        if self._training:
            # A mirrored scan is a scan; few volumes go further with it.
            mirrored = [axis for axis in (-2, -1) if torch.rand(()) < 0.5]
            zero_filled, target = zero_filled.flip(mirrored), target.flip(mirrored)
        image, mean, std = normalise(zero_filled, volume.maximum)
        return {"image": image[None], "target": ((target - mean) / std)[None], "mean": mean, "std": std}

    def _mask(self, volume: Volume, hybrid: Tensor) -> NDArray[np.bool_]:
        if volume.sampled is not None:
            return volume.sampled
        # A pair, so that no name's seed is among them.
        seed = (int(torch.randint(2**32, (), dtype=torch.int64)), 0) if self._training else name_seed(volume.path.name)
        return volume.extent.within(draw_mask(self._undersample, hybrid.shape[-1], seed).sampled)

    def _bytes(self, volume: Volume) -> int:
        """What holding a volume in memory takes."""
        rows, columns = volume.size
        held = 8 * volume.kspace[1] if self._holds_hybrid(volume) else 4 * columns
        return volume.slices * rows * (held + 4 * columns)

    def _size(self, volume: Volume) -> tuple[int, ...]:
        return volume.size

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
    """

    channels: ClassVar[tuple[int, int]] = (INPUT_CHANNELS, OUTPUT_CHANNELS)

    def _item(self, volume: Volume, hybrid: Tensor, target: Tensor) -> Batch:
        sampled = self._mask(volume, hybrid)
        if self._training:
            # Columns are not mirrored: the middle of an even number of them would move against the target's.
            if torch.rand(()) < 0.5:
                hybrid, target = hybrid.flip(-2), target.flip(-2)
            hybrid = hybrid * torch.polar(torch.ones(()), 2 * torch.pi * torch.rand(()))
            if torch.rand(()) < 0.5:
                hybrid = fftc(ifftc(hybrid) * _uneven_phase(hybrid.shape))
        image, std, _ = complex_inputs(hybrid.numpy() * sampled, sampled, volume.size[1], volume.maximum)
        return {"image": image, "target": (target / std)[None], "mean": torch.zeros(()), "std": std}

    def _size(self, volume: Volume) -> tuple[int, ...]:
        return (*volume.size, volume.kspace[1])

    def _holds_hybrid(self, volume: Volume) -> bool:
        return True


def _uneven_phase(shape: torch.Size) -> Tensor:
    """Complex numbers (H, W) of magnitude 1 and a random phase: a few waves over the image, up to `PHASE` radians.

    Scanners and sequences differ in their phase; a network that has seen one kind only takes others for aliases.
    """
    coarse = torch.randn(1, 1, 6, 6) * (PHASE * torch.rand(()))
    phase = interpolate(coarse, size=tuple(shape), mode="bicubic", align_corners=True)[0, 0]
    return torch.polar(torch.ones_like(phase), phase)


def magnitude(output: Tensor, columns: int) -> Tensor:
    """Magnitudes (B, 1, H, columns), float32, of a network's output: itself, or of complex images (B, 2, H, W)."""
    output = output.float()
    if output.shape[1] == 1:
        return output
    magnitude: Tensor = torch.linalg.vector_norm(output, dim=1, keepdim=True)
    return magnitude.narrow(-1, crop_start(magnitude.shape[-1], columns), columns)
