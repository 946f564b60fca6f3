"""The steps as Kubeflow components call them: texts and paths in, texts out. Knows nothing of kfp.

Each function imports its own step: a task that checks files does not wait seconds for what training needs. What is
`settled` returns why its pipeline cannot go on, or an empty text.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from condswin import layout
from condswin.code import closure
from condswin.config.names import TaskName
from condswin.config.parts import whole
from condswin.config.root import Config
from condswin.errors import BadDataError, ConfigError, DriftError, ImageError, StoppedError
from condswin.files import fingerprint
from condswin.outcomes import settled

# Of components that do not run the one step of their name.
_STEPS = {"ingest": ("demo_data", "ingest")}
Log = Callable[[str, float], None]


class Artifact(Protocol):
    """What Kubeflow hands over as an input."""

    @property
    def path(self) -> str:
        """A file or folder of this machine."""


def code_of(component: str, task: str) -> str:
    """Checksum of the code that a component runs for a task."""
    return fingerprint([closure(step, task) for step in _STEPS.get(component, (component,))])


def resolve(params: str, task: str) -> str:
    """Says which data is at the source now, without reading it; equal for equal data."""
    return _version(_read(params, task), task)


@settled
def ingest(params: str, task: str, code: str, version: str, ingested: str) -> None:
    """Ingests the source, or demo data."""
    from condswin.steps.demo_data import demo_data
    from condswin.steps.ingest import ingest as step

    config = _read(params, task)
    _require(code, "ingest", task)
    section = config.task(task)
    if not section.ingest.copy:
        raise ConfigError(
            f"{task}.ingest.copy: false, but pods hand on copies: set it to true for Kubeflow, or run the steps there "
            "where the originals are"
        )
    if (found := _version(config, task)) != version:
        raise BadDataError(
            f"{section.source}: holds {found}, and the run was started for {version}: it changed meanwhile; start "
            "another run"
        )
    if not _generated(config, task):
        step(config, task, source=section.source, out=Path(ingested))
        return
    with tempfile.TemporaryDirectory() as raw:
        here = config.model_copy(update={task: section.model_copy(update={"source": raw})})
        demo_data(here, task, out=Path(raw))
        step(config, task, source=raw, out=Path(ingested))


def _generated(config: Config, task: TaskName) -> bool:
    return Path(config.task(task).source) == layout.demo(task)


def _version(config: Config, task: TaskName) -> str:
    from condswin.sources.local import source_version

    if not _generated(config, task):
        return source_version(config.task(task).source)
    decides = [config.seed, config.values()[task]["demo"], closure("demo_data", task)]
    return f"demo-{fingerprint(decides)[:16]}"


@settled
def data_card(params: str, task: str, code: str, ingested: str, card: str, page: str, log_metric: Log) -> None:
    """Describes ingested data; stops, with the card written, if it drifted from the reference in the parameters."""
    from condswin.steps.data_card import PAGE
    from condswin.steps.data_card import data_card as step

    config = _read(params, task)
    _require(code, "data_card", task)

    def tell(described: Mapping[str, Any]) -> None:
        log_metric("cases", described["cases"])
        if "drift" in described:
            log_metric("drift", described["drift"]["largest"])
        shutil.copyfile(Path(card, PAGE), page)

    try:
        tell(step(config, ingested=Path(ingested), out=Path(card)))
    except DriftError as error:
        tell(error.card)
        raise


@settled
def prepare(params: str, task: str, code: str, ingested: str, prepared: str) -> None:
    """Prepares all cases."""
    from condswin.steps.prepare import prepare as step

    config = _read(params, task)
    _require(code, "prepare", task)
    step(config, task, ingested=Path(ingested), out=Path(prepared))


@settled
def train(params: str, task: str, code: str, variant: str, checkpoints: str, prepared: str, model: str) -> None:
    """Trains a variant."""
    from condswin.reporting.training import drawing
    from condswin.steps.train import train as step

    config = _read(params, task)
    _require(code, "train", task)
    with tempfile.TemporaryDirectory() as scratch:
        step(
            config,
            task,
            variant,
            prepared=Path(prepared),
            checkpoints=Path(checkpoints, task, variant) if checkpoints else Path(scratch),
            out=Path(model),
            draw=drawing(config, task),
        )


@settled
def evaluate(params: str, task: str, code: str, prepared: str, model: str, evaluation: str, log_metric: Log) -> None:
    """Evaluates a model."""
    from condswin.steps.evaluate import evaluate as step

    config = _read(params, task)
    _require(code, "evaluate", task)
    _log_means(step(config, task, model=Path(model), prepared=Path(prepared), out=Path(evaluation)), log_metric)


@settled
def baseline(params: str, task: str, code: str, prepared: str, evaluation: str, log_metric: Log) -> None:
    """Evaluates the task's reference method; leaves an empty folder where it has none."""
    from condswin.steps.baseline import baseline as step

    config = _read(params, task)
    _require(code, "baseline", task)
    Path(evaluation).mkdir(parents=True, exist_ok=True)
    if config.task(task).reference_method:
        _log_means(step(config, task, prepared=Path(prepared), out=Path(evaluation)), log_metric)


