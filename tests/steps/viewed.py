"""Files to look at: a scan with its reconstructions, a CT volume with its segmentations."""

from pathlib import Path

import h5py
import numpy as np

from condswin.fourier import fft2c
from tests.ct import fakes


def write_scan(path: Path, *, slices: int = 3, coils: int = 0, mask: bool = True) -> np.ndarray:
    """An undersampled file in fastMRI's layout; returns its target, larger to the right and brighter slice by slice."""
    random = np.random.default_rng(slices)
    target = (np.linspace(0.2, 1, 24) * random.uniform(0.8, 1, (slices, 32, 24))).astype(np.float32)
    target *= np.arange(1, slices + 1, dtype=np.float32)[:, None, None]
    kspace = fft2c(target.astype(np.complex64))
    if coils:
        kspace = np.stack([kspace / np.sqrt(coils)] * coils, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        if mask:
            sampled = np.zeros(24, bool)
            sampled[8:16] = sampled[::3] = True
            file["mask"] = sampled
            kspace = kspace * sampled
        file["kspace"], file["reconstruction_esc"] = kspace.astype(np.complex64), target
    return target


def write_reconstruction(path: Path, images: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["reconstruction"] = images.astype(np.float32)


def write_ct(folder: Path, name: str = "0") -> None:
    """`volume-N` and `segmentation-N`, and a prediction below `mine/`, half of the liver."""
    image, labels = fakes.anatomy((40, 36, 6), 1)
    (folder / "mine").mkdir(parents=True, exist_ok=True)
    fakes.write(folder / f"volume-{name}.nii.gz", image)
    fakes.write(folder / f"segmentation-{name}.nii.gz", labels)
    fakes.write(folder / "mine" / f"segmentation-{name}.nii.gz", np.where(np.arange(40)[:, None, None] < 20, labels, 0))
