"""What Kubeflow's user interface is shown of detection: counts of lesions, and a curve over cases."""

from pathlib import Path

import nibabel as nib
import numpy as np
from kfp import dsl

from condswin.config.root import Config
from condswin.ct.metrics import score_case
from condswin.evaluation.results import cases_file, write_rows
from condswin.kubeflow.judging import _log_detection

STEPS = np.diag([2.0, 5.0, 10.0])


def evaluated(folder: Path, pairs: dict[str, tuple[list[int], list[int]]]) -> Path:
    """An evaluation of test cases whose labels are lines of voxels."""
    rows = []
    (folder / "predictions" / "test").mkdir(parents=True)
    for number, (target, prediction) in pairs.items():
        volumes = [np.array(line, np.uint8).reshape(-1, 1, 1) for line in (target, prediction)]
        affine = np.eye(4)
        affine[:3, :3] = STEPS
        image = nib.Nifti1Image(volumes[1], affine)
        nib.save(image, folder / "predictions" / "test" / f"segmentation-{number}.nii.gz")
        rows.append({"case": f"volume-{number}", **score_case(*volumes, STEPS)})
    write_rows(folder / cases_file("test"), rows)
    return folder


def shown(config: Config, task: str, evaluation: Path) -> dict:
    metrics = dsl.ClassificationMetrics(uri=str(evaluation / "detection"))
    _log_detection(config, task, evaluation, metrics)
    return metrics.metadata


def test_lesions_are_counted_and_cases_told_apart_by_what_is_predicted(tiny: Config, tmp_path: Path) -> None:
    metadata = shown(tiny, "segmentation", evaluated(tmp_path, {
        "1": ([1, 2, 2, 0, 2, 1], [1, 2, 0, 0, 0, 2]),  # one found, one missed, one invented: 0.2 ml
        "2": ([1, 1, 1, 1, 1, 1], [1, 2, 1, 1, 1, 1]),  # nothing there, one invented: 0.1 ml
        "3": ([1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]),
    }))  # fmt: skip
    matrix = metadata["confusionMatrix"]
    assert [each["displayName"] for each in matrix["annotationSpecs"]] == ["lesion", "no lesion"]
    assert [each["row"] for each in matrix["rows"]] == [[1, 1], [2, 0]]
    curve = [(each["falsePositiveRate"], each["recall"], round(each["confidenceThreshold"], 6))
             for each in metadata["confidenceMetrics"]]  # fmt: skip
    assert curve == [(0, 0, 0.2), (0, 1, 0.2), (1 / 2, 1, 0.1), (1, 1, 0)]


def test_cases_that_all_have_lesions_have_counts_and_no_curve(tiny: Config, tmp_path: Path) -> None:
    metadata = shown(tiny, "segmentation", evaluated(tmp_path, {"1": ([1, 2, 0], [1, 2, 0])}))
    assert [each["row"] for each in metadata["confusionMatrix"]["rows"]] == [[1, 0], [0, 0]]
    assert "confidenceMetrics" not in metadata


def test_reconstruction_has_nothing_to_detect(tiny: Config, tmp_path: Path) -> None:
    write_rows(tmp_path / cases_file("test"), [{"case": "a", "ssim": 1.0}])
    assert shown(tiny, "reconstruction", tmp_path) == {}
