"""Images on disk (`.npy`, height x width, values from 0 to 1) and how far one is from another."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from condswin.errors import BadFileError
from condswin.files import atomic_file

Image = NDArray[np.float32]


def read_image(path: Path) -> Image:
    """Reads an image.

    Raises:
        BadFileError: It is none.
    """
    try:
        image: NDArray[np.generic] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadFileError(path, f"no .npy file: {error}") from None
    if image.ndim != 2 or image.dtype != np.float32 or not np.isfinite(image).all():
        raise BadFileError(path, f"{image.dtype} {image.shape}: an image has two axes of finite float32 values")
    return image.astype(np.float32, copy=False)


def write_image(path: Path, image: Image) -> None:
    """Writes an image atomically."""
    with atomic_file(path) as temporary:
        np.save(temporary, image, allow_pickle=False)


def psnr(truth: Image, image: Image) -> float:
    """Peak signal to noise ratio, dB, of values from 0 to 1."""
    return -10 * math.log10(max(float(np.mean(np.square(truth - image, dtype=np.float64))), 1e-12))
