"""From a CT volume and its segmentation to a prepared file."""

from pathlib import Path

import h5py
import numpy as np

from condswin.ct.cases import target_stem
from condswin.ct.config import CtIngestConfig, PrepareCtConfig
from condswin.ct.nifti import LABELS, SUFFIXES, Volume, write_labels
from condswin.ct.pairs import read_pair
from condswin.ct.resampling import hounsfield_range, resample_image, resample_labels, resampled_size
from condswin.files import atomic_file, copy_with_sha256
from condswin.hdf5 import create_slices

# Slices resampled at a time: bounds the memory for one-hot labels.
_BATCH = 16


def prepare_case(
    name: str,
    image: Path,
    segmentation: Path,
    folder: Path,
    config: PrepareCtConfig,
    rules: CtIngestConfig = CtIngestConfig(),  # noqa: B008 (frozen)
) -> None:
    """Writes a case's network inputs, and its segmentation as target beside them.

    `<name>.h5` holds `image` (slices, rows, columns), HU as float16, clipped to what the windows keep; `label`, uint8,
    the same shape; `liver_slices` and `tumour_slices`, the indices of the slices that show them; and, as attributes,
    the geometry of the source file. `segmentation-N.nii[.gz]` is a byte copy of the source, so that the folder serves
    any evaluation as reference; where the source's own axes or position are not the image's, it is written anew on the
    grid of the image, on which predictions lie.

    Args:
        name: The case.
        image: CT in HU, the file of the role `volume`.
        segmentation: Its labels.
        folder: Where to write.
        config: Windows and resampling.
        rules: How files are read.

    Raises:
        BadFileError: A file is unusable, or the two do not belong together.
    """
    volume, labels = read_pair(image, segmentation, rules)
    write_inputs(volume, labels, folder / f"{name}.h5", config)
    target = folder / prepared_names(name, segmentation)[1]
    if labels.as_stored:
        copy_with_sha256(segmentation, target)
    else:
        write_labels(target, labels.data, labels.geometry)


def prepared_names(name: str, segmentation: Path) -> list[str]:
    """Names of the files that `prepare_case` writes: inputs and target."""
    suffix = next(suffix for suffix in SUFFIXES if segmentation.name.lower().endswith(suffix))
    return [f"{name}.h5", f"{target_stem(name)}{suffix}"]


def write_inputs(image: Volume, labels: Volume | None, out: Path, config: PrepareCtConfig) -> None:
    """Writes the HDF5 part of `prepare_case`; without labels only what a network needs to predict.

    Args:
        image: CT in HU.
        labels: Of the same geometry, if there are any.
        out: File to write, atomically.
        config: Windows and resampling.
    """
    geometry = image.geometry
    slices, *scanned = geometry.canonical_shape
    size = resampled_size(geometry, config.spacing)
    shape = (slices, *size)
    with atomic_file(out) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(geometry.attributes())
        file.attrs["pixel_spacing"] = np.array(geometry.spacing[1:]) * scanned / size  # mm
        # float16 resolves 0.1 HU of soft tissue and halves what training reads. Noise does not compress, labels do.
        images = create_slices(file, "image", shape, np.float16)
        kept = hounsfield_range(config.windows)
        for start in range(0, slices, _BATCH):
            part = slice(start, start + _BATCH)
            images[part] = resample_image(image.canonical[part].clip(*kept), size)
        if labels is not None:
            _write_labels(file, labels, size)


def _write_labels(file: h5py.File, labels: Volume, size: tuple[int, int]) -> None:
    slices = len(labels.canonical)
    shows = np.zeros((len(LABELS), slices), dtype=bool)
    targets = create_slices(file, "label", (slices, *size), np.uint8, compression="gzip", compression_opts=1)
    for start in range(0, slices, _BATCH):
        part = slice(start, start + _BATCH)
        targets[part] = label = resample_labels(labels.canonical[part], size)
        for value in LABELS:
            shows[value, part] = (label == value).any(axis=(1, 2))
    file["liver_slices"] = np.flatnonzero(shows[1] | shows[2]).astype(np.int32)
    file["tumour_slices"] = np.flatnonzero(shows[2]).astype(np.int32)
