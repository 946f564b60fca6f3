"""Which cases train, validate and test: a person, and a scan, is in one split only."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from condswin.config.names import SPLITS, Split, TaskName
from condswin.config.task import IngestConfig
from condswin.errors import BadDataError
from condswin.tasks.source import Case, CaseInfo

#: An identifier of at least so many files, and more than this share of all, may stand for many people.
LARGE_SHARE, LARGE_COUNT = 0.2, 5


def assign_splits(
    cases: Sequence[Case], infos: Mapping[str, CaseInfo], policy: IngestConfig, task: TaskName, *, seed: int
) -> dict[str, Split]:
    """Split of each case by name: by folder where the policy names the folder, else drawn by patient.

    A split that has a folder takes that folder's cases. The others are drawn, a patient at a time, from the training
    folder's cases and those of unnamed folders; each drawn split gets at least one patient while there are enough.
    With folds, every patient who is not in the test split validates in exactly one of them.

    Raises:
        BadDataError: A patient has cases in folders of different splits, or there are fewer patients than folds.
    """
    by_folder = {case.name: policy.split_of(case.folder) for case in cases}
    present = set(by_folder.values())
    result: dict[str, Split] = {}
    fixed: dict[str, list[str]] = defaultdict(list)
    pool: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        split = by_folder[case.name] or "train"
        if split == "train":
            pool[infos[case.name].patient].append(case.name)
        else:
            result[case.name] = split
            fixed[infos[case.name].patient].append(case.name)
    for names in fixed.values():
        names += pool.get(infos[names[0]].patient, [])
        splits = Counter(result.get(name, "train") for name in names)
        if len(splits) > 1:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            counts = ", ".join(f"{count} in the folder for {split}" for split, count in sorted(splits.items()))
            raise BadDataError(
                f"{', '.join(names[:3])}{more}: the same patient by their {infos[names[0]].patient_from} ({counts}); "
                "a person may be in one split only: remove the cases from one of the folders or, if this is a "
                f"placeholder and no identifier, set {task}.ingest.split_by to file"
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


def refuse_one_patient(infos: Mapping[str, CaseInfo], task: TaskName) -> None:
    """Raises if all of several cases are of one patient: nothing can be split then.

    Raises:
        BadDataError: So it is; names the field, never what it holds.
    """
    if len(infos) > 1 and len({info.patient for info in infos.values()}) == 1:
        field = next(iter(infos.values())).patient_from
        raise BadDataError(
            f"{len(infos)} of {len(infos)} files have the same {field}, and a patient may be in one split only; if it "
            f"is a placeholder, set {task}.ingest.split_by to file, which takes each file as a patient of its own"
        )


def remarks(infos: Mapping[str, CaseInfo], splits: Mapping[str, Split], task: TaskName) -> list[str]:
    """What somebody should know of a split: identifiers of very many files, and splits without a case."""
    lines = []
    counts = Counter((info.patient, info.patient_from) for info in infos.values())
    large: dict[str, list[str]] = defaultdict(list)
    for (_, field), count in counts.most_common():
        if count >= LARGE_COUNT and count > LARGE_SHARE * len(infos):
            large[field].append(str(count))
    for field, found in large.items():
        each = " each" if len(found) > 1 else ""
        lines.append(
            f"warning: {' and '.join(found)} of {len(infos)} files have the same {field}{each}, and so stay in one "
            f"split; if it is a placeholder, set {task}.ingest.split_by to file"
        )
    if empty := [split for split in SPLITS if split not in splits.values()]:
        lines.append(
            f"warning: no {' and no '.join(empty)} cases: {len(infos)} cases of {len(counts)} patients (by their "
            f"{' and '.join(sorted({info.patient_from for info in infos.values()}))}); ingest more patients, or see "
            f"{task}.ingest (folders, split_by)"
        )
    return lines


def refuse_leaks(
    cases: Sequence[Case],
    infos: Mapping[str, CaseInfo],
    contents: Mapping[str, Mapping[str, str]],
    splits: Mapping[str, Split],
) -> None:
    """Raises if one content is in two splits.

    Args:
        cases: The cases.
        infos: What is known of them, by name.
        contents: Checksums of their files by role, by name.
        splits: Where they are, by name.

    Raises:
        BadDataError: Names both.
    """
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
