"""Step: check every source file, split cases by patient, and copy them with checksums, or leave them where they are."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from os import cpu_count
from pathlib import Path
from typing import Any

from condswin.checksums import checksums
from condswin.config.names import SPLITS, Split, TaskName
from condswin.config.root import Config
from condswin.config.task import IngestConfig
from condswin.errors import BadDataError, BadFileError, ConfigError, OutputError
from condswin.files import MANIFEST, copy_with_sha256, read_json, write_json
from condswin.listing import LINKED, identity, summary
from condswin.manifest import GENERATED, CaseRecord, FileRecord, Manifest
from condswin.outputs import check_file, check_output, checksums_by, open_output, require_space, write_result
from condswin.patients import BY_NAME, patient_key
from condswin.progress import progress, say
from condswin.sources.contents import SIZE
from condswin.sources.keys import is_fetched
from condswin.sources.local import Fetched, Origin, local_source
from condswin.splits import assign_splits, refuse_leaks, refuse_one_patient, remarks
from condswin.tasks.loading import load
from condswin.tasks.source import Case, CaseInfo, Found, Source
from condswin.validity import make_key

BAD_FILES = "bad-files.json"
SPLIT_FILE = "splits.json"


def ingest(config: Config, task_name: TaskName, *, source: str, out: Path, overwrite: bool = False) -> Manifest:
    """Makes a checked, split copy of a source, or a checked, split list of its files.

    Args:
        config: Parameters; the task's `ingest` section decides.
        task_name: Which task.
        source: Folder, `s3://` prefix or version in a DVC remote, with fastMRI or LiTS files.
        out: Folder for `<split>/<file>` unless files are left where they are, `manifest.json`, `splits.json` (cases by
            split, under every fold if there are folds) and, if any file is bad, `bad-files.json` beside it.
        overwrite: Write into a folder that holds other files too.

    Raises:
        BadDataError: Files are bad and the policy is to fail (the message lists all), no case is left, there are more
            folds than patients, all cases are of one patient, or one person or one file is in two splits (of any fold).
        ConfigError: Files that are fetched are to be left where they are.
        OutputError: Writing to `out` would hurt something, or there is no room.
    """
    policy = config.task(task_name).ingest
    if not policy.copy and is_fetched(source):
        raise ConfigError(
            f"{task_name}.ingest.copy: false leaves files where they are, but those of {source} are fetched: set it to "
            "true"
        )
    check_places(source, out, overwrite=overwrite)
    out = out.absolute()
    reader = load(Source, task_name, config)
    report = out.with_name(f"{out.name}-{BAD_FILES}")
    check_file(report)
    report.unlink(missing_ok=True)
    with local_source(
        source,
        out.with_name(f".{out.name}-download"),
        earlier=_fetched(out, task_name),
        accept_unchecked=policy.unchecked_objects == "accept",
    ) as (folder, origins):
        found = _distinct(reader.find_cases(folder), folder, policy)
        cases = found.cases
        _refuse_linked_places(found, out)
        if policy.copy:
            advice = f"make room, give --out on another disk, or set {task_name}.ingest.copy to false"
            require_space(out, _growth(cases, out), f"ingest {task_name}", advice)
        infos: dict[str, CaseInfo] = {}
        rejected: list[dict[str, str]] = []
        with progress(f"check {task_name}", len(cases)) as advance, ThreadPoolExecutor(cpu_count()) as pool:
            # What every task's policy has decides nothing of a check, the task's own does. The patients' keys are made
            # with a secret, which another run may not share.
            own = policy.model_dump(mode="json", exclude=set(IngestConfig.model_fields))
            asked = make_key("ingest", task_name, parameters=own, inputs={"secret": patient_key("")})
            known = CheckCache(out.with_name(f".{out.name}-checks.json"), asked.digest)
            results = pool.map(lambda case: known.check(case, reader.check_case), cases)
            for case, result in zip(cases, results, strict=True):
                if isinstance(result, CaseInfo):
                    infos[case.name] = _with_unchecked(result, case, origins)
                else:
                    rejected.append({"file": _relative(result.path, folder), "reason": result.reason})
                advance()
        known.write()
        if rejected:
            write_result(report, "ingest", {"bad_files": rejected})
            listed = "\n".join(f"  {bad['file']}: {bad['reason']}" for bad in rejected)
            if policy.on_bad_file == "fail":
                raise BadDataError(
                    f"{source}: {len(rejected)} of {len(cases)} cases cannot be used (also in {report}):\n{listed}\n"
                    f"repair or remove them, or set {task_name}.ingest.on_bad_file to quarantine to go on without them"
                )
            if not infos:
                raise BadDataError(f"{source}: no case can be used:\n{listed}")
        good = [case for case in cases if case.name in infos]
        if policy.split_by == "file":
            infos = {
                name: CaseInfo(patient_key(name), {**info.details, "patient_from": BY_NAME})
                for name, info in infos.items()
            }
        refuse_one_patient(infos, task_name)
        foldings = [
            assign_splits(good, infos, policy.model_copy(update={"fold": fold}), task_name, seed=config.seed)
            for fold in range(max(policy.folds, 1))
        ]
        contents = _checksums(good, folder, task_name)
        for splits in foldings:
            refuse_leaks(good, infos, contents, splits)
        chosen = foldings[policy.fold]
        targets = {case.name: _targets(case, chosen[case.name]) for case in good} if policy.copy else {}
        copies = [path for paths in targets.values() for path in paths.values()]
        output = open_output(out, step="ingest", inputs=[folder], overwrite=overwrite)
        output.claim([*copies, SPLIT_FILE, MANIFEST])
        if policy.copy:
            files, originals = _copy(good, contents, targets, out, task_name), ""
        else:
            files, originals = _originals(good, contents, folder), _address(Path(source), out)
    by_split = [
        {split: sorted(name for name in folding if folding[name] == split) for split in SPLITS} for folding in foldings
    ]
    write_json(
        out / SPLIT_FILE,
        {
            "format": 1,
            "task": task_name,
            "seed": config.seed,
            **by_split[policy.fold],
            "folds": by_split if policy.folds else [],
        },
    )
    objects = {
        targets[case.name][role]: asdict(origins[path])
        for case in good
        for role, path in case.files.items()
        if path in origins
    }
    demo = checksums_by("demo-data", Path(source))
    records = []
    for case in good:
        info = infos[case.name]
        details = {**info.details, GENERATED: policy.generated or bool(demo & set(contents[case.name].values()))}
        records.append(CaseRecord(case.name, chosen[case.name], info.patient, files[case.name], details))
    manifest = Manifest(task_name, records, policy.model_dump(mode="json"), rejected, objects, found.skipped, originals)
    manifest.write(out)
    output.finish([*copies, SPLIT_FILE, MANIFEST])
    for line in [*_notes(manifest, found, Path(source), policy), *remarks(infos, chosen, task_name)]:
        say(line)
    return manifest


def check_places(source: str, out: Path, *, overwrite: bool = False) -> None:
    """Refuses to ingest into, above or below the source; quick.

    Raises:
        OutputError: One of these.
    """
    inputs = [] if is_fetched(source) else [Path(source)]
    check_output(out, step="ingest", inputs=inputs, overwrite=overwrite)
    for folder in inputs:
        _refuse_below(folder, out)


class CheckCache:
    """What checking sound files found, so that ingesting a source again reads only files that are new or changed.

    A file counts as changed when its size, time of modification (ns) or inode differs. All files count as changed when
    `asked` differs.

    Args:
        path: JSON file; damaged or missing ones are started anew.
        asked: Digest of all else that decides the result of a check.
    """

    def __init__(self, path: Path, asked: str) -> None:
        self._path, self._asked = path, asked
        try:
            stored = read_json(path)
            self._known: dict[str, Any] = stored["cases"] if stored["asked"] == self._asked else {}
        except (BadFileError, KeyError, TypeError):
            self._known = {}
        self._asked_for: set[str] = set()

    def check(self, case: Case, check: Callable[[Case], CaseInfo]) -> CaseInfo | BadFileError:
        """What is known of a case whose files have not changed, else what a check finds, which is kept of sound files.

        Bad files are read again next time.
        """
        # Asked before the files are read: a change meanwhile is noticed next time.
        self._asked_for.add(case.name)
        state = _state(case)
        entry = self._known.get(case.name)
        if state and entry and entry["files"] == state:
            return CaseInfo(**entry["info"])
        try:
            _require_readable(case)
            info = check(case)
        except BadFileError as error:
            return error
        self._known[case.name] = {"info": asdict(info), "files": state}
        return info

    def write(self) -> None:
        """Writes the file, without cases that left the source."""
        cases = {name: entry for name, entry in self._known.items() if name in self._asked_for}
        write_json(self._path, {"asked": self._asked, "cases": cases})


def _state(case: Case) -> dict[str, list[Any]]:
    """Of each file what changes when it does; empty if one cannot be asked, which the check then reports."""
    try:
        states = {role: (path, path.stat()) for role, path in case.files.items()}
    except OSError:
        return {}
    return {role: [str(path), at.st_size, at.st_mtime_ns, at.st_ino] for role, (path, at) in states.items()}


def _fetched(out: Path, task_name: TaskName) -> list[Fetched]:
    """Files of an earlier ingestion that came from objects."""
    try:
        manifest = Manifest.read(out, task_name)
        checksums = {file.path: file.sha256 for case in manifest.cases for file in case.files.values()}
        return [Fetched(out / path, checksums[path], Origin(**origin)) for path, origin in manifest.objects.items()]
    except (BadFileError, KeyError, TypeError):
        return []


def _with_unchecked(info: CaseInfo, case: Case, origins: Mapping[Path, Origin]) -> CaseInfo:
    """Says of a case which of its files were compared with the server's by size alone."""
    unchecked = any(path in origins and origins[path].compared_by == SIZE for path in case.files.values())
    if not unchecked:
        return info
    sentence = "the S3 server tells no checksum: the file is taken for whole by its size"
    return CaseInfo(info.patient, {**info.details, "assumed": [*info.details.get("assumed", []), sentence]})


