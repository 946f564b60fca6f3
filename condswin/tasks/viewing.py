"""Files of one case as they are, to look at."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple

from condswin.tasks.loading import Part
from condswin.tasks.pictures import CasePanels


class Layer(NamedTuple):
    """A volume of a case.

    Attributes:
        name: What it is.
        nifti: gzipped NIfTI file.
        labels: Name and colour (RGB) by value of a segmentation; nothing of an image.
    """

    name: str
    nifti: bytes
    labels: Mapping[int, tuple[str, tuple[int, int, int]]] = {}


class Volumes(NamedTuple):
    """A case as volumes over each other.

    Attributes:
        layers: The image first, then segmentations.
        window: What is black and what is white, of the image.
        unit: Of the image.
        presets: Windows by name.
    """

    layers: list[Layer]
    window: tuple[float, float]
    unit: str
    presets: Mapping[str, tuple[float, float]]


class Viewing(Part):
    """Shows a case: as slices by several methods, or as volumes over each other."""

    #: Endings of its files.
    suffixes: ClassVar[tuple[str, ...]]
    #: Names of its own pictures, which no method may have.
    own: ClassVar[tuple[str, ...]]

    @abstractmethod
    def takes(self, path: Path) -> bool:
        """Whether a file is one of this task's."""

    @abstractmethod
    def prediction_of(self, path: Path) -> str:
        """The case that a file in a folder of predictions is of; empty if it is no prediction."""

    @abstractmethod
    def scan_name(self, case: str) -> str:
        """File name of a prepared case."""

    @abstractmethod
    def show(
        self, scan: Path | None, reference: Path | None, predictions: Mapping[str, Path]
    ) -> tuple[CasePanels | Volumes, list[str]]:
        """A case, and what was assumed or left out to show it.

        Args:
            scan: The file as it came from the scanner, or prepared.
            reference: The target, if it is not in the scan.
            predictions: Files by method; there is one at least if there is no scan.

        Raises:
            BadFileError: A file is unusable, too large, or of another shape than the others.
        """
