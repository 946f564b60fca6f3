"""Multi-coil files read as the single-coil scan that one combined receiver would have measured.

After Tygert and Zbontar (2020), "Simulating single-coil MRI from the responses of multiple coils": one complex weight
per coil, the same for the whole volume, such that the magnitude of the weighted sum comes as close as possible, in the
least-squares sense, to the root-sum-of-squares image. Nothing of parallel imaging is left in the result.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from condswin.errors import BadFileError
from condswin.fourier import ComplexArray, center_crop, ifft2c, magnitude_image
from condswin.mri.reading import KSPACE, TARGETS, Array, VolumeReader

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
    """A multi-coil file that reads like a single-coil one: a weighted sum over coils, and the image of that as target.

    Args:
        reader: Of a file with k-space (slices, coils, H, W) and `reconstruction_rss` (slices, h, w); this one takes it
            over.

    Raises:
        BadFileError: The file has not these, or they do not fit.
    """

    def __init__(self, reader: VolumeReader) -> None:
        self.path, self._bytes, self._file = reader.path, reader._bytes, reader._file
        self._coils = super().shape(KSPACE)
        self._images = super().shape(ROOT_SUM_OF_SQUARES)
        if super().dtype(KSPACE).newbyteorder("=") != np.dtype(np.complex64):
            raise BadFileError(self.path, f"kspace holds {super().dtype(KSPACE).name}, only complex64 is accepted")
        if len(self._images) != 3 or self._images[0] != self._coils[0] or 0 in (*self._coils, *self._images):
            raise BadFileError(self.path, f"{ROOT_SUM_OF_SQUARES} {self._images} is no image of kspace {self._coils}")
        if any(image > full for image, full in zip(self._images[1:], self._coils[2:], strict=True)):
            raise BadFileError(self.path, f"{ROOT_SUM_OF_SQUARES} {self._images} is larger than kspace {self._coils}")
        first = max((self._coils[0] - FIT_SLICES) // 2, 0)
        kspace = super().read(KSPACE, first, first + FIT_SLICES)
        target = super().read(ROOT_SUM_OF_SQUARES, first, first + FIT_SLICES)
        if not (np.isfinite(kspace).all() and np.isfinite(target).all()):
            raise BadFileError(self.path, "kspace or the target has NaN or infinite values")
        self._weights = fit_weights(kspace, target)

    def __contains__(self, name: str) -> bool:
        return name == EMULATED or (name != ROOT_SUM_OF_SQUARES and super().__contains__(name))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a dataset, that of the combined volume for k-space and target."""
        if name == KSPACE:
            return self._coils[0], *self._coils[2:]
        return self._images if name == EMULATED else super().shape(name)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Element type of a dataset."""
        return np.dtype(np.float32) if name == EMULATED else super().dtype(name)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Entries of a dataset along its first axis, combined over coils."""
        if name == KSPACE:
            # (slices, coils, H, W) and (coils,) to (slices, H, W)
            kspace = super().read(KSPACE, start, stop)
            combined: Array = np.einsum("scyx,c->syx", kspace, self._weights, optimize=True)
            return combined
        if name == EMULATED:
            return magnitude_image(self.read(KSPACE, start, stop), (self._images[1], self._images[2]))
        return super().read(name, start, stop)

    def _dataset(self, name: str) -> Any:
        # Blocks of the emulated target are as long as those of the k-space it is made from.
        return super()._dataset(KSPACE if name == EMULATED else name)


def fit_weights(kspace: ComplexArray, target: NDArray[Any]) -> NDArray[np.complex64]:
    """Weights (coils,) whose sum's magnitude fits root-sum-of-squares images (slices, h, w) best.

    Alternates between the phase of the sum and the weights for that phase, which is linear least squares; starts from
    the strongest component of the coils.

    Args:
        kspace: (slices, coils, H, W).
        target: (slices, h, w).
    """
    import torch

    images = center_crop(ifft2c(torch.from_numpy(kspace)), (target.shape[1], target.shape[2])).numpy()
    # A row per pixel, a column per coil.
    pixels = np.moveaxis(images, 1, -1).reshape(-1, kspace.shape[1]).astype(np.complex128)
    wanted = target.reshape(-1).astype(np.float64)
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
