"""Scores of segmentations.

A case is `volume-N`; its target and its prediction are both files named `segmentation-N.nii.gz`, so that folders of
segmentations are compared by equal names, whoever made them.
"""

from pathlib import Path
from typing import ClassVar

from condswin.cases import by_case, endings
from condswin.ct.cases import case_of_target, target_stem
from condswin.ct.config import CtIngestConfig, SegmentationConfig
from condswin.ct.facts import BEFORE, EFFECTS
from condswin.ct.metrics import overlap, receiver_operating_characteristic, score_case, tumour_ml
from condswin.ct.nifti import SUFFIXES, UNPROCESSED, Volume, read_labels, stem
from condswin.ct.prepared import prepared_files
from condswin.errors import BadDataError
from condswin.manifest import Manifest
from condswin.progress import track
from condswin.tasks.facts import Row
from condswin.tasks.judging import Detection, Judging, spread


class SegmentationJudging(Judging):
    """Per patient, in the scanner's geometry."""

    slice_order: ClassVar[str] = "slices with liver in target or prediction, from foot to head"

    def case_files(self, folder: Path) -> dict[str, Path]:
        """Prepared `<case>.h5` files by case name."""
        return prepared_files(folder)

    def prediction_name(self, case: str) -> str:
        """The name of the case's target: `volume-N` -> `segmentation-N.nii.gz`."""
        return f"{target_stem(case)}.nii.gz"

    def prediction_names(self, case: str) -> list[str]:
        """The prediction and, where post-processing is asked for, what the network said."""
        post = self.config.section(SegmentationConfig).predict
        before = [f"{target_stem(case)}{UNPROCESSED}.nii.gz"] if post.processes else []
        return [self.prediction_name(case), *before]

    def score(self, targets: Path, predictions: Path) -> list[Row]:
        """Scores every segmentation of one folder against the file of the same name in another.

        Any two folders of NIfTI label volumes will do. Files count as equally named with or without `.gz`, and images
        (`volume-*`) in the folder of targets are passed over. Beyond `metrics`, rows hold `details`: those before
        post-processing come from the `.unprocessed` files that `predict` leaves; and `assumed`, what was taken for
        granted in reading the files, if that was the case for any.

        Raises:
            BadDataError: A target has no prediction, two files are of one case, or there is nothing to score.
            BadFileError: A file is unusable, or shape or affine of a pair differ.
        """
        references, candidates = label_files(targets), label_files(predictions)
        references = {name: path for name, path in references.items() if not name.endswith(UNPROCESSED)}
        if not references:
            raise BadDataError(
                f"{targets}: no segmentations ({', '.join(SUFFIXES)}) to score against; {endings(targets)}"
            )
        missing = [path.name for name, path in references.items() if name not in candidates]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise BadDataError(
                f"{predictions}: no prediction for {', '.join(missing[:5])}{more}; {endings(predictions)}: "
                "predict them first"
            )
        processed = any(f"{name}{UNPROCESSED}" in candidates for name in references)
        rules = self.config.section(SegmentationConfig).ingest
        rows: list[Row] = []
        assumed: list[str] = []
        for name, path in track(references.items(), "score", total=len(references)):
            target = read_labels(path, rules=rules)
            prediction = read_prediction(target, path, candidates[name], rules)
            steps = target.geometry.affine[:3, :3]
            row: Row = {"case": case_of_target(path), **score_case(target.data, prediction.data, steps)}
            if processed:
                raw = read_prediction(target, path, candidates.get(f"{name}{UNPROCESSED}", candidates[name]), rules)
                before = score_case(target.data, raw.data, steps)
                row |= {f"{BEFORE}_{column}": before[column] for column in EFFECTS}
            rows.append(row)
            said = {"target": target.assumed, "prediction": prediction.assumed}
            assumed.append("; ".join(f"{role}: {what}" for role, sentences in said.items() for what in sentences))
        if any(assumed):
            rows = [{**row, "assumed": sentences} for row, sentences in zip(rows, assumed, strict=True)]
        return rows

    def by_slice(self, targets: Path, predictions: Path) -> dict[str, list[float]]:
        """Dice of the liver, tumours included; NaN where neither has any."""
        references, candidates = label_files(targets), label_files(predictions)
        rules = self.config.section(SegmentationConfig).ingest
        found = {}
        for name, path in references.items():
            if name in candidates and not name.endswith(UNPROCESSED):
                target = read_labels(path, rules=rules)
                prediction = read_prediction(target, path, candidates[name], rules)
                slices = zip(target.canonical > 0, prediction.canonical > 0, strict=True)
                found[case_of_target(path)] = [overlap(true, predicted).dice for true, predicted in slices]
        return found

    def detection(self, rows: list[Row], predictions: Path) -> Detection | None:
        """Lesions found, missed and invented, and whether a predicted volume of tumour tells who has one.

        Nothing counts as rightly seen not to be a lesion, so that count is 0. A case is positive if its reference shows
        a lesion; the thresholds are millilitres of predicted tumour.
        """
        found, missed, false = (
            sum(int(float(row[f"lesions_{kind}"])) for row in rows) for kind in ("found", "missed", "false")
        )
        rules = self.config.section(SegmentationConfig).ingest
        scored = []
        for row in rows:
            labels = read_labels(predictions / self.prediction_name(str(row["case"])), rules=rules)
            scored.append(
                (
                    tumour_ml(labels.data, labels.geometry.affine[:3, :3]),
                    float(row["lesions_found"]) + float(row["lesions_missed"]) > 0,
                )
            )
        kinds = ["lesion", "no lesion"]
        return Detection(kinds, [[found, missed], [false, 0]], receiver_operating_characteristic(scored))

    def describe(self, manifest: Manifest) -> dict[str, str]:
        """Windows that networks see, voxels, slices, and lengths along the body."""
        known = [case.details for case in manifest.cases if "spacing" in case.details and "shape" in case.details]
        windows = manifest.parameters.get("windows", [])
        means = {(low, high): f"{low:g} to {high:g} HU (level {(low + high) / 2:g}, width {high - low:g})"
                 for low, high in windows}  # fmt: skip
        return {
            "windows": "; ".join(means.values()),
            "pixels": spread((step for details in known for step in details["spacing"][1:]), "mm"),
            "between slices": spread((details["spacing"][0] for details in known), "mm"),
            "slices per volume": spread(
                details["shape"][2] for details in known if str(details.get("orientation"))[-1:] in "SI"
            ),
        }


def label_files(folder: Path) -> dict[str, Path]:
    """NIfTI files of a folder that are no images, by name without suffix and `segmentation-`.

    MSD's labels are called `liver_0`, predictions of its images `segmentation-liver_0`.

    Raises:
        BadDataError: Two files are of one case (`segmentation-0.nii` and `segmentation-0.nii.gz`).
    """
    files = (path for path in folder.glob("*") if path.name.lower().endswith(SUFFIXES))
    labels = [path for path in files if not path.name.startswith((".", "volume-"))]
    return by_case(labels, lambda path: stem(path).removeprefix("segmentation-"))


def read_prediction(target: Volume, target_path: Path, path: Path, rules: CtIngestConfig) -> Volume:
    """Labels of a file in the geometry of a target.

    Raises:
        BadFileError: The file is unusable, or shape or affine differ.
    """
    return read_labels(path, like=(target.geometry, f"the target {target_path}"), rules=rules)


PART = SegmentationJudging
