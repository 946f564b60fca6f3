"""Steps: undersample k-space, or cut CT volumes into windowed slices, case by case.

A case is done again only if its source, the parameters or the format changed, so an interrupted run goes on, and
shards of one dataset can be prepared by different machines into one folder.
"""

from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

from condswin.config import Config, TaskName
from condswin.datasets import CaseRecord, FileRecord, Manifest
from condswin.errors import BadFileError, ConfigError
from condswin.files import MANIFEST, fingerprint, read_json, write_json
from condswin.progress import progress
from condswin.tasks.loading import load
from condswin.tasks.preparation import Preparation

#: Raise it when the layout of prepared files changes, so that old ones are made again.
FORMAT = 2
RECORDS = "records"


def prepare(
    config: Config, task_name: TaskName, *, ingested: Path, out: Path, shard: tuple[int, int] = (0, 1)
) -> Manifest | None:
    """Prepares the cases of an ingested dataset.

    Args:
        config: Parameters.
        task_name: Which task.
        ingested: Output of the ingest step.
        out: Folder for `<split>/<files>`, `records/` and `manifest.json`.
        shard: This machine's part and the number of parts. The manifest is written by the run that finds all cases
            done, whichever that is.

    Returns:
        The manifest, or None while other shards have cases to do.

    Raises:
        ConfigError: The shard is impossible.
        BadDataError: Ingested files are missing or not those that the manifest names.
    """
    part, parts = shard
    if not 0 <= part < parts:
        raise ConfigError(f"shard {part}/{parts}: the part must be from 0 to {parts - 1}")
    preparation = load(Preparation, task_name, config)
    parameters = preparation.parameters()
    source = Manifest.read(ingested, task_name)
    source.verify(ingested)
    keys = {case.name: _key(case, parameters) for case in source.cases}
    mine = [case for number, case in enumerate(source.cases) if number % parts == part]
    with progress(f"prepare {task_name}", len(mine)) as advance, ThreadPoolExecutor(cpu_count()) as pool:
        for _ in pool.map(lambda case: _prepare_case(preparation, case, keys[case.name], ingested, out), mine):
            advance()
    records = [_done(out, case, keys[case.name]) for case in source.cases]
    if any(record is None for record in records):
        return None
    manifest = Manifest(task_name, [record for record in records if record], parameters, source.rejected)
    _remove_stale(out, manifest)
    manifest.write(out)
    return manifest


def _key(case: CaseRecord, parameters: dict[str, Any]) -> str:
    return fingerprint([FORMAT, case.split, {role: file.sha256 for role, file in case.files.items()}, parameters])


def _prepare_case(preparation: Preparation, case: CaseRecord, key: str, ingested: Path, out: Path) -> None:
    if _done(out, case, key):
        return
    folder = out / case.split
    folder.mkdir(parents=True, exist_ok=True)
    files = {role: ingested / file.path for role, file in case.files.items()}
    preparation.prepare_case(case.name, files, case.split, folder)
    written = preparation.outputs(case.name, files, case.split)
    records = [FileRecord.of(out, f"{case.split}/{name}") for name in written]
    write_json(
        out / RECORDS / f"{case.name}.json",
        {
            "key": key,
            "files": [[file.path, file.bytes, file.sha256] for file in records],
            "details": {
                "source_sha256": {role: file.sha256 for role, file in case.files.items()},
                **preparation.details(folder, written),
            },
        },
    )


def _done(out: Path, case: CaseRecord, key: str) -> CaseRecord | None:
    """The record of a case that was prepared from this very source with these parameters, if it is still whole."""
    try:
        record = read_json(out / RECORDS / f"{case.name}.json")
    except BadFileError:
        return None
    files = [FileRecord(*file) for file in record["files"]]
    whole = all((out / file.path).is_file() and (out / file.path).stat().st_size == file.bytes for file in files)
    if record["key"] != key or not whole:
        return None
    named = {Path(file.path).suffix.lstrip("."): file for file in files}
    return CaseRecord(case.name, case.split, case.patient, named, {**case.details, **record["details"]})


def _remove_stale(out: Path, manifest: Manifest) -> None:
    kept = {out / file.path for case in manifest.cases for file in case.files.values()}
    kept |= {out / RECORDS / f"{case.name}.json" for case in manifest.cases} | {out / MANIFEST}
    for path in [path for path in out.rglob("*") if path.is_file() and path not in kept]:
        path.unlink()
