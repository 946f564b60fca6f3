"""Data that differs from the demo's in one thing, for `tests.drift_alarms`.

`python -m tests.drift_shifts TASK OUT REAL` writes a data card for each kind, `OUT/KIND/card.json`: of new demo
volumes as they are and changed, and of those of the folder REAL. Volumes pass ingestion as any others.
"""

import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
from scipy import ndimage

from condswin.config.names import TaskName
from condswin.config.profiles import compose
from condswin.config.root import Config
from condswin.fourier import magnitude_image
from condswin.steps.data_card import data_card
from condswin.steps.demo_data import demo_data
from condswin.steps.ingest import ingest

SEED, VOLUMES = 77, 16

Ct = tuple[Any, Any, Any]


def _spaced(hu: Any, labels: Any, affine: Any) -> Ct:
    return hu, labels, affine @ np.diag([1.5, 1.5, 1.5, 1])


def _cut(hu: Any, labels: Any, affine: Any) -> Ct:
    margins = tuple(slice(size // 5, size - size // 5) for size in hu.shape[:2])
    return hu[margins], labels[margins], affine


#: HU, labels and affine of a volume to those of a changed one.
CT: dict[str, Callable[[Any, Any, Any], Ct]] = {
    "as they are": lambda hu, labels, affine: (hu, labels, affine),
    "voxels 1.5 times as large": _spaced,
    "every other slice": lambda hu, labels, affine: (hu[..., ::2], labels[..., ::2], affine @ np.diag([1, 1, 2, 1])),
    "60 HU more": lambda hu, labels, affine: (hu + 60, labels, affine),
    "clipped to -160 to 240 HU": lambda hu, labels, affine: (hu.clip(-160, 240), labels, affine),
    "noise of 20 HU more": lambda hu, labels, affine: (
        hu + np.random.default_rng(hu.size).normal(0, 20, hu.shape),
        labels,
        affine,
    ),
    "field of view cut to 60 percent": _cut,
    "no tumour labelled": lambda hu, labels, affine: (hu, labels.clip(0, 1), affine),
    "labels two voxels smaller": lambda hu, labels, affine: (
        hu,
        np.where(ndimage.binary_erosion(labels > 0, iterations=2), labels, 0),
        affine,
    ),
}


def _noisy(kspace: Any) -> Any:
    generator = np.random.default_rng(kspace.size)
    sigma = 0.15 * np.sqrt(np.mean(np.abs(kspace) ** 2))
    return kspace + sigma * (generator.normal(size=kspace.shape) + 1j * generator.normal(size=kspace.shape))


def _blurred(kspace: Any) -> Any:
    rows, columns = (np.linspace(-1, 1, size) for size in kspace.shape[1:])
    return kspace * np.exp(-8 * (rows[:, None] ** 2 + columns[None] ** 2))


#: K-space of a volume to that of a changed one.
MRI: dict[str, Callable[[Any], Any]] = {
    "as they are": lambda kspace: kspace,
    "units of a thousandth": lambda kspace: kspace * 1e-3,
    "noisy k-space": _noisy,
    "low resolution": _blurred,
    "another acquisition": lambda kspace: kspace,
}


def change_ct(raw: Path, out: Path, kind: str) -> None:
    """Writes changed copies of all volumes of a folder."""
    out.mkdir()
    for path in sorted(raw.rglob("volume-*")):
        label_path = path.with_name(path.name.replace("volume", "segmentation"))
        image, segmentation = nib.load(path), nib.load(label_path)
        hu, labels = np.asarray(image.dataobj, np.float32), np.asarray(segmentation.dataobj)
        hu, labels, affine = CT[kind](hu, labels, image.affine)
        nib.save(nib.Nifti1Image(np.rint(hu).astype(np.int16), affine), out / path.name)
        nib.save(nib.Nifti1Image(labels.astype(np.uint8), affine), out / label_path.name)


def change_mri(raw: Path, out: Path, kind: str) -> None:
    """The same of k-space, with the targets that belong to it."""
    out.mkdir()
    for path in sorted(raw.rglob("*.h5")):
        with h5py.File(path) as file, h5py.File(out / path.name, "w") as changed:
            kspace = MRI[kind](file["kspace"][()]).astype(np.complex64)
            size = file["reconstruction_esc"].shape[1:]
            target = magnitude_image(kspace, size).astype(np.float32)
            changed["kspace"], changed["reconstruction_esc"] = kspace, target
            changed["ismrmrd_header"] = file["ismrmrd_header"][()]
            changed.attrs.update(file.attrs)
            changed.attrs["max"], changed.attrs["norm"] = target.max(), math.sqrt(float((target**2).sum()))
            if kind == "another acquisition":
                changed.attrs["acquisition"] = "AXT2"


def describe(config: Config, task: TaskName, source: Path, folder: Path, out: Path) -> None:
    """Ingests a folder and writes its card."""
    ingest(config, task, source=str(source), out=folder)
    data_card(config, task, ingested=folder, out=out)


def main(task: TaskName, out: str, real: str) -> None:
    one_patient = [f"{task}.ingest.split_by=file", f"{task}.ingest.folders={{}}"]
    count = [f"segmentation.demo.cases={VOLUMES}", f"reconstruction.demo.train_volumes={VOLUMES - 1}"]
    config = compose(["demo"], [f"seed={SEED}", *count, "reconstruction.demo.test_volumes=1", *one_patient])
    kinds, change = (CT, change_ct) if task == "segmentation" else (MRI, change_mri)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        section = config.task(task).model_copy(update={"source": str(folder / "raw")})
        demo_data(config.model_copy(update={task: section}), task, out=folder / "raw")
        for number, kind in enumerate(kinds):
            change(folder / "raw", folder / f"changed-{number}", kind)
            describe(config, task, folder / f"changed-{number}", folder / f"ingested-{number}", Path(out, kind))
        describe(config, task, Path(real), folder / "ingested-real", Path(out, "real scans"))


if __name__ == "__main__":
    main(*sys.argv[1:])
