"""Steps: undersample k-space, or cut CT volumes into windowed slices, case by case.

A case is done again only if its source, the parameters or the code changed, so an interrupted run goes on, and shards
of one dataset can be prepared by different machines, into one folder or into several that are brought together.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

from condswin.code import closure
from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.errors import BadFileError, ConfigError
from condswin.files import MANIFEST, copy_with_sha256, fingerprint, read_json, write_json
from condswin.manifest import CaseRecord, FileRecord, Manifest
from condswin.outputs import open_output, require_space
from condswin.progress import progress
from condswin.tasks.loading import load
from condswin.tasks.preparation import Preparation
from condswin.validity import Key

RECORDS = "records"


def prepare(
    config: Config,
    task_name: TaskName,
    *,
    ingested: Path,
    out: Path,
    shard: tuple[int, int] = (0, 1),
    prepared: Sequence[Path] = (),
    overwrite: bool = False,
) -> Manifest | None:
    """Prepares the cases of an ingested dataset.

    Args:
        config: Parameters.
        task_name: Which task.
        ingested: Output of the ingest step.
        out: Folder for `<split>/<files>`, `records/` and `manifest.json`.
        shard: This machine's part and the number of parts. The manifest is written by the run that finds all cases
            done, whichever that is.
        prepared: Folders of other shards: cases that are whole there are copied. What comes of it is what one run
            without shards makes.
        overwrite: Write into a folder that holds other files too.

    Returns:
        The manifest, or None while other shards have cases to do.

    Raises:
        ConfigError: The shard is impossible.
        BadDataError: Ingested files are missing or not those that the manifest names.
        OutputError: Writing to `out` would hurt something.
    """
    part, parts = shard
    if not 0 <= part < parts:
        raise ConfigError(f"shard {part}/{parts}: the part must be from 0 to {parts - 1}")
    preparation = load(Preparation, task_name, config)
    parameters = config.task(task_name).prepared_with()
    source = Manifest.read(ingested, task_name)
    source.verify(ingested)
    code = closure("prepare", task_name)
    keys = {case.name: _key(case, parameters, code) for case in source.cases}
    originals = {
        case.name: {role: source.path(ingested, file) for role, file in case.files.items()} for case in source.cases
    }
    names = {case.name: _outputs(preparation, case, originals[case.name]) for case in source.cases}
    everything = [path for paths in names.values() for path in paths] + [MANIFEST]
    known = fingerprint([source.rejected, [[case.name, case.patient, case.details] for case in source.cases]])
    key = Key(parameters, {**{name: key.digest for name, key in keys.items()}, MANIFEST: known}, code)
    inputs = [ingested, source.root(ingested), *prepared]
    output = open_output(out, step="prepare", inputs=inputs, overwrite=overwrite)
    if output.is_current(key.record()):
        return Manifest.read(out, task_name)
    mine = [case for number, case in enumerate(source.cases) if number % parts == part]
    todo = [case for case in mine if not _done(out, case, keys[case.name])]
    growth = 0
    for case in todo:
        there = [out / name for name in names[case.name]]
        size = preparation.size(originals[case.name], case.split, case.details)
        growth += max(size - sum(path.stat().st_size for path in there if path.is_file()), 0)
    require_space(out, growth, f"prepare {task_name}", "make room, or give --out on another disk")
    output.claim(everything)

    def prepare_one(case: CaseRecord) -> None:
        for folder in prepared:
            if _done(folder, case, keys[case.name]):
                # The record last: without it, what was copied of a case counts as nothing.
                for name in names[case.name]:
                    copy_with_sha256(folder / name, out / name)
                return
        _prepare_case(preparation, case, keys[case.name], originals[case.name], names[case.name], out)

    with progress(f"prepare {task_name}", len(todo)) as advance, ThreadPoolExecutor(cpu_count()) as pool:
        for _ in pool.map(prepare_one, todo):
            advance()
    records = [_done(out, case, keys[case.name]) for case in source.cases]
    if any(record is None for record in records):
        return None
    manifest = Manifest(task_name, [record for record in records if record], parameters, source.rejected)
    manifest.write(out)
    output.finish(everything, key.record())
    return manifest


def _key(case: CaseRecord, parameters: dict[str, Any], code: dict[str, str]) -> Key:
    contents = {role: file.sha256 for role, file in case.files.items()}
    # Files name the patient's key, which a new secret changes.
    return Key({**parameters, "split": case.split, "patient": case.patient}, contents, code)


def _outputs(preparation: Preparation, case: CaseRecord, files: dict[str, Path]) -> list[str]:
    """Paths in the output folder of what is written for a case, its record last."""
    names = preparation.outputs(case.name, files, case.split)
    return [*(f"{case.split}/{name}" for name in names), f"{RECORDS}/{case.name}.json"]


def _prepare_case(
    preparation: Preparation, case: CaseRecord, key: Key, files: dict[str, Path], outputs: list[str], out: Path
) -> None:
    folder = out / case.split
    folder.mkdir(parents=True, exist_ok=True)
    preparation.prepare_case(case.name, files, case.split, folder)
    *paths, _ = outputs
    written = [Path(path).name for path in paths]
    records = [FileRecord.of(out, path) for path in paths]
    write_json(
        out / RECORDS / f"{case.name}.json",
        {
            "key": key.digest,
            "files": [[file.path, file.bytes, file.sha256] for file in records],
            "details": {
                "source_sha256": {role: file.sha256 for role, file in case.files.items()},
                **preparation.details(folder, written),
            },
        },
    )


def _done(out: Path, case: CaseRecord, key: Key) -> CaseRecord | None:
    """The record of a case that was prepared from this very source with these parameters, if it is still whole."""
    try:
        record = read_json(out / RECORDS / f"{case.name}.json")
    except BadFileError:
        return None
    files = [FileRecord(*file) for file in record["files"]]
    whole = all((out / file.path).is_file() and FileRecord.of(out, file.path) == file for file in files)
    if record["key"] != key.digest or not whole:
        return None
    named = {Path(file.path).name: file for file in files}
    return CaseRecord(case.name, case.split, case.patient, named, {**case.details, **record["details"]})
