"""From ingested files to what networks train on and are scored with."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condswin.config.names import Split
from condswin.tasks.loading import Part


class Preparation(Part):
    """Undersampling, or windowing and resampling."""

    @abstractmethod
    def outputs(self, name: str, files: Mapping[str, Path], split: Split) -> list[str]:
        """Names of the files that `prepare_case` will write."""

    @abstractmethod
    def prepare_case(self, name: str, files: Mapping[str, Path], split: Split, folder: Path) -> None:
        """Writes the prepared files of one case into `folder`, each atomically."""

    def size(self, files: Mapping[str, Path], split: Split, details: Mapping[str, Any]) -> int:
        """About how many bytes `prepare_case` will write; as many as it reads, unless a task knows better.

        Args:
            files: By role.
            split: Where the case belongs.
            details: Those that checking it found.
        """
        return sum(path.stat().st_size for path in files.values())

    def details(self, folder: Path, outputs: list[str]) -> dict[str, Any]:
        """JSON-able facts about a case's prepared files for the manifest."""
        return {}
