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

    def details(self, folder: Path, outputs: list[str]) -> dict[str, Any]:
        """JSON-able facts about a case's prepared files for the manifest."""
        return {}
