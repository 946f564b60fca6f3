"""Reconstructions of files as they came from the scanner."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
import nibabel as nib
import numpy as np
from torch import nn

from condswin import kinds
from condswin.errors import BadFileError
from condswin.files import atomic_file
from condswin.mri.config import ReconstructionConfig
from condswin.mri.guard import refusals
from condswin.mri.judging import ReconstructionJudging
from condswin.mri.masks import draw_mask, name_seed
from condswin.mri.metrics import volume_metrics
from condswin.mri.prediction import ReconstructionPrediction
from condswin.mri.prepared import read_extent, read_sampling
from condswin.mri.reading import (
    ADAPTED,
    ERRORS,
    KSPACE,
    MASK,
    METHOD,
    NETWORK,
    PREDICTION,
    SUFFIXES,
    VolumeReader,
    read_header,
)
from condswin.pngs import grey, write_png
from condswin.tasks.serving import Origin, Predicted, Serving

#: Attributes of a reconstruction: size of its voxels along slices, rows and columns, mm.
VOXEL = "voxel_mm"


class ReconstructionServing(Serving):
    """Takes fully sampled and undersampled files."""

    subject: ClassVar[str] = "MRI"
    takes: ClassVar[str] = f"k-space as HDF5 ({', '.join(SUFFIXES)})"
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    kind: ClassVar[str] = kinds.HDF5
    forms: ClassVar[Mapping[str, str]] = {"png": ".png", "nifti": ".nii.gz"}

    def output_names(self, source: Path) -> list[str]:
        """As fastMRI: the name of the k-space file."""
        return ReconstructionJudging(self.config).prediction_names(source.stem)

    def predict_raw(self, model: nn.Module, source: Path, folder: Path, origin: Origin) -> Predicted:
        """Reconstructs a fastMRI file; one that is fully sampled is undersampled first.

        Attributes of the result say which network made it and from which columns of k-space: `model`,
        `weights_sha256`, `software`, `units`, `mask`, `sampled_columns` (W,), `acceleration` and `true_acceleration`,
        and `voxel_mm` where the header of the source says so; where the network was judged by withheld lines also
        `method`, who made the reconstruction, and `held_out_errors`; where it was adapted to the scan, `adapted`.
        """
        out = folder / self.output_names(source)[0]
        facts, notes = self._facts(source)
        with atomic_file(out) as temporary:
            ReconstructionPrediction(self.config).predict(model, source, temporary)
            with h5py.File(temporary, "r+") as file:
                notes += [*_set_aside(file), *_adapted(file)]
                file.attrs.update({**origin.attributes, **facts})
        return Predicted(out, notes)

    def refusals(self, source: Path, seen: Mapping[str, Any]) -> list[str]:
        """A mask unlike those trained with; see `guard.refusals`."""
        section = self.config.section(ReconstructionConfig)
        return refusals(source, section.undersample, section.ingest.multicoil)

    def passed_over(self, source: Path) -> str:
        """Reconstructions lie beside k-space under the same endings."""
        try:
            with VolumeReader(source) as reader:
                return "reconstructions without k-space" if PREDICTION in reader and KSPACE not in reader else ""
        except BadFileError:  # which predicting it reports
            return ""

    def write_form(self, form: str, source: Path, prediction: Path, out: Path) -> list[str]:
        """The middle slice as PNG, or the volume as NIfTI."""
        with VolumeReader(prediction) as reader:
            images = reader.read(PREDICTION)
        voxel = _voxel(source)
        if form == "png":
            white = float(np.quantile(images, 0.998)) or float(images.max())
            write_png(grey(images[len(images) // 2], 0, white), out, voxel[1:] if voxel else (1.0, 1.0))
            return []
        # Columns run to the right, rows downwards, as pictures are looked at.
        image = nib.Nifti1Image(np.ascontiguousarray(images.transpose(2, 1, 0)[:, ::-1]), None)
        image.header.set_zooms(voxel[::-1] if voxel else (1.0, 1.0, 1.0))
        image.header.set_xyzt_units("mm")
        with atomic_file(out) as temporary:
            nib.save(image, temporary)
        size = "voxel size from the header" if voxel else "the header names no size of voxels: 1 mm assumed"
        return [f"NIfTI: {size}; neither position nor orientation is known, so it has neither sform nor qform"]

    def disagreement(self, first: Path, second: Path) -> dict[str, float]:
        """PSNR (dB), SSIM and NMSE of the second reconstruction, as if the first were the target."""
        with VolumeReader(first) as one, VolumeReader(second) as other:
            found = volume_metrics(one.read(PREDICTION), other.read(PREDICTION))
        return {name: found[name] for name in ("psnr", "ssim", "nmse")}

    def _facts(self, source: Path) -> tuple[dict[str, Any], list[str]]:
        """Attributes of a reconstruction that its source decides, and notes."""
        undersample = self.config.section(ReconstructionConfig).undersample
        facts: dict[str, Any] = {"units": "arbitrary, those of the input's k-space"}
        notes = []
        with VolumeReader(source) as reader:
            if MASK in reader:
                sampled, extent = read_sampling(reader)
                facts["mask"] = "of the input"
                nominal, true = reader.attribute("acceleration"), extent.width / int(sampled.sum())
            else:
                width = reader.shape(KSPACE)[-1]
                drawn = draw_mask(undersample, width, name_seed(source.name)).within(read_extent(reader, None))
                sampled, nominal, true = drawn.sampled, drawn.acceleration, drawn.true_acceleration
                facts["mask"] = (
                    f"{undersample.mask}, centre fraction {drawn.center_fraction:g}, drawn by the file's name"
                )
                notes.append(f"fully sampled: undersampled {true:.2f}x first, as in training")
        if isinstance(nominal, int | float):
            facts["acceleration"] = float(nominal)
        facts |= {"true_acceleration": true, "sampled_columns": sampled}
        if voxel := _voxel(source):
            facts[VOXEL] = np.array(voxel)
        return facts, notes


def _set_aside(reconstruction: h5py.File) -> list[str]:
    """A note if another method than the network made a reconstruction."""
    method = reconstruction.attrs.get(METHOD, NETWORK)
    if method == NETWORK:
        return []
    errors = json.loads(reconstruction.attrs[ERRORS])
    slices = len(reconstruction[PREDICTION])
    return [
        f"all {slices} slices by {method}, not by the network: it foretells withheld lines of k-space better "
        f"(relative error {errors[method]:.2f} against {errors[NETWORK]:.2f})"
    ]


def _adapted(reconstruction: h5py.File) -> list[str]:
    """A note if the network was trained further on the scan."""
    if ADAPTED not in reconstruction.attrs:
        return []
    told = json.loads(reconstruction.attrs[ADAPTED])
    if not told["steps"]:
        return ["not adapted to this scan: no step foretells withheld lines of k-space better"]
    return [
        f"adapted to this scan in {told['steps']} steps: relative error of withheld lines of k-space "
        f"{told['before']:.3f} before, {told['after']:.3f} after"
    ]


def _voxel(source: Path) -> tuple[float, float, float] | None:
    """Size of a reconstruction's voxels along slices, rows and columns in mm, None if the file does not say."""
    with VolumeReader(source) as reader:
        voxel = read_header(reader).voxel
    return (voxel[2], voxel[0], voxel[1]) if voxel else None


PART = ReconstructionServing
