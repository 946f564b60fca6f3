"""Segmentation as a task that every step can run."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Literal

import matplotlib.figure
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from condswin.config import Split, TaskName
from condswin.ct.cases import case_of_target, check_case, find_cases, target_stem
from condswin.ct.dataset import SliceDataset
from condswin.ct.demo import write_demo
from condswin.ct.geometry import Geometry
from condswin.ct.metrics import score_case
from condswin.ct.nifti import LABELS, SUFFIXES, Volume, read_image, read_labels, stem
from condswin.ct.pictures import draw_case
from condswin.ct.predict import UNPROCESSED, predict_case
from condswin.ct.prepare import apply_window, open_prepared, prepare_case, read_slices, write_inputs
from condswin.errors import BadDataError
from condswin.progress import track
from condswin.tasks import Advance, Batch, Case, CaseInfo, Row, Task

#: Columns that are also given before post-processing, under names with this prefix.
EFFECTS = ("liver_dice", "tumour_dice", "lesion_precision", "lesions_false")
BEFORE = "unprocessed"


class SegmentationTask(Task):
    """Liver and tumours in CT volumes.

    A case is `volume-N`; its target and its prediction are both files named `segmentation-N.nii.gz`, so that folders of
    segmentations are compared by equal names, whoever made them.
    """

    name: ClassVar[TaskName] = "segmentation"
    metrics: ClassVar[dict[str, bool]] = {
        "liver_dice": True,
        "tumour_dice": True,
        "mean_dice": True,
        "tumour_sensitivity": True,
        "tumour_precision": True,
        "lesion_recall": True,
        "liver_volume_error": False,
        "liver_hd95": False,
    }
    details: ClassVar[tuple[str, ...]] = (
        *("liver_iou", "liver_sensitivity", "liver_precision"),
        *("tumour_iou", "tumour_volume_error", "tumour_hd95", "lesion_precision"),
        *("lesions_found", "lesions_missed", "lesions_false"),
        *(f"{BEFORE}_{name}" for name in EFFECTS),
    )
    baselines: ClassVar[dict[str, str]] = {}
    monitor: ClassVar[tuple[str, bool]] = ("slice_liver_dice", True)

    def make_demo(self, folder: Path, advance: Advance) -> None:
        """Writes generated abdomens as `volume-N.nii.gz` and `segmentation-N.nii.gz`."""
        write_demo(folder, self.config.segmentation.demo, self.config.seed, advance)

    def demo_count(self) -> int:
        """One step per case."""
        return self.config.segmentation.demo.cases

    def find_cases(self, source: Path) -> list[Case]:
        """Lists LiTS or MSD pairs."""
        return find_cases(source)

    def check_case(self, case: Case) -> CaseInfo:
        """Reads both files and checks that they are a usable pair."""
        return check_case(case)

    def prepare_case(self, name: str, files: Mapping[str, Path], split: Split, folder: Path) -> list[str]:
        """Writes `<name>.h5` and the target `segmentation-N.nii[.gz]`; the same for every split."""
        return prepare_case(name, files["volume"], files["segmentation"], folder, self.config.segmentation.prepare)

    def channels(self, variant: str) -> tuple[int, int]:
        """A slice and its neighbours in; background, liver and tumour out."""
        return 1 + 2 * self.config.segmentation.prepare.neighbours, len(LABELS)

    def dataset(self, prepared: Path, split: Split, variant: str, *, training: bool) -> SliceDataset:
        """Slices with `image` (1 + 2n, H, W) and `label` (H, W)."""
        train = self.config.segmentation.train
        return SliceDataset(
            list(self.case_files(prepared / split).values()),
            neighbours=self.config.segmentation.prepare.neighbours,
            foreground=train.foreground if training else 0.0,
            crop=train.crop if training else None,
            augmented=train.augment and training,
            one_size=training,
        )

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss that the parameters name, of logits (B, 3, H, W)."""
        label, name = batch["label"], self.config.segmentation.train.loss
        if name == "cross_entropy":
            return F.cross_entropy(output, label)
        loss: Tensor = _monai_loss(name)(output, label[:, None])
        return loss

    def validation_scores(self, output: Tensor, batch: Batch) -> Batch:
        """Dice of liver (tumour included) and of tumour per slice; NaN where neither shows it."""
        predicted, label = output.argmax(dim=1), batch["label"]
        return {
            "slice_liver_dice": _slice_dice(label > 0, predicted > 0),
            "slice_tumour_dice": _slice_dice(label == 2, predicted == 2),
        }

    def predict(self, model: nn.Module, case_file: Path, out: Path) -> None:
        """Writes labels as NIfTI in the shape and affine of the case's source file.

        Where post-processing is asked for, `<name>.unprocessed.nii.gz` beside it holds what the network said.
        """
        settings = self.config.segmentation
        predict_case(
            model,
            case_file,
            out,
            neighbours=settings.prepare.neighbours,
            window=settings.predict.window or settings.train.crop,
            post=settings.predict,
        )

    def predict_raw(self, model: nn.Module, source: Path, folder: Path) -> Path:
        """Segments a CT volume as it came from the scanner."""
        name = stem(source)
        out = folder / self.prediction_name(name if name.startswith("volume-") else f"volume-{name}")
        with TemporaryDirectory() as scratch:
            inputs = Path(scratch, f"{name}.h5")
            write_inputs(read_image(source), None, inputs, self.config.segmentation.prepare)
            self.predict(model, inputs, out)
        return out

    def case_files(self, folder: Path) -> dict[str, Path]:
        """Prepared `<case>.h5` files by case name."""
        return {path.stem: path for path in sorted(folder.glob("*.h5")) if not path.name.startswith(".")}

    def prediction_name(self, case: str) -> str:
        """The name of the case's target: `volume-N` -> `segmentation-N.nii.gz`."""
        return f"{target_stem(case)}.nii.gz"

    def score(self, targets: Path, predictions: Path) -> list[Row]:
        """Scores every segmentation of one folder against the file of the same name in another.

        Any two folders of NIfTI label volumes will do. Files count as equally named with or without `.gz`, and images
        (`volume-*`) in the folder of targets are passed over. Beyond `metrics`, rows hold `details`: those before
        post-processing come from the `.unprocessed` files that `predict` leaves.

        Raises:
            BadDataError: A target has no prediction, or there is nothing to score.
            BadFileError: A file is unusable, or shape or affine of a pair differ.
        """
        references, candidates = _label_files(targets), _label_files(predictions)
        references = {name: path for name, path in references.items() if not name.endswith(UNPROCESSED)}
        if not references:
            raise BadDataError(f"{targets}: no segmentations (*.nii or *.nii.gz) to score against")
        missing = [path.name for name, path in references.items() if name not in candidates]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise BadDataError(f"{predictions}: no prediction for {', '.join(missing[:5])}{more}; predict them first")
        processed = any(f"{name}{UNPROCESSED}" in candidates for name in references)
        rows: list[Row] = []
        for name, path in track(references.items(), "score", total=len(references)):
            target, prediction = _read_comparable(path, candidates[name])
            steps = target.geometry.affine[:3, :3]
            row: Row = {"case": case_of_target(path), **score_case(target.data, prediction.data, steps)}
            if processed:
                raw = _read_comparable(path, candidates.get(f"{name}{UNPROCESSED}", candidates[name]))[1]
                before = score_case(target.data, raw.data, steps)
                row |= {f"{BEFORE}_{column}": before[column] for column in EFFECTS}
            rows.append(row)
        return rows

    def picture(self, targets: Path, predictions: Path, case: str) -> matplotlib.figure.Figure:
        """CT, outlines of target against prediction, and errors, in the slices that tell most; see `draw_case`.

        The CT is the prepared case or the volume beside the target; without either, outlines stand on black.

        Raises:
            BadDataError: Target or prediction of the case is missing.
            BadFileError: A file is unusable.
        """
        paths = []
        for folder in (targets, predictions):
            files = _label_files(folder)
            if target_stem(case) not in files:
                raise BadDataError(f"{folder}: no segmentation of {case} ({self.prediction_name(case)})")
            paths.append(files[target_stem(case)])
        target, prediction = _read_comparable(*paths)
        slices = self._slices(targets, case, target.geometry)
        return draw_case(case, target.geometry, target.data, prediction.data, slices)

    def _slices(self, folder: Path, case: str, geometry: Geometry) -> Callable[[int], NDArray[np.float32]] | None:
        """Reads slices of a case's CT as a network sees them, if the folder has it on the target's grid."""
        prepared = folder / f"{case}.h5"
        if prepared.is_file():

            def read(index: int) -> NDArray[np.float32]:
                with open_prepared(prepared) as file:
                    shown: NDArray[np.float32] = read_slices(file, index, index + 1, 0)[0, 0]
                return shown

            return read
        volume = next((path for suffix in SUFFIXES if (path := folder / f"{case}{suffix}").is_file()), None)
        if volume is None or not case.startswith("volume-"):
            return None
        image = read_image(volume)
        if image.geometry.mismatch(geometry):
            return None
        window = self.config.segmentation.prepare.window
        return lambda index: apply_window(image.canonical[index], window)


