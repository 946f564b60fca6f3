"""The steps as Kubeflow components call them: texts and paths in, texts out. Knows nothing of kfp.

Each function imports its own step: a task that checks files does not wait seconds for what training needs. What is
`settled` returns why its pipeline cannot go on, or an empty text.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from condswin import layout
from condswin.code import closure
from condswin.config.names import TaskName
from condswin.config.parts import whole
from condswin.config.root import Config
from condswin.errors import BadDataError, ConfigError, DriftError, ImageError, StoppedError
from condswin.files import fingerprint, read_json
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
    from condswin.steps.ingest import ingest as step

    config = _read(params, task)
    _require(code, "ingest", task)
    if not config.task(task).ingest.copy:
        raise ConfigError(
            f"{task}.ingest.copy: false, but pods hand on copies: set it to true for Kubeflow, or run the steps there "
            "where the originals are"
        )
    _require_version(config, task, version)
    if not _generated(config, task):
        step(config, task, source=config.task(task).source, out=Path(ingested))
        return
    with _demo(config, task) as raw:
        step(config, task, source=raw, out=Path(ingested))


@contextmanager
def _demo(config: Config, task: TaskName) -> Iterator[str]:
    from condswin.steps.demo_data import demo_data

    with tempfile.TemporaryDirectory() as raw:
        here = config.model_copy(update={task: config.task(task).model_copy(update={"source": raw})})
        demo_data(here, task, out=Path(raw))
        yield raw


def _require_version(config: Config, task: TaskName, version: str) -> None:
    if (found := _version(config, task)) != version:
        raise BadDataError(
            f"{config.task(task).source}: holds {found}, and the run was started for {version}: it changed meanwhile; "
            "start another run"
        )


def _generated(config: Config, task: TaskName) -> bool:
    return Path(config.task(task).source) == layout.demo(task)


def _version(config: Config, task: TaskName) -> str:
    from condswin.sources.local import source_version

    if not _generated(config, task):
        return source_version(config.task(task).source)
    decides = [config.seed, config.values()[task]["demo"], closure("demo_data", task)]
    return f"demo-{fingerprint(decides)[:16]}"


@settled
def data_card(
    params: str,
    task: str,
    code: str,
    ingested: str,
    reference: Artifact | None,
    card: str,
    page: str,
    log_metric: Log,
) -> None:
    """Describes ingested data; stops, with the card written, if it drifted from the reference."""
    from condswin.steps.data_card import CARD, PAGE
    from condswin.steps.data_card import data_card as step

    config = _read(params, task)
    _require(code, "data_card", task)

    def tell(described: Mapping[str, Any]) -> None:
        log_metric("cases", described["cases"])
        if "drift" in described:
            log_metric("drift", described["drift"]["largest"])
        shutil.copyfile(Path(card, PAGE), page)

    known = Path(reference.path, CARD) if reference else None
    if known and not known.is_file():
        raise BadDataError("the champion was registered without a data card: run the retraining pipeline once more")
    try:
        tell(step(config, ingested=Path(ingested), out=Path(card), reference=known))
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
    from condswin.reporting.markdown import comparison_page
    from condswin.steps.compare import compare as step

    config = _read(params, task)
    _require(code, "compare", task)
    given = _by_variant(evaluations, models)
    results = {variant: read_json(evaluation / METRICS) for variant, (evaluation, _) in given.items()}
    compared = step(config, task, results=results, out=Path(comparison))
    Path(table).write_text(comparison_page(config, task, compared))
    chosen: str = compared["best"]
    shutil.copytree(given[chosen][1], best, dirs_exist_ok=True)
    return chosen


def _by_variant(
    evaluations: Sequence[Artifact | None], models: Sequence[Artifact | None]
) -> dict[str, tuple[Path, Path]]:
    from condswin.networks.saving import read_spec

    given = [
        (Path(one.path), Path(model.path)) for one, model in zip(evaluations, models, strict=True) if one and model
    ]
    return {read_spec(model).variant: (evaluation, model) for evaluation, model in given}


def report(
    params: str,
    task: str,
    code: str,
    prepared: str,
    comparison: str,
    baseline: str,
    evaluations: Sequence[Artifact | None],
    models: Sequence[Artifact | None],
    page: str,
) -> None:
    """Writes the report of evaluated variants, from a working folder made of links to them."""
    from condswin.evaluation.results import METRICS
    from condswin.steps.report import report as step

    config = _read(params, task)
    _require(code, "report", task)
    places = {layout.prepared(task): Path(prepared), layout.comparison(task): Path(comparison)}
    for variant, (evaluation, model) in _by_variant(evaluations, models).items():
        places |= {layout.evaluation(task, variant): evaluation, layout.model(task, variant): model}
    if Path(baseline, METRICS).is_file():
        places[layout.evaluation(task, read_json(Path(baseline, METRICS))["variant"])] = Path(baseline)
    out = Path(page).absolute()
    with tempfile.TemporaryDirectory() as folder:
        for place, really in places.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).symlink_to(really.absolute())
        with chdir(folder):
            step(config, out=out)


def register(
    params: str,
    task: str,
    image: str,
    pipeline_run: str,
    comparison: str,
    model: str,
    card: Artifact | None,
    registered: str,
) -> str:
    """Registers the best model, tagged with where it was made; returns its version."""
    from condswin.registry.cards import keep_card
    from condswin.steps.register import register as step

    config = _read(params, task)
    record = step(
        config,
        task,
        comparison=Path(comparison),
        model=Path(model),
        out=Path(registered),
        image=image,
        pipeline_run=pipeline_run,
    )
    if card:
        keep_card(config, record["run_id"], Path(card.path))
    return str(record["version"])


def fetch(params: str, task: str, model: str, card: str) -> str:
    """Fetches the champion, and the card of its training data if there is one; returns the version's address."""
    from condswin.registry.aliases import CHAMPION
    from condswin.registry.cards import fetch_card
    from condswin.registry.package import exact_uri, fetch_network, model_name

    config = _read(params, task)
    uri = exact_uri(f"models:/{model_name(task)}@{CHAMPION}", config)
    fetch_network(uri, config, Path(model))
    fetch_card(config, task, uri.rpartition("/")[2], Path(card))
    return uri


@settled
def predict(
    params: str,
    task: str,
    code: str,
    version: str,
    model: str,
    predictions: str,
    page: str,
    log_metric: Log,
) -> None:
    """Predicts every file of the source."""
    from condswin.reporting.markdown import predictions_page
    from condswin.sources.local import local_source
    from condswin.steps.predict import Result
    from condswin.steps.predict import predict as step

    config = _read(params, task)
    _require(code, "predict", task)
    _require_version(config, task, version)
    results: list[Result] = []
    unchecked = config.task(task).ingest.unchecked_objects == "accept"
    with (
        tempfile.TemporaryDirectory() as scratch,
        _demo(config, task) if _generated(config, task) else nullcontext(config.task(task).source) as source,
        local_source(source, Path(scratch, "raw"), accept_unchecked=unchecked) as (folder, _),
    ):
        try:
            step(
                config,
                [folder],
                model=model,
                out=Path(predictions),
                tell=lambda result, _: results.append(result),
                note=print,
            )
        finally:
            Path(page).write_text(predictions_page(task, results, folder))
            for status in ("predicted", "refused", "failed"):
                log_metric(status, sum(result.status == status for result in results))


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
