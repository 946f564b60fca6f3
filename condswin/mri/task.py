"""Reconstruction as a task that every step of the pipeline can run."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
import matplotlib.figure
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from condswin.config import Split, TaskName
from condswin.errors import BadDataError, BadFileError
from condswin.files import atomic_file
from condswin.mri import demo
from condswin.mri.coils import open_volume
from condswin.mri.dataset import SliceDataset, complex_volume, normalise, prepared_files, zero_filled_volume
from condswin.mri.fourier import crop_start
from condswin.mri.guard import refusals
from condswin.mri.metrics import slice_psnr
from condswin.mri.reading import SUFFIXES, VolumeReader, acquisition, check_kspace, check_volume
from condswin.mri.scoring import PREDICTION, picture_case, score_case
from condswin.mri.undersample import prepare_full, prepare_undersampled
from condswin.tasks import Advance, Batch, Case, CaseInfo, Row, Task

#: Slices that pass the network at once when predicting.
PREDICT_BATCH = 8


class ReconstructionTask(Task):
    """Magnitude images from undersampled single-coil k-space, by fastMRI's protocol."""

    name: ClassVar[TaskName] = "reconstruction"
    metrics: ClassVar[dict[str, bool]] = {"psnr": True, "ssim": True, "nmse": False, "mae": False}
    baselines: ClassVar[dict[str, str]] = {"zero-filled": "zero_filled_"}
    monitor: ClassVar[tuple[str, bool]] = ("slice_psnr", True)

    # raw -> ingested

    def make_demo(self, folder: Path, advance: Advance) -> None:
        """Writes generated volumes as `singlecoil_train/*.h5` and `singlecoil_val/*.h5`."""
        demo.write_demo(folder, self.config.reconstruction.demo, self.config.seed, advance)

    def demo_count(self) -> int:
        """One call per volume."""
        settings = self.config.reconstruction.demo
        return settings.train_volumes + settings.test_volumes

    def find_cases(self, source: Path) -> list[Case]:
        """Every `.h5` and `.hdf5` file below `source` that is not hidden and that `ingest` wants, named by its stem.

        Only a filter by acquisition opens the files.
        """
        cases: dict[str, Case] = {}
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source).parts
            if path.suffix not in SUFFIXES or any(part.startswith(".") for part in inside) or path.is_dir():
                continue
            if (other := cases.get(path.stem)) is not None:
                raise BadDataError(f"{path} and {other.files['kspace']}: two files of one name, rename one of them")
            folder = inside[0] if len(inside) > 1 else ""
            cases[path.stem] = Case(path.stem, folder, {"kspace": path.absolute()})
        if not cases:
            raise BadDataError(f"{source}: no {' or '.join(SUFFIXES)} file in this folder or below")
        policy = self.config.reconstruction.ingest
        chosen = [cases[name] for name in sorted(cases) if _drawn(name, self.config.seed, policy.volume_fraction)]
        if policy.acquisitions:
            chosen = [case for case in chosen if _acquisition(case) in (*policy.acquisitions, None)]
        if not chosen:
            raise BadDataError(
                f"{source}: {len(cases)} files, none left by reconstruction.ingest (acquisitions "
                f"{', '.join(policy.acquisitions) or 'all'}, volume_fraction {policy.volume_fraction})"
            )
        return chosen

    def check_case(self, case: Case) -> CaseInfo:
        """Reads the whole file; the details are shapes, acquisition and dtype."""
        path = case.files["kspace"]
        info = check_volume(path, open_volume(path, self.config.reconstruction.ingest.multicoil))
        details = {
            "shape": list(info.shape),
            "dtype": "complex64",
            "target": info.target,
            "target_shape": list(info.target_shape),
            "acquisition": info.acquisition,
            "encoded_matrix": list(info.header.encoded) if info.header.encoded else None,
            "recon_matrix": list(info.header.recon) if info.header.recon else None,
        }
        return CaseInfo(info.patient, details)

    # ingested -> prepared

    def prepare_case(self, name: str, files: Mapping[str, Path], split: Split, folder: Path) -> list[str]:
        """Training files stay fully sampled; others are undersampled with a mask seeded by their name."""
        out = folder / f"{name}.h5"
        if split == "train":
            prepare_full(files["kspace"], out, self.config.reconstruction.ingest.multicoil)
        else:
            section = self.config.reconstruction
            prepare_undersampled(files["kspace"], out, section.undersample, section.ingest.multicoil)
        return [out.name]

    def prepared_details(self, files: list[Path]) -> dict[str, Any]:
        """The true acceleration, one for training files."""
        with VolumeReader(files[0]) as reader:
            return {"true_acceleration": reader.attribute("true_acceleration") or 1.0}

    # prepared -> model

    def channels(self, variant: str) -> tuple[int, int]:
        """One magnitude in, one out; unrolled networks take and give complex images."""
        # Networks are imported where they are used: whoever only scores files does not wait for them.
        from condswin.networks import is_unrolled, unrolled

        return (unrolled.INPUT_CHANNELS, unrolled.OUTPUT_CHANNELS) if is_unrolled(variant) else (1, 1)

    def dataset(self, prepared: Path, split: Split, variant: str, *, training: bool) -> SliceDataset:
        """Normalised slices; see `SliceDataset`."""
        from condswin.networks import is_unrolled

        return SliceDataset(
            prepared / split,
            self.config.reconstruction.undersample,
            training=training,
            magnitudes=not is_unrolled(variant),
        )

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """L1 or mean squared error between normalised images."""
        loss = F.l1_loss if self.config.reconstruction.train.loss == "l1" else F.mse_loss
        return loss(_magnitude(output, batch["target"].shape[-1]), batch["target"])

    def validation_scores(self, output: Tensor, batch: Batch) -> Batch:
        """`slice_psnr` (B,) with the volume's maximum as data range: close to, but not, the reported one."""
        std, mean = batch["std"][:, None, None, None], batch["mean"][:, None, None, None]
        image = _magnitude(output, batch["target"].shape[-1])
        return {"slice_psnr": slice_psnr(batch["target"] * std + mean, image * std + mean, batch["maximum"])}

    # model -> predictions -> metrics

    def predict(self, model: nn.Module, case_file: Path, out: Path) -> None:
        """Writes `reconstruction` (slices, H, W) float32 in the units of the input, as fastMRI's scripts read it."""
        from condswin.networks.unrolled import UnrolledNetwork

        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        undersample = self.config.reconstruction.undersample
        if isinstance(model, UnrolledNetwork):
            image, std, columns = complex_volume(case_file, undersample)
            mean = torch.zeros_like(std)
        else:
            zero_filled = zero_filled_volume(case_file, undersample)
            image, mean, std = normalise(zero_filled, float(zero_filled.max()))
            image, columns = image[:, None], zero_filled.shape[-1]
        with torch.inference_mode():
            parts = [
                _magnitude(model(batch.to(device)), columns).cpu()[:, 0] for batch in torch.split(image, PREDICT_BATCH)
            ]
        images = torch.cat(parts) * std[:, None, None] + mean[:, None, None]
        if not bool(torch.isfinite(images).all()):
            raise BadDataError(f"{case_file}: the network's output has NaN or infinite values; do not use this model")
        with atomic_file(out) as temporary, h5py.File(temporary, "w") as file:
            file[PREDICTION] = images.numpy()

    def predict_raw(self, model: nn.Module, source: Path, folder: Path) -> Path:
        """Reconstructs a fastMRI file; one that is fully sampled is undersampled first."""
        check_kspace(source)
        out = folder / self.prediction_name(source.stem)
        self.predict(model, source, out)
        return out

    def refusals(self, source: Path) -> list[str]:
        """A mask unlike those trained with; see `guard.refusals`."""
        check_kspace(source)
        return refusals(source, self.config.reconstruction.undersample)

    def case_files(self, folder: Path) -> dict[str, Path]:
        """Prepared files by case name."""
        return prepared_files(folder)

    def prediction_name(self, case: str) -> str:
        """As fastMRI: the name of the k-space file."""
        return f"{case}.h5"

    def score(self, targets: Path, predictions: Path) -> list[Row]:
        """One row per volume: its metrics, those of its zero-filled image, acquisition and true acceleration."""
        pairs = _pairs(targets, predictions)
        return [score_case(case, target, prediction) for case, (target, prediction) in pairs.items()]

    def picture(self, targets: Path, predictions: Path, case: str) -> matplotlib.figure.Figure:
        """Target, zero-filled, prediction and both errors of the middle slice."""
        pairs = _pairs(targets, predictions)
        if case not in pairs:
            raise BadDataError(f"{predictions}: no prediction of {case!r}; there are: {', '.join(list(pairs)[:9])}")
        return picture_case(case, *pairs[case])