def _log_means(result: Mapping[str, Any], log_metric: Log) -> None:
    for metric, summary in result["test"].items():
        if summary.get("mean") is not None:
            log_metric(metric, summary["mean"])


def verdict(*outcomes: str) -> None:
    """Fails if a step told that its pipeline cannot go on.

    Raises:
        StoppedError: It did; a line for each.
    """
    if told := [outcome for outcome in outcomes if outcome]:
        raise StoppedError("\n".join(told))


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
    from condswin.files import read_json
    from condswin.reporting.markdown import comparison_page
    from condswin.steps.compare import compare as step

    config = _read(params, task)
    _require(code, "compare", task)
    given = [(each.path, model.path) for each, model in zip(evaluations, models, strict=True) if each and model]
    results = [(read_json(Path(evaluation, METRICS)), Path(model)) for evaluation, model in given]
    by_variant = {result["variant"]: (result, model) for result, model in results}
    compared = step(
        config, task, results={variant: result for variant, (result, _) in by_variant.items()}, out=Path(comparison)
    )
    Path(table).write_text(comparison_page(config, task, compared))
    chosen: str = compared["best"]
    shutil.copytree(by_variant[chosen][1], best, dirs_exist_ok=True)
    return chosen


def register(
    params: str, task: str, image: str, pipeline_run: str, comparison: str, model: str, registered: str
) -> str:
    """Registers the best model, tagged with where it was made; returns its version."""
    from condswin.steps.register import register as step

    record = step(
        _read(params, task),
        task,
        comparison=Path(comparison),
        model=Path(model),
        out=Path(registered),
        image=image,
        pipeline_run=pipeline_run,
    )
    return str(record["version"])


def promote(params: str, task: str, registered: str, prepared: str, baseline: str, decision: str, page: str) -> bool:
    """Runs the promotion protocol; returns whether the challenger is champion."""
    from condswin.reporting.markdown import decision_page
    from condswin.steps.promote import promote as step

    config = _read(params, task)
    found = step(
        config,
        task,
        registered=Path(registered),
        prepared=Path(prepared),
        out=Path(decision),
        baseline=Path(baseline),
    )
    Path(page).write_text(decision_page(task, found.record))
    return found.champion


def notify(pipeline: str, state: str, task: str, run: str, ui: str) -> None:
    """Posts how a run ended to the webhook in the environment; a webhook that fails fails nothing."""
    from condswin.notify import WEBHOOK, message, post

    trouble = post(os.environ.get(WEBHOOK, ""), message(pipeline, state, task, run, ui))
    print(f"nobody was told: {trouble}" if trouble else "told")


def _read(params: str, task: str) -> Config:
    return whole(json.loads(params), task)


def _require(code: str, component: str, task: str) -> None:
    """Refuses to run other code than the pipeline was compiled with: Kubeflow's cache would take one for the other."""
    if code and code != code_of(component, task):
        raise ImageError(
            f"{component} {task}: this image holds other code than the pipeline was compiled with; build and name "
            "(`cluster.pools`) an image of the same commit, or compile again"
        )