TASK = SegmentationTask


def _label_files(folder: Path) -> dict[str, Path]:
    files = sorted(path for path in folder.glob("*.nii*") if path.name.endswith(SUFFIXES))
    return {stem(path): path for path in files if not path.name.startswith((".", "volume-"))}


def _read_comparable(target_path: Path, prediction_path: Path) -> tuple[Volume, Volume]:
    target = read_labels(target_path)
    return target, read_labels(prediction_path, like=(target.geometry, f"the target {target_path}"))


@cache
def _monai_loss(name: Literal["dice_cross_entropy", "dice_focal"]) -> Callable[[Tensor, Tensor], Tensor]:
    # nnU-Net's choice for 2D: Dice over the whole batch, since most slices lack a class, without background, plus
    # cross entropy (or focal loss) over all classes. MONAI takes seconds to import, so only those who train pay for it.
    from monai.losses import DiceLoss, FocalLoss

    dice = DiceLoss(
        softmax=True, to_onehot_y=True, include_background=False, batch=True, smooth_nr=1e-5, smooth_dr=1e-5
    )
    if name == "dice_focal":
        focal = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0)
        # MONAI averages over pixels and classes, of which one counts per pixel; cross entropy over pixels only.
        return lambda output, label: dice(output, label) + len(LABELS) * focal(output, label)
    return lambda output, label: dice(output, label) + F.cross_entropy(output, label[:, 0])


def _slice_dice(target: Tensor, prediction: Tensor) -> Tensor:
    common = (target & prediction).sum(dim=(1, 2))
    total = target.sum(dim=(1, 2)) + prediction.sum(dim=(1, 2))
    return 2 * common / torch.where(total > 0, total, torch.nan)
