"""Tasks that bring data to where networks train."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condswin.errors import BadDataError, ConfigError, DriftError
from condswin.kubeflow.given import Artifact, Log, demo, generated, read, require, require_version, version_of
from condswin.outcomes import settled


def resolve(params: str, task: str) -> str:
    """Says which data is at the source now, without reading it; equal for equal data."""
    return version_of(read(params, task), task)


@settled
def ingest(params: str, task: str, code: str, version: str, ingested: str) -> None:
    """Ingests the source, or demo data."""
    from condswin.steps.ingest import ingest as step

    config = read(params, task)
    require(code, "ingest", task)
    if not config.task(task).ingest.copy:
        raise ConfigError(
            f"{task}.ingest.copy: false, but pods hand on copies: set it to true for Kubeflow, or run the steps there "
            "where the originals are"
        )
    require_version(config, task, version)
    if not generated(config, task):
        step(config, task, source=config.task(task).source, out=Path(ingested))
        return
    with demo(config, task) as raw:
        step(config, task, source=raw, out=Path(ingested))


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

    config = read(params, task)
    require(code, "data_card", task)

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

    config = read(params, task)
    require(code, "prepare", task)
    step(config, task, ingested=Path(ingested), out=Path(prepared))
