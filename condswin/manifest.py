"""Manifests: what a folder of ingested or prepared cases holds, with checksums, split and provenance."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from condswin.checksums import checksums
from condswin.config.names import SPLITS, Split, TaskName
from condswin.errors import BadDataError, BadFileError
from condswin.files import MANIFEST, fingerprint, read_json, write_json
from condswin.patients import BY_NAME, has_secret

#: Detail of a case that no scanner made.
GENERATED = "generated"
#: In the description of a model: what its training drew into cases, a sentence each; see `Learning.synthetic`.
SYNTHETIC = "synthetic"
#: In the description of a model: what the cases of its training and of its validation are known by; see `known_by`.
TRAINED_ON = "trained_on"
# Enough to tell all scans of the world apart.
_KEY = 16


def generated_of_all(marks: Sequence[str]) -> str:
    """`Manifest.generated` of several sets of cases together."""
    if "unknown" in marks:
        return "unknown"
    return marks[0] if len(set(marks)) == 1 else "some"


@dataclass(frozen=True)
class FileRecord:
    """A file of a dataset: path relative to the manifest's folder, or to that of the originals; bytes, checksum."""

    path: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, folder: Path, path: str) -> "FileRecord":
        """The record of an existing file."""
        return cls(path=path, bytes=(folder / path).stat().st_size, sha256=checksums(folder).sha256(folder / path))


@dataclass(frozen=True)
class CaseRecord:
    """A case of a dataset.

    Attributes:
        name: Unique in the dataset.
        split: Where it belongs.
        patient: Key of the person scanned; not an identifier.
        files: By role.
        details: Facts found by ingestion.
    """

    name: str
    split: Split
    patient: str
    files: dict[str, FileRecord]
    details: dict[str, Any]

    def known_by(self) -> set[str]:
        """What tells in other data that a case is this one, or of the same person, without naming either.

        The start of a checksum of the image (of the files, where a task does not tell the image's own) and, if an
        identifier was found in the file, the person's key. That goes where the weights go, so only a key that nobody
        can guess counts: one of a secret. The name of a file tells nobody apart: other people's scans have the same one
        elsewhere.
        """
        sources = self.details.get("source_sha256") or {role: file.sha256 for role, file in self.files.items()}
        image = str(self.details.get("image_sha256") or fingerprint(sources))
        person = has_secret() and self.details.get("patient_from", BY_NAME) != BY_NAME
        return {image[:_KEY], *([self.patient] if person else [])}


