"""Multi-coil files read as the single-coil scan that one combined receiver would have measured.

After Tygert and Zbontar (2020), "Simulating single-coil MRI from the responses of multiple coils": one complex weight
per coil, the same for the whole volume, such that the magnitude of the weighted sum comes as close as possible, in the
least-squares sense, to the root-sum-of-squares image. Nothing of parallel imaging is left in the result.

That image is the file's `reconstruction_rss`, else what its own coils give. Of an undersampled file these are only
known without aliasing at low resolution, from the fully sampled centre of k-space, which is enough for a weight per
coil: sensitivities are smooth.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from condswin.errors import BadFileError
from condswin.fourier import ComplexArray, center_crop, ifft2c, magnitude_image
from condswin.mri.extent import center
from condswin.mri.prepared import image_size, read_mask
from condswin.mri.reading import KSPACE, MASK, TARGETS, VolumeReader, target_shape
from condswin.mri.storage import Array

#: What to do with multi-coil files.
Multicoil = Literal["refuse", "combine"]

EMULATED, ROOT_SUM_OF_SQUARES = TARGETS

#: Middle slices that the weights are fitted to, and alternations between phase and weights.
FIT_SLICES, FIT_STEPS = 4, 30


def open_volume(path: Path, multicoil: Multicoil = "refuse") -> VolumeReader:
    """A reader of a single-coil file, or of a multi-coil one combined if that was asked for.

    Raises:
        BadFileError: The file cannot be opened.
    """
    reader = VolumeReader(path)
    try:
        combine = multicoil == "combine" and KSPACE in reader and len(reader.shape(KSPACE)) == 4
        return CombinedReader(reader) if combine else reader
    except BaseException:
        reader.close()
        raise


class CombinedReader(VolumeReader):
    """A multi-coil file that reads like a single-coil one: a weighted sum over coils.

    The target of a fully sampled file is the image of that sum; an undersampled file keeps what target it has.

    Args:
        reader: Of a file with k-space (slices, coils, H, W), `reconstruction_rss` (slices, h, w) or not; this one takes
            it over.

    Raises:
        BadFileError: The file has not these, or they do not fit.
    """

    def __init__(self, reader: VolumeReader) -> None:
        self.path, self._bytes, self._file = reader.path, reader._bytes, reader._file
        self._coils, self._full = reader.shape(KSPACE), MASK not in reader
        if 0 in self._coils:
            raise BadFileError(self.path, f"kspace has shape {self._coils}: there is nothing in it")
        self._known = self._full and ROOT_SUM_OF_SQUARES in reader
        self._size = target_shape(reader, ROOT_SUM_OF_SQUARES)[1:] if self._known else image_size(reader)
        first = max((self._coils[0] - FIT_SLICES) // 2, 0)
        kspace = reader.read(KSPACE, first, first + FIT_SLICES)
        wanted = reader.read(ROOT_SUM_OF_SQUARES, first, first + FIT_SLICES) if self._known else None
        if not self._full:
            kspace = kspace * _centre(reader)
        if not (np.isfinite(kspace).all() and (wanted is None or np.isfinite(wanted).all())):
            raise BadFileError(self.path, "kspace or the target has NaN or infinite values")
        self._weights = fit_weights(kspace, self._size, wanted)

    def __contains__(self, name: str) -> bool:
        if not self._full:
            return super().__contains__(name)
        return name == EMULATED or (name != ROOT_SUM_OF_SQUARES and super().__contains__(name))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a dataset, that of the combined volume for k-space and target."""
        if name == KSPACE:
            return self._coils[0], *self._coils[2:]
        return (self._coils[0], *self._size) if self._emulated(name) else super().shape(name)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Element type of a dataset."""
        return np.dtype(np.float32) if self._emulated(name) else super().dtype(name)

    def assumed(self, name: str) -> tuple[str, ...]:
        """What reading k-space or the target takes for granted."""
        if self._emulated(name):
            return ()
        if name != KSPACE:
            return super().assumed(name)
        said = "coils combined to an emulated single coil (reconstruction.ingest.multicoil: combine)"
        return (*super().assumed(KSPACE), said if self._known else f"{said}, fitted to their own root sum of squares")

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Entries of a dataset along its first axis, combined over coils."""
        if name == KSPACE:
            # (slices, coils, H, W) and (coils,) to (slices, H, W)
            kspace = super().read(KSPACE, start, stop)
            combined: Array = np.einsum("scyx,c->syx", kspace, self._weights, optimize=True)
            return combined
        if self._emulated(name):
            return magnitude_image(self.read(KSPACE, start, stop), self._size)
        return super().read(name, start, stop)

    def _dataset(self, name: str) -> Any:
        # Blocks of the emulated target are as long as those of the k-space it is made from.
        return super()._dataset(KSPACE if self._emulated(name) else name)

    def _emulated(self, name: str) -> bool:
        return self._full and name == EMULATED


def _centre(reader: VolumeReader) -> NDArray[np.bool_]:
    """The fully sampled columns (W,) around frequency zero."""
    sampled = read_mask(reader)
    columns = center(sampled).within(sampled)
    if not columns.any():
        raise BadFileError(
            reader.path, "its mask leaves out frequency zero: without a fully sampled centre no coils can be combined"
        )
    return columns


def fit_weights(
    kspace: ComplexArray, size: tuple[int, int], target: NDArray[Any] | None = None
) -> NDArray[np.complex64]:
    """Weights (coils,) whose sum's magnitude fits root-sum-of-squares images best.

    Alternates between the phase of the sum and the weights for that phase, which is linear least squares; starts from
    the strongest component of the coils.

    Args:
        kspace: (slices, coils, H, W).
        size: Rows and columns of the images.
        target: (slices, *size); what the coils themselves give if None.
    """
    import torch

    images = center_crop(ifft2c(torch.from_numpy(kspace)), size).numpy()
    # A row per pixel, a column per coil.
    pixels = np.moveaxis(images, 1, -1).reshape(-1, kspace.shape[1]).astype(np.complex128)
    wanted = np.linalg.norm(pixels, axis=1) if target is None else target.reshape(-1).astype(np.float64)
    normal = pixels.conj().T @ pixels
    values, vectors = np.linalg.eigh(normal)
    inverse = np.linalg.pinv(normal, rcond=1e-6, hermitian=True)
    weights = vectors[:, -1] * np.sqrt(np.square(wanted).sum() / max(float(values[-1]), 1e-300))
    for _ in range(FIT_STEPS):
        combined = pixels @ weights
        phase = combined / np.maximum(np.abs(combined), 1e-300)
        weights = inverse @ (pixels.conj().T @ (wanted * phase))
    fitted: NDArray[np.complex64] = weights.astype(np.complex64)
    return fitted
