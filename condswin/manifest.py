"""Manifests: what a folder of ingested or prepared cases holds, with checksums, split and provenance."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from condswin.checksums import checksums
from condswin.config.names import SPLITS, Split, TaskName
from condswin.errors import BadDataError, BadFileError
from condswin.files import MANIFEST, fingerprint, read_json, write_json


@dataclass(frozen=True)
class FileRecord:
    """A file of a dataset: path relative to the manifest's folder, bytes, checksum."""

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


@dataclass(frozen=True)
class Manifest:
    """All cases of one folder, sorted by name.

    Attributes:
        task: Whose data it is.
        cases: The cases.
        parameters: Those that decided the content.
        rejected: File names and reasons of cases that were left out.
        objects: Of fetched files by path the object that they came from (`condswin.sources.local.Origin`).
    """

    task: TaskName
    cases: list[CaseRecord]
    parameters: dict[str, Any]
    rejected: list[dict[str, str]]
    objects: dict[str, dict[str, str]] = field(default_factory=dict)

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
            manifest = cls(values["task"], cases, values["parameters"], values["rejected"], values["objects"])
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

    def require(self, split: Split, folder: Path) -> None:
        """Raises if a split has no case.

        Raises:
            BadDataError: It has none.
        """
        if not self.counts()[split]:
            raise BadDataError(
                f"{folder / split}: no {split} cases; splits are {', '.join(SPLITS)} and come from "
                f"{self.task}.ingest (folders, val_fraction, test_fraction): ingest more patients or other fractions"
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

        Raises:
            BadDataError: Lists the files that differ.
        """
        known = checksums(folder)
        listed = {file.path: file for case in self.cases for file in case.files.values()}
        wrong = []
        for path, file in listed.items():
            if not (folder / path).is_file():
                wrong.append(f"{folder / path}: missing")
            elif (folder / path).stat().st_size != file.bytes or known.sha256(folder / path) != file.sha256:
                wrong.append(f"{folder / path}: content differs from {MANIFEST}")
        found = (path for split in SPLITS for path in sorted((folder / split).glob("*")))
        others = [path for path in found if str(path.relative_to(folder)) not in listed and path.name[0] != "."]
        wrong += [f"{path}: not in {MANIFEST}, move it elsewhere" for path in others]
        known.save()
        if wrong:
            more = [f"and {len(wrong) - 20} more"] if len(wrong) > 20 else []
            raise BadDataError("\n".join([*wrong[:20], *more, "run the step that writes this folder again"]))
