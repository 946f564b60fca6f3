"""Raw files of a source: which cases there are, and whether they can be used."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from condswin.patients import BY_NAME
from condswin.tasks.loading import Part


@dataclass(frozen=True)
class Case:
    """One volume of a source folder, before anything is known of its content.

    Attributes:
        name: Unique in the source; names every file made from it (`file1000001`, `volume-12`).
        folder: The folder that holds its image, `/`-separated below the source, empty for the source itself.
        files: Its files by role, the image first (`kspace`; `volume` and `segmentation`), absolute paths.
    """

    name: str
    folder: str
    files: Mapping[str, Path]


@dataclass(frozen=True)
class Found:
    """What a source folder holds.

    Attributes:
        cases: Sorted by name.
        skipped: What of it is in no case, as paths below the source, by reason.
        read: Real paths of the folders that were read, where links lead elsewhere.
    """

    cases: Sequence[Case]
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    read: Sequence[Path] = ()


@dataclass(frozen=True)
class CaseInfo:
    """What checking a case found.

    Attributes:
        patient: Key of the person scanned; cases of one person never part over splits. Never the identifier itself.
        details: JSON-able facts for the manifest (shape, acquisition, spacing); nothing that identifies a person.
            `image_sha256` tells equal images where files of equal images may differ; `patient_from` says where the
            identifier stands ("patient_id attribute"), the file's name if not given; `assumed` lists, in sentences,
            what was taken for granted.
    """

    patient: str
    details: Mapping[str, Any]

    @property
    def patient_from(self) -> str:
        """Where the patient's identifier stands, in words."""
        return str(self.details.get("patient_from", BY_NAME))


class Source(Part):
    """Reads what users have."""

    @abstractmethod
    def find_cases(self, source: Path) -> Found:
        """Lists the cases below a source folder.

        Raises:
            BadDataError: There is none, names are not unique, or some of the folder cannot be read.
        """

    @abstractmethod
    def check_case(self, case: Case) -> CaseInfo:
        """Reads a case completely enough to trust it.

        Raises:
            BadFileError: A file is unusable; the message says why.
        """
