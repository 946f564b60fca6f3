"""Tasks that score, compare and show."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from condswin import layout
from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.files import read_json
from condswin.kubeflow.given import Artifact, Detected, Log, read, require
from condswin.outcomes import settled


@settled
def evaluate(
    params: str, task: str, code: str, prepared: str, model: str, evaluation: str, log_metric: Log, detection: Detected
) -> None:
    """Evaluates a model."""
    from condswin.steps.evaluate import evaluate as step

    config = read(params, task)
    require(code, "evaluate", task)
    _log_means(step(config, task, model=Path(model), prepared=Path(prepared), out=Path(evaluation)), log_metric)
    _log_detection(config, task, Path(evaluation), detection)


@settled
def baseline(
    params: str, task: str, code: str, prepared: str, evaluation: str, log_metric: Log, detection: Detected
) -> None:
    """Evaluates the task's reference method; leaves an empty folder where it has none."""
    from condswin.steps.baseline import baseline as step

    config = read(params, task)
    require(code, "baseline", task)
    Path(evaluation).mkdir(parents=True, exist_ok=True)
    if config.task(task).reference_method:
        _log_means(step(config, task, prepared=Path(prepared), out=Path(evaluation)), log_metric)
        _log_detection(config, task, Path(evaluation), detection)


def _log_means(result: Mapping[str, Any], log_metric: Log) -> None:
    for metric, summary in result["test"].items():
        if summary.get("mean") is not None:
            log_metric(metric, summary["mean"])


def _log_detection(config: Config, task: TaskName, evaluation: Path, detection: Detected) -> None:
    from condswin.evaluation.results import cases_file, read_rows
    from condswin.tasks.judging import Judging
    from condswin.tasks.loading import load

    rows = read_rows(evaluation / cases_file("test"), ())
    found = load(Judging, task, config).detection(rows, evaluation / "predictions" / "test")
    if found is None:
        return
    detection.log_confusion_matrix(found.kinds, found.counts)
    for false, true, threshold in found.curve:
        detection.log_roc_data_point(false, true, threshold)


def compare(
    params: str,
    task: str,
    code: str,
    evaluations: Sequence[Artifact | None],
    models: Sequence[Artifact | None],
    comparison: str,
    table: str,
    best: str,
) -> str:
    """Compares evaluated variants and copies the best one's model; returns its label. None stands for no variant."""
    from condswin.evaluation.results import METRICS
    from condswin.reporting.markdown import comparison_page
    from condswin.steps.compare import compare as step

    config = read(params, task)
    require(code, "compare", task)
    given = _by_variant(evaluations, models)
    results = {variant: read_json(evaluation / METRICS) for variant, (evaluation, _) in given.items()}
    compared = step(config, task, results=results, out=Path(comparison))
    Path(table).write_text(comparison_page(config, task, compared))
    chosen: str = compared["best"]
    shutil.copytree(given[chosen][1], best, dirs_exist_ok=True)
    return chosen


def report(
    params: str,
    task: str,
    code: str,
    prepared: str,
    image: str,
    comparison: Artifact | None,
    baseline: Artifact | None,
    evaluations: Sequence[Artifact | None],
    models: Sequence[Artifact | None],
    page: str,
) -> None:
    """Writes the report of evaluated variants, from a working folder made of links to them.

    Without a comparison it is on the first of them alone.
    """
    from condswin.evaluation.results import METRICS
    from condswin.steps.report import report as step
    from condswin.steps.report import report_evaluation

    config = read(params, task)
    require(code, "report", task)
    places = {layout.prepared(task): Path(prepared)}
    if comparison:
        places[layout.comparison(task)] = Path(comparison.path)
    given = _by_variant(evaluations, models)
    for variant, (evaluation, model) in given.items():
        places |= {layout.evaluation(task, variant): evaluation, layout.model(task, variant): model}
    if baseline and Path(baseline.path, METRICS).is_file():
        places[layout.evaluation(task, read_json(Path(baseline.path, METRICS))["variant"])] = Path(baseline.path)
    out = Path(page).absolute()
    with tempfile.TemporaryDirectory() as folder:
        for place, really in places.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).symlink_to(really.absolute())
        with chdir(folder):
            if comparison:
                step(config, out=out, image=image)
                return
            variant = next(iter(given))
            evaluation, model = layout.evaluation(task, variant), layout.model(task, variant)
            report_evaluation(config, evaluation, out=out, model=model, prepared=layout.prepared(task), image=image)


def _by_variant(
    evaluations: Sequence[Artifact | None], models: Sequence[Artifact | None]
) -> dict[str, tuple[Path, Path]]:
    from condswin.networks.saving import read_spec

    given = [
        (Path(one.path), Path(model.path)) for one, model in zip(evaluations, models, strict=True) if one and model
    ]
    return {read_spec(model).variant: (evaluation, model) for evaluation, model in given}