@dataclass(frozen=True)
class Manifest:
    """All cases of one folder, sorted by name.

    Attributes:
        task: Whose data it is.
        cases: The cases.
        parameters: Those that decided the content.
        rejected: File names and reasons of cases that were left out.
        objects: Of fetched files by path the object that they came from (`condswin.sources.local.Origin`).
        skipped: What of the source is in no case, by reason.
        originals: Folder of the files where they were not copied, absolute or relative to the manifest's; else empty.
    """

    task: TaskName
    cases: list[CaseRecord]
    parameters: dict[str, Any]
    rejected: list[dict[str, str]]
    objects: dict[str, dict[str, str]] = field(default_factory=dict)
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    originals: str = ""

    def path(self, folder: Path, file: FileRecord) -> Path:
        """Where a file is, for the manifest of a folder."""
        return self.root(folder) / file.path

    def root(self, folder: Path) -> Path:
        """The folder that paths of files are relative to."""
        return Path(os.path.normpath(folder.resolve() / self.originals)) if self.originals else folder

    def write(self, folder: Path) -> None:
        """Writes `manifest.json`, last of all files of the folder."""
        write_json(folder / MANIFEST, {"format": 1, **asdict(self)})

    @classmethod
    def read(cls, folder: Path, task: TaskName) -> "Manifest":
        """Reads the manifest of a folder.

        Raises:
            BadFileError: There is none, it is damaged, or it belongs to the other task.
        """
        path = folder / MANIFEST
        values = read_json(path)
        try:
            cases = [
                CaseRecord(**{**case, "files": {role: FileRecord(**file) for role, file in case["files"].items()}})
                for case in values["cases"]
            ]
            more = (values[name] for name in ("parameters", "rejected", "objects", "skipped", "originals"))
            manifest = cls(values["task"], cases, *more)
        except (KeyError, TypeError, AttributeError) as error:
            raise BadFileError(path, f"not a condswin manifest ({error}); run the step that writes it again") from None
        if manifest.task != task:
            raise BadFileError(path, f"holds {manifest.task} data, {task} was asked for")
        return manifest

    def fingerprint(self) -> str:
        """Fingerprint of names, splits and contents; the version of the data."""
        return fingerprint(
            [[case.name, case.split, {role: file.sha256 for role, file in case.files.items()}] for case in self.cases]
        )

    def counts(self) -> dict[Split, int]:
        """Cases per split."""
        return {split: sum(case.split == split for case in self.cases) for split in SPLITS}

    def generated(self, *splits: Split) -> str:
        """Whether `all`, `some` or `none` of the cases of these splits were generated; `unknown` if that is of one."""
        marks = {case.details.get(GENERATED) for case in self.cases if case.split in splits}
        if not marks <= {True, False}:
            return "unknown"
        return "some" if len(marks) == 2 else "all" if True in marks else "none"

    def known_by(self, split: Split) -> list[str]:
        """`CaseRecord.known_by` of all cases of a split, sorted."""
        return sorted({key for case in self.cases if case.split == split for key in case.known_by()})

    def require(self, split: Split, folder: Path) -> None:
        """Raises if a split has no case.

        Raises:
            BadDataError: It has none.
        """
        if not self.counts()[split]:
            raise BadDataError(
                f"{folder / split}: no {split} cases; splits are {', '.join(SPLITS)} and come from "
                f"{self.task}.ingest (folders, val_fraction, test_fraction, split_by): ingest more patients or other "
                "fractions"
            )

    def require_parameters(self, wanted: Mapping[str, Any], folder: Path) -> None:
        """Raises if the data was prepared with other parameters than those that hold now.

        Raises:
            BadDataError: Names them.
        """
        differing = sorted(
            name for name in {*wanted, *self.parameters} if wanted.get(name) != self.parameters.get(name)
        )
        if differing:
            raise BadDataError(
                f"{folder}: prepared with other parameters than now ({', '.join(differing)}); "
                f"run `condswin prepare {self.task}` again"
            )

    def verify(self, folder: Path) -> None:
        """Checks that the folders of splits hold the manifest's files, with their contents, and no others.

        Originals are checked where they are.

        Raises:
            BadDataError: Lists the files that differ.
        """
        known = checksums(folder)
        listed = {file.path: file for case in self.cases for file in case.files.values()}
        missing = [path for path in listed if not (self.root(folder) / path).is_file()]
        if self.originals and missing:
            raise BadDataError(
                f"{folder}: its files were not copied, and {len(missing)} of {len(listed)} are not in "
                f"{self.root(folder)} ({missing[0]}{', ...' if len(missing) > 1 else ''}); put or link the originals "
                f"there, or run `condswin ingest {self.task}` with the `source` that has them here"
            )
        wrong = [f"{folder / path}: missing" for path in missing]
        for path in sorted(set(listed) - set(missing)):
            file, place = listed[path], self.root(folder) / path
            if place.stat().st_size != file.bytes or known.sha256(place) != file.sha256:
                wrong.append(f"{place}: content differs from {MANIFEST}")
        found = (path for split in SPLITS for path in sorted((folder / split).glob("*")))
        others = [path for path in found if str(path.relative_to(folder)) not in listed and path.name[0] != "."]
        wrong += [f"{path}: not in {MANIFEST}, move it elsewhere" for path in others]
        known.save()
        if wrong:
            more = [f"and {len(wrong) - 20} more"] if len(wrong) > 20 else []
            raise BadDataError("\n".join([*wrong[:20], *more, "run the step that writes this folder again"]))