def _require_readable(case: Case) -> None:
    for path in case.files.values():
        if not os.access(path, os.R_OK):
            dangling = path.is_symlink() and not os.path.exists(path)  # noqa: PTH110 (which never raises)
            raise BadFileError(path, "a link that leads nowhere" if dangling else "no permission to read it")


def _relative(path: Path, folder: Path) -> str:
    folder = folder.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _refuse_below(folder: Path, out: Path) -> None:
    if folder.resolve() in out.resolve().parents:
        raise OutputError(f"{out}: lies in the source {folder}, whose files it would then count among; give another")


def _refuse_linked_places(found: Found, out: Path) -> None:
    """Refuses to write below a folder that links lead to, or above a file that they lead to."""
    for folder in found.read:
        _refuse_below(folder, out)
    really = {path.resolve().parent for case in found.cases for path in case.files.values()}
    check_output(out, step="ingest", inputs=[*found.read, *really], overwrite=True)


def _distinct(found: Found, folder: Path, policy: IngestConfig) -> Found:
    """Counts a case as passed over whose image is, by a link, that of another case of the same split."""
    chosen: dict[object, Case] = {}
    skipped = {reason: list(names) for reason, names in found.skipped.items()}

    def rank(case: Case) -> tuple[int, bool, str]:
        image = _image(case)
        return -len(case.files), image.name != image.resolve().name, case.name

    for case in sorted(found.cases, key=rank):
        image = _image(case)
        if chosen.setdefault((policy.split_of(case.folder), identity(image) or image), case) is not case:
            names = (_relative(path, folder) for path in case.files.values())
            skipped.setdefault(LINKED, []).extend(names)
    cases = sorted(chosen.values(), key=lambda case: case.name)
    return replace(found, cases=cases, skipped={reason: sorted(names) for reason, names in skipped.items()})


