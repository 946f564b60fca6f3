"""What a data card tells of ingested cases."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import matplotlib.figure

from condswin.manifest import CaseRecord
from condswin.tasks.loading import Part

#: A case and its files by role.
Described = tuple[CaseRecord, Mapping[str, Path]]


class DataCard(Part):
    """Describes cases by numbers, facts and pictures; nothing of it identifies a person."""

    #: Numbers of a case whose distributions are compared: by name, what each is, with its unit.
    statistics: ClassVar[Mapping[str, str]]
    #: Facts whose shares are compared.
    compared: ClassVar[tuple[str, ...]]

    @abstractmethod
    def measure(self, case: CaseRecord, files: Mapping[str, Path]) -> dict[str, float]:
        """The statistics of a case, all of them finite.

        Raises:
            BadFileError: A file is unusable.
        """

    @abstractmethod
    def facts(self, case: CaseRecord) -> dict[str, str]:
        """What is counted over cases, by title."""

    @abstractmethod
    def slices(self, case: CaseRecord) -> int:
        """How many a case has."""

    @abstractmethod
    def figures(self, cases: Sequence[Described]) -> dict[str, matplotlib.figure.Figure]:
        """Pictures of a few cases, by caption.

        Raises:
            BadFileError: A file is unusable.
        """
