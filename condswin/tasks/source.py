"""Raw files of a source: which cases there are, and whether they can be used."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from condswin.tasks.loading import Part


@dataclass(frozen=True)
class Case:
    """One volume of a source folder, before anything is known of its content.

    Attributes:
        name: Unique in the source; names every file made from it (`file1000001`, `volume-12`).
        folder: First folder below the source that holds it, empty for files directly in the source.
        files: Its files by role, the image first (`kspace`; `volume` and `segmentation`), absolute paths.
    """

    name: str
    folder: str
    files: Mapping[str, Path]


@dataclass(frozen=True)
class CaseInfo:
    """What checking a case found.

    Attributes:
        patient: Key of the person scanned; cases of one person never part over splits. Never the identifier itself.
        details: JSON-able facts for the manifest (shape, acquisition, spacing); nothing that identifies a person.
            `image_sha256` tells equal images where files of equal images may differ.
    """

    patient: str
    details: Mapping[str, Any]


class Source(Part):
    """Reads what users have."""

    @abstractmethod
    def find_cases(self, source: Path) -> list[Case]:
        """Lists the cases below a source folder, sorted by name.

        Raises:
            BadDataError: There is none, or names are not unique.
        """

    @abstractmethod
    def check_case(self, case: Case) -> CaseInfo:
        """Reads a case completely enough to trust it.

        Raises:
            BadFileError: A file is unusable; the message says why.
        """
