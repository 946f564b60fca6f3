"""Step: check every source file, split cases by patient, and copy them with checksums."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from os import cpu_count
from pathlib import Path
from typing import Any

from condswin.checksums import checksums
from condswin.config.names import SPLITS, Split, TaskName
from condswin.config.root import Config
from condswin.config.task import IngestConfig
from condswin.errors import BadDataError, BadFileError, OutputError
from condswin.files import MANIFEST, copy_with_sha256, read_json, write_json
from condswin.manifest import CaseRecord, FileRecord, Manifest
from condswin.outputs import check_file, check_output, open_output, write_result
from condswin.patients import patient_key
from condswin.progress import progress
from condswin.sources.contents import SIZE
from condswin.sources.local import Fetched, Origin, local_source
from condswin.tasks.loading import load
from condswin.tasks.source import Case, CaseInfo, Source
from condswin.validity import make_key

BAD_FILES = "bad-files.json"
SPLIT_FILE = "splits.json"


def ingest(config: Config, task_name: TaskName, *, source: str, out: Path, overwrite: bool = False) -> Manifest:
    """Makes a checked, split copy of a source.

    Args:
        config: Parameters; the task's `ingest` section decides.
        task_name: Which task.
        source: Folder or `s3://` prefix with fastMRI or LiTS files.
        out: Folder for `<split>/<file>`, `manifest.json`, `splits.json` (cases by split, under every fold if there are
            folds) and, if any file is bad, `bad-files.json` beside it.
        overwrite: Write into a folder that holds other files too.

    Raises:
        BadDataError: Files are bad and the policy is to fail (the message lists all), no case is left, there are more
            folds than patients, or one person or one file is in two splits (of any fold).
        OutputError: Writing to `out` would hurt something.
    """
    check_places(source, out, overwrite=overwrite)
    out = out.absolute()
    reader = load(Source, task_name, config)
    policy = config.task(task_name).ingest
    report = out.with_name(f"{out.name}-{BAD_FILES}")
    check_file(report)
    report.unlink(missing_ok=True)
    with local_source(
        source,
        out.with_name(f".{out.name}-download"),
        earlier=_fetched(out, task_name),
        accept_unchecked=policy.unchecked_objects == "accept",
    ) as (folder, origins):
        cases = reader.find_cases(folder)
        infos: dict[str, CaseInfo] = {}
        rejected: list[dict[str, str]] = []
        with progress(f"check {task_name}", len(cases)) as advance, ThreadPoolExecutor(cpu_count()) as pool:
            # The patients' keys are made with a secret, which another run may not share.
            asked = make_key(
                "ingest", task_name, parameters=policy.model_dump(mode="json"), inputs={"secret": patient_key("")}
            )
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
        foldings = [
            assign_splits(good, infos, policy.model_copy(update={"fold": fold}), seed=config.seed)
            for fold in range(max(policy.folds, 1))
        ]
        contents = _checksums(good, folder, task_name)
        for splits in foldings:
            _refuse_leaks(good, infos, contents, splits)
        chosen = foldings[policy.fold]
        targets = {case.name: _targets(case, chosen[case.name]) for case in good}
        copies = [path for paths in targets.values() for path in paths.values()]
        output = open_output(out, step="ingest", inputs=[folder], overwrite=overwrite)
        output.claim([*copies, SPLIT_FILE, MANIFEST])
        records = _copy(good, infos, contents, chosen, targets, out, task_name)
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
    manifest = Manifest(task_name, records, policy.model_dump(mode="json"), rejected, objects)
    manifest.write(out)
    output.finish([*copies, SPLIT_FILE, MANIFEST])
    return manifest


def check_places(source: str, out: Path, *, overwrite: bool = False) -> None:
    """Refuses to ingest into, above or below the source; quick.

    Raises:
        OutputError: One of these.
    """
    inputs = [] if source.startswith("s3://") else [Path(source)]
    check_output(out, step="ingest", inputs=inputs, overwrite=overwrite)
    for folder in inputs:
        if folder.resolve() in out.resolve().parents:
            raise OutputError(
                f"{out}: lies in the source {folder}, whose files it would then count among; give another"
            )


def assign_splits(
    cases: list[Case], infos: dict[str, CaseInfo], policy: IngestConfig, *, seed: int
) -> dict[str, Split]:
    """Split of each case by name: by folder where the policy names the folder, else drawn by patient.

    A split that has a folder takes that folder's cases. The others are drawn, a patient at a time, from the training
    folder's cases and those of unnamed folders; each drawn split gets at least one patient while there are enough.
    With folds, every patient who is not in the test split validates in exactly one of them.

    Raises:
        BadDataError: A patient has cases in folders of different splits, or there are fewer patients than folds.
    """
    folder_split: dict[str, Split] = {folder: split for split, folder in policy.folders.items()}
    present = {folder_split[case.folder] for case in cases if case.folder in folder_split}
    result: dict[str, Split] = {}
    fixed: dict[str, Split] = {}
    pool: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        split = folder_split.get(case.folder, "train")
        if split == "train":
            pool[infos[case.name].patient].append(case.name)
        else:
            result[case.name] = fixed[infos[case.name].patient] = split
    if both := sorted(set(pool) & set(fixed)):
        names = ", ".join(pool[both[0]])
        raise BadDataError(
            f"{names}: the same patient also has cases in folder {policy.folders[fixed[both[0]]]!r}; "
            "a person may be in one split only, remove the cases from one of the folders"
        )
    # A keyed order instead of a shuffle: adding a patient moves few of the others.
    patients = sorted(pool, key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).hexdigest())
    wanted = {"test": policy.test_fraction, "val": policy.val_fraction}
    total = len(patients)
    for split in ("test", "val"):
        if split in present:
            continue
        if split == "val" and policy.folds:
            if len(patients) < policy.folds:
                raise BadDataError(
                    f"{policy.folds} folds of {len(patients)} patients: give fewer folds or more patients"
                )
            drawn = patients[policy.fold :: policy.folds]
        else:
            drawn = patients[: min(max(1, round(wanted[split] * total)), len(patients) - 1)]
        for patient in drawn:
            result.update(dict.fromkeys(pool[patient], split))
        patients = [patient for patient in patients if patient not in drawn]
    for patient in patients:
        result.update(dict.fromkeys(pool[patient], "train"))
    return result


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
            return CaseInfo(entry["patient"], entry["details"])
        try:
            info = check(case)
        except BadFileError as error:
            return error
        self._known[case.name] = {"patient": info.patient, "details": dict(info.details), "files": state}
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


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name


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
            result[case.name] = {role: known.sha256(source) for role, source in sorted(case.files.items())}
            advance()
    known.save()
    return result


def _copy(
    cases: list[Case],
    infos: dict[str, CaseInfo],
    contents: dict[str, dict[str, str]],
    splits: dict[str, Split],
    targets: dict[str, dict[str, str]],
    out: Path,
    task_name: TaskName,
) -> list[CaseRecord]:
    records, known = [], checksums(out)
    with progress(f"copy {task_name}", len(cases)) as advance:
        for case in cases:
            files = {}
            for role, source in sorted(case.files.items()):
                path = targets[case.name][role]
                target = out / path
                # An interrupted ingestion goes on: what is there and equal is not written again.
                checksum = contents[case.name][role]
                if not (target.is_file() and known.sha256(target) == checksum):
                    written = copy_with_sha256(source, target)
                    if written != checksum:
                        raise BadFileError(source, "changed while it was copied; wait until it is complete, run again")
                files[role] = FileRecord(path, target.stat().st_size, checksum)
            info = infos[case.name]
            records.append(CaseRecord(case.name, splits[case.name], info.patient, files, dict(info.details)))
            advance()
    return records


def _refuse_leaks(
    cases: list[Case], infos: dict[str, CaseInfo], contents: dict[str, dict[str, str]], splits: dict[str, Split]
) -> None:
    """Raises if one file's content is in two splits."""
    seen: dict[str, str] = {}
    for case in cases:
        # A task may name a digest of the voxels, which knows the same scan in another compression.
        first = contents[case.name][next(iter(case.files))]
        name = seen.setdefault(str(infos[case.name].details.get("image_sha256", first)), case.name)
        if splits[name] != splits[case.name]:
            raise BadDataError(
                f"{name} ({splits[name]}) and {case.name} ({splits[case.name]}) have the same content; "
                "a test case that was trained on measures nothing, remove one of them"
            )