def _image(case: Case) -> Path:
    return next(iter(case.files.values()))


def _growth(cases: Sequence[Case], out: Path) -> int:
    """Bytes that copies of the cases will add to those that are there; in which split is not known yet."""
    there = {path.name: path.stat().st_size for split in SPLITS for path in (out / split).glob("*") if path.is_file()}
    sizes = {
        Path(target).name: case.files[role].stat().st_size
        for case in cases
        for role, target in _targets(case, "train").items()
        if case.files[role].exists()
    }
    return sum(max(size - there.get(name, 0), 0) for name, size in sizes.items())


def _targets(case: Case, split: Split) -> dict[str, str]:
    """Where the copies of a case's files go, by role. MSD's images and labels have one name: it gets the role then."""
    names = [source.name for source in case.files.values()]
    return {
        role: f"{split}/{source.name if names.count(source.name) == 1 else f'{role}-{source.name}'}"
        for role, source in sorted(case.files.items())
    }


def _checksums(cases: list[Case], folder: Path, task_name: TaskName) -> dict[str, dict[str, str]]:
    known = checksums(folder)
    with progress(f"checksum {task_name}", len(cases)) as advance:
        result = {}
        for case in cases:
            try:
                result[case.name] = {role: known.sha256(source) for role, source in sorted(case.files.items())}
            except OSError as error:
                raise BadFileError(error.filename, f"went while files were checked ({error.strerror})") from None
            advance()
    known.save()
    return result


