"""The steps as Kubeflow components call them: texts and paths in, texts out. Knows nothing of kfp.

Each function imports its own step: a task that checks files does not wait seconds for what training needs.
"""

import base64
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from condswin import layout
from condswin.config.reading import parse_config
from condswin.config.root import Config
from condswin.errors import ConfigError, DriftError


class Best(NamedTuple):
    """The best variant and the address of its model."""

    variant: str
    model_uri: str


def demo_data(params: str, task: str, raw: str) -> str:
    """Generates demo data if the parameters ask for it; returns the source to ingest."""
    from condswin.steps.demo_data import demo_data as step

    config = _read(params, task)
    source = config.task(task).source
    if Path(source) != layout.demo(task):
        Path(raw).mkdir(parents=True, exist_ok=True)
        return source
    section = config.task(task).model_copy(update={"source": raw})
    step(config.model_copy(update={task: section}), task, out=Path(raw))
    return raw


def ingest(params: str, task: str, source: str, ingested: str) -> str:
    """Ingests a source; returns the data's fingerprint."""
    from condswin.steps.ingest import ingest as step

    config = _read(params, task)
    if not config.task(task).ingest.copy:
        raise ConfigError(
            f"{task}.ingest.copy: false, but pods hand on copies: set it to true for Kubeflow, or run the steps there "
            "where the originals are"
        )
    return step(config, task, source=source, out=Path(ingested)).fingerprint()


def data_card(params: str, ingested: str, card: str, log_metric: Callable[[str, float], None]) -> None:
    """Describes ingested MRI data; fails, with the card written, if it drifted from the reference in the parameters."""
    from condswin.steps.data_card import data_card as step

    config = _read(params, "reconstruction")

    def log(described: Mapping[str, Any]) -> None:
        log_metric("cases", described["cases"])
        if "drift" in described:
            log_metric("drift", described["drift"]["largest"])

    try:
        log(step(config, ingested=Path(ingested), out=Path(card)))
    except DriftError as error:
        log(error.card)
        raise


def prepare(params: str, task: str, ingested: str, prepared: str) -> str:
    """Prepares all cases; returns the prepared data's fingerprint."""
    from condswin.steps.prepare import prepare as step

    config = _read(params, task)
    manifest = step(config, task, ingested=Path(ingested), out=Path(prepared))
    assert manifest is not None  # a single shard always finishes
    return manifest.fingerprint()


def train(params: str, task: str, variant: str, checkpoints: str, prepared: str, model: str) -> None:
    """Trains a variant."""
    from condswin.steps.train import train as step

    config = _read(params, task)
    with tempfile.TemporaryDirectory() as scratch:
        step(
            config,
            task,
            variant,
            prepared=Path(prepared),
            checkpoints=Path(checkpoints, task, variant) if checkpoints else Path(scratch),
            out=Path(model),
        )


def evaluate(
    params: str,
    task: str,
    prepared: str,
    model: str,
    model_uri: str,
    evaluation: str,
    log_metric: Callable[[str, float], None],
) -> str:
    """Evaluates a model; returns its scores and address as JSON in base64: kfp pastes texts of a list in unescaped."""
    from condswin.steps.evaluate import evaluate as step

    config = _read(params, task)
    result = step(config, task, model=Path(model), prepared=Path(prepared), out=Path(evaluation))
    for metric, summary in result["test"].items():
        if summary.get("mean") is not None:
            log_metric(metric, summary["mean"])
    return base64.b64encode(json.dumps({"model_uri": model_uri, "result": result}).encode()).decode()


def compare(params: str, task: str, evaluations: list[str], comparison: str) -> Best:
    """Compares evaluated variants."""
    from condswin.steps.compare import compare as step

    config = _read(params, task)
    parsed = {
        evaluation["result"]["variant"]: evaluation
        for evaluation in map(json.loads, map(base64.b64decode, evaluations))
    }
    results: dict[str, Any] = {variant: evaluation["result"] for variant, evaluation in parsed.items()}
    best = step(config, task, results=results, out=Path(comparison))["best"]
    return Best(best, parsed[best]["model_uri"])


def register(
    params: str, task: str, image: str, pipeline_run: str, comparison: str, model: str, registered: str
) -> str:
    """Registers the best model, tagged with where it was made; returns its version."""
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
    return str(record["version"])


def promote(params: str, task: str, registered: str, prepared: str, decision: str) -> bool:
    """Runs the promotion protocol; returns whether the challenger is champion."""
    from condswin.steps.promote import promote as step

    config = _read(params, task)
    return step(config, task, registered=Path(registered), prepared=Path(prepared), out=Path(decision)).champion


def _read(params: str, task: str) -> Config:
    return parse_config(json.loads(params), origin="pipeline parameter params")
