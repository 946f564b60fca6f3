"""Step: predict the validation and test cases with a trained model, score the files, draw pictures."""

import csv
from pathlib import Path
from typing import Any

import torch

from condswin.config import Config, Split, TaskName
from condswin.datasets import Manifest
from condswin.errors import BadDataError
from condswin.evaluation.summary import summarise
from condswin.files import atomic_file, write_json
from condswin.steps.prepare import require_split
from condswin.tasks import Row, Task, get_task

METRICS = "metrics.json"
PICTURES = 3


def evaluate(config: Config, task_name: TaskName, *, model: Path, prepared: Path, out: Path) -> dict[str, Any]:
    """Scores a trained model per case.

    Args:
        config: Parameters.
        task_name: Which task.
        model: Model folder.
        prepared: Output of the prepare step.
        out: Folder for `predictions/<split>/`, `<split>-cases.csv`, `pictures/` and `metrics.json`.

    Returns:
        What `metrics.json` holds: per split (`val` where there is one, `test`) a summary per metric, and one per
        baseline and metric.

    Raises:
        BadDataError: There is no test case, or the model was made for the other task.
    """
    # Here, so that scoring somebody's files loads neither networks nor what trains them.
    from condswin.evaluation.run import evaluate_split
    from condswin.networks.saving import load_model

    task = get_task(task_name, config)
    manifest = Manifest.read(prepared, task_name)
    manifest.verify(prepared)
    require_split(prepared, task, "test")
    network, spec = load_model(model)
    if spec.task != task_name:
        raise BadDataError(f"{model}: a model for {spec.task}, {task_name} was asked for")
    network.to(device(config, task_name))
    splits: tuple[Split, ...] = ("val", "test") if task.case_files(prepared / "val") else ("test",)
    result: dict[str, Any] = {
        "task": task_name,
        "variant": spec.variant,
        "data_sha256": manifest.fingerprint(),
        "params_sha256": spec.provenance.get("params_sha256", ""),
    }
    for split in splits:
        rows = evaluate_split(task, network, prepared, split, out / "predictions" / split)
        write_rows(out / f"{split}-cases.csv", rows)
        result[split] = summaries(task, rows)
        if split == "test":
            draw_pictures(task, rows, prepared / split, out / "predictions" / split, out / "pictures")
    write_json(out / METRICS, result)
    return result


def score_folders(
    config: Config, task_name: TaskName, *, targets: Path, predictions: Path, out: Path | None
) -> dict[str, Any]:
    """Scores any folder of predictions against a folder of targets, whoever made them.

    Args:
        config: Parameters.
        task_name: Which task.
        targets: fastMRI HDF5 files with targets, or NIfTI segmentations.
        predictions: Files of the same names.
        out: Folder for `cases.csv`, `metrics.json` and `pictures/`; None to write nothing.
    """
    for folder in (targets, predictions):
        if not folder.is_dir():
            raise BadDataError(f"{folder}: no such folder")
    task = get_task(task_name, config)
    rows = task.score(targets, predictions)
    result = summaries(task, rows)
    if out is not None:
        write_rows(out / "cases.csv", rows)
        draw_pictures(task, rows, targets, predictions, out / "pictures")
        write_json(out / METRICS, result)
    return result


def summaries(task: Task, rows: list[Row]) -> dict[str, Any]:
    """Summary per metric and, under their names, the baselines'; the same per acquisition where rows tell several."""
    result = _summaries(task, rows)
    kinds = sorted({str(row["acquisition"]) for row in rows if row.get("acquisition")})
    if len(kinds) > 1:
        by_kind = {kind: [row for row in rows if row["acquisition"] == kind] for kind in kinds}
        result["acquisitions"] = {kind: _summaries(task, part) for kind, part in by_kind.items()}
    return result


def _summaries(task: Task, rows: list[Row]) -> dict[str, Any]:
    details = [name for name in task.details if name in rows[0]]
    result: dict[str, Any] = dict(summarise(rows, [*task.metrics, *details]))
    for baseline, prefix in task.baselines.items():
        columns = summarise(rows, [f"{prefix}{metric}" for metric in task.metrics])
        result[baseline] = {name.removeprefix(prefix): summary for name, summary in columns.items()}
    return result


def device(config: Config, task_name: TaskName) -> torch.device:
    """Where networks of a task run."""
    wanted = config.task(task_name).train.device
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def write_rows(path: Path, rows: list[Row]) -> None:
    """Writes one CSV line per case, atomically."""
    with atomic_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def draw_pictures(task: Task, rows: list[Row], targets: Path, predictions: Path, out: Path) -> None:
    """Draws the worst, the median and the best case by the primary metric."""
    metric, higher_is_better = next(iter(task.metrics.items()))
    finite = [row for row in rows if float(row[metric]) == float(row[metric])]
    ranked = sorted(finite, key=lambda row: float(row[metric]), reverse=not higher_is_better)
    chosen = {len(ranked) // 2: "median", len(ranked) - 1: "best", 0: "worst"}
    if len(ranked) < PICTURES:
        chosen = {1: "best", 0: "worst"} if len(ranked) == 2 else {0: "case"}
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("*.png"):
        stale.unlink()
    for place, name in chosen.items():
        if place < len(ranked):
            figure = task.picture(targets, predictions, str(ranked[place]["case"]))
            with atomic_file(out / f"{name}.png") as temporary:
                # No software version or date in the file: equal pictures are equal bytes.
                figure.savefig(temporary, dpi=100, metadata={"Software": None})