def _copy(
    cases: list[Case],
    contents: Mapping[str, Mapping[str, str]],
    targets: Mapping[str, Mapping[str, str]],
    out: Path,
    task_name: TaskName,
) -> dict[str, dict[str, FileRecord]]:
    """Copies files; returns their records by case and role."""
    records, known = {}, checksums(out)
    with progress(f"copy {task_name}", len(cases)) as advance:
        for case in cases:
            files = {}
            for role, source in sorted(case.files.items()):
                path = targets[case.name][role]
                target = out / path
                # An interrupted ingestion goes on: what is there and equal is not written again.
                checksum = contents[case.name][role]
                if not (target.is_file() and known.sha256(target) == checksum):
                    try:
                        written = copy_with_sha256(source, target)
                    except OSError as error:
                        raise OutputError(f"{target}: cannot be copied from {source} ({error.strerror})") from None
                    if written != checksum:
                        raise BadFileError(source, "changed while it was copied; wait until it is complete, run again")
                files[role] = FileRecord(path, target.stat().st_size, checksum)
            records[case.name] = files
            advance()
    return records


def _originals(
    cases: list[Case], contents: Mapping[str, Mapping[str, str]], folder: Path
) -> dict[str, dict[str, FileRecord]]:
    """Records, by case and role, of files that stay where they are."""
    return {
        case.name: {
            role: FileRecord(_relative(path, folder), path.stat().st_size, contents[case.name][role])
            for role, path in sorted(case.files.items())
        }
        for case in cases
    }


def _address(source: Path, out: Path) -> str:
    """Where the originals are, for the manifest in `out`: relative if the source was given so, as clones have it."""
    place = source.resolve()
    return str(place) if source.is_absolute() else os.path.relpath(place, out.resolve())


def _notes(manifest: Manifest, found: Found, source: Path, policy: IngestConfig) -> list[str]:
    """What was passed over, assumed and not found, a line each."""
    lines = []
    if skipped := summary(manifest.skipped):
        lines.append(f"skipped {skipped}")
    assumed = Counter(sentence for case in manifest.cases for sentence in case.details.get("assumed", ()))
    lines += [
        f"assumed for {count} {'case' if count == 1 else 'cases'}: {sentence}"
        for sentence, count in assumed.most_common()
    ]
    present = {policy.split_of(case.folder) for case in found.cases}
    if missing := [split for split in policy.folders if split not in present]:
        drawn = "all splits" if present == {None} else " and ".join(split for split in missing if split != "train")
        lines.append(
            f"no files in {', '.join(policy.folders[split] for split in missing)} ({manifest.task}.ingest.folders)"
            f"{drawn and f': {drawn} drawn by patient'}"
        )
    elsewhere = [folder for folder in found.read if source.resolve() not in (folder, *folder.parents)]
    if elsewhere:
        lines.append(
            f"links lead to {len(elsewhere)} of {len(found.read)} folders, where DVC sees no change: after one, run "
            f"`dvc repro --force --single-item ingest-{manifest.task}@{manifest.task}`"
        )
    return lines
