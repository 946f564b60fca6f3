"""Tasks that bring data to where networks train."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from condswin.config.task import CardedTaskConfig
from condswin.errors import BadDataError, ConfigError, DriftError
from condswin.files import read_json
from condswin.kubeflow.given import Artifact, Log, raw, read, require, require_version, version_of
from condswin.outcomes import settled


def resolve(params: str, task: str) -> str:
    """Says which data is at the source now, without reading it; equal for equal data."""
    return version_of(read(params, task), task)


@settled
def ingest(params: str, task: str, code: str, version: str, ingested: str, md5: str) -> None:
    """Ingests the source, or demo data; keeps a version of the result in the DVC remote, and writes its MD5."""
    from condswin.sources.remote import keep
    from condswin.steps.ingest import ingest as step

    Path(md5).write_text("")
    config = read(params, task)
    require(code, "ingest", task)
    if not config.task(task).ingest.copy:
        raise ConfigError(
            f"{task}.ingest.copy: false, but pods hand on copies: set it to true for Kubeflow, or run the steps there "
            "where the originals are"
        )
    require_version(config, task, version)
    with raw(config, task) as source:
        step(config, task, source=source, out=Path(ingested))
    if remote := config.cluster.dvc_remote:
        Path(md5).write_text(keep(Path(ingested), remote))


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
        tell(step(config, task, ingested=Path(ingested), out=Path(card), reference=known))
    except DriftError as error:
        tell(error.card)
        raise


def retrain(params: str, task: str, version: str, card: str) -> tuple[str, str]:
    """Says which schedule data that drifted starts, and the name of the run for that version; empty texts for none."""
    from condswin.steps.data_card import CARD

    path, section = Path(card, CARD), read(params, task).task(task)
    # A card that could not be made has no file; the verdict on it says why.
    drifted = path.is_file() and read_json(path).get("drift", {}).get("exceeded", False)
    if not (drifted and isinstance(section, CardedTaskConfig) and section.drift.schedule):
        return "", ""
    return section.drift.schedule, f"{section.drift.schedule}: {task} {version} drifted"


@settled
def prepare(
    params: str,
    task: str,
    code: str,
    shard: int,
    shards: int,
    ingested: str,
    parts: Sequence[Artifact | None],
    prepared: str,
) -> None:
    """Prepares all cases, or a shard of them, or brings shards together. None stands for no part."""
    from condswin.steps.prepare import prepare as step

    config = read(params, task)
    require(code, "prepare", task)
    known = [Path(part.path) for part in parts if part]
    step(config, task, ingested=Path(ingested), out=Path(prepared), shard=(shard, shards), prepared=known)