def _magnitude(output: Tensor, columns: int) -> Tensor:
    """Magnitudes (B, 1, H, columns), float32, of a network's output: itself, or of complex images (B, 2, H, W)."""
    output = output.float()
    if output.shape[1] == 1:
        return output
    magnitude: Tensor = torch.linalg.vector_norm(output, dim=1, keepdim=True)
    return magnitude.narrow(-1, crop_start(magnitude.shape[-1], columns), columns)


def _drawn(name: str, seed: int, fraction: float) -> bool:
    """Whether a volume belongs to a fraction of all; a larger fraction keeps what a smaller one has."""
    digest = hashlib.sha256(f"{seed} volume {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _acquisition(case: Case) -> str | None:
    """The file's acquisition; None if it cannot be read, which the check that follows reports."""
    try:
        with VolumeReader(case.files["kspace"]) as reader:
            return acquisition(reader)
    except BadFileError:
        return None


def _pairs(targets: Path, predictions: Path) -> dict[str, tuple[Path, Path]]:
    """Target and prediction file by case name.

    Raises:
        BadDataError: A target without prediction, or nothing to score.
    """
    wanted, found = prepared_files(targets), prepared_files(predictions)
    if not wanted:
        raise BadDataError(f"{targets}: no target file to score against")
    if missing := sorted(set(wanted) - set(found)):
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise BadDataError(f"{predictions}: no prediction for {', '.join(missing[:5])}{more}; predict them first")
    return {case: (path, found[case]) for case, path in wanted.items()}


TASK = ReconstructionTask
