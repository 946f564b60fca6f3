"""What a task must bring so that every step can run it. A third task is one folder and one line here."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import matplotlib.figure
from torch import Tensor, nn
from torch.utils.data import Dataset

from condswin.config import Config, Split, TaskName

_MODULES: dict[TaskName, str] = {"reconstruction": "condswin.mri.task", "segmentation": "condswin.ct.task"}

Batch = dict[str, Tensor]
Row = dict[str, float | str]
Advance = Callable[[], None]


class Slices(Dataset[Batch], ABC):
    """Slices of one split, each with at least `image` (C, H, W)."""

    @property
    @abstractmethod
    def sizes(self) -> Sequence[tuple[int, ...]]:
        """What must be equal for slices to be in one batch: height and width, and whatever else differs in shape."""

    def __len__(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True)
class Case:
    """One volume of a source folder, before anything is known of its content.

    Attributes:
        name: Unique in the source; names every file made from it (`file1000001`, `volume-12`).
        folder: First folder below the source that holds it, empty for files directly in the source.
        files: Its files by role (`kspace`; `volume` and `segmentation`), absolute paths.
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
    """

    patient: str
    details: Mapping[str, Any]


class Task(ABC):
    """Reconstruction or segmentation. Constructed from the whole validated config; holds no other state."""

    name: ClassVar[TaskName]
    #: Metric columns of a row in display order, first the primary one; and whether a higher value is better.
    metrics: ClassVar[dict[str, bool]]
    #: Further columns of a row that are summarised where rows have them, but not shown in tables of variants.
    details: ClassVar[tuple[str, ...]] = ()
    #: Prefix of the columns of `score` rows that belong to a baseline: "zero-filled" -> "zero_filled_".
    baselines: ClassVar[dict[str, str]]
    #: Metric logged during validation that picks the best epoch, and whether a higher value is better.
    monitor: ClassVar[tuple[str, bool]]

    def __init__(self, config: Config) -> None:
        self.config = config

    # raw -> ingested
    @abstractmethod
    def make_demo(self, folder: Path, advance: Advance) -> None:
        """Writes generated, seeded files in the real format to `folder` (as a user's source would look)."""

    @abstractmethod
    def demo_count(self) -> int:
        """How often `make_demo` will call `advance`."""

    @abstractmethod
    def find_cases(self, source: Path) -> list[Case]:
        """Lists the cases below a source folder, sorted by name; opens no file.

        Raises:
            BadDataError: There is none, or names are not unique.
        """

    @abstractmethod
    def check_case(self, case: Case) -> CaseInfo:
        """Reads a case completely enough to trust it.

        Raises:
            BadFileError: A file is unusable; the message says why.
        """

    # ingested -> prepared
    @abstractmethod
    def prepare_case(self, name: str, files: Mapping[str, Path], split: Split, folder: Path) -> list[str]:
        """Writes the prepared files of one case into `folder`, each atomically; returns their names."""

    def prepared_details(self, files: list[Path]) -> dict[str, Any]:
        """JSON-able facts about a case's prepared files for the manifest."""
        return {}

    # prepared -> model
    @abstractmethod
    def channels(self, variant: str) -> tuple[int, int]:
        """Input and output channels of a network of this variant."""

    @abstractmethod
    def dataset(self, prepared: Path, split: Split, variant: str, *, training: bool) -> Slices:
        """Slices of `prepared/<split>` as a network of this variant takes them."""

    @abstractmethod
    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Scalar training loss of network output (B, C, H, W)."""

    @abstractmethod
    def validation_scores(self, output: Tensor, batch: Batch) -> Batch:
        """Quick scores (B,) of slices, under names that no metric of cases has; NaN is left out of the mean."""

    # model -> predictions -> metrics
    @abstractmethod
    def predict(self, model: nn.Module, case_file: Path, out: Path) -> None:
        """Writes the prediction for one prepared case file to `out` atomically, in the field's format."""

    @abstractmethod
    def predict_raw(self, model: nn.Module, source: Path, folder: Path) -> Path:
        """Writes the prediction for a file as it came from the scanner, with or without target; returns its path."""

    def refusals(self, source: Path) -> list[str]:
        """Why a model trained with these parameters should not be trusted with a raw file; nothing if it may."""
        return []

    @abstractmethod
    def case_files(self, folder: Path) -> dict[str, Path]:
        """Prepared case files of a split folder by case name."""

    @abstractmethod
    def prediction_name(self, case: str) -> str:
        """File name of a case's prediction."""

    @abstractmethod
    def score(self, targets: Path, predictions: Path) -> list[Row]:
        """One row per case found in both folders: `case`, text columns such as `acquisition`, and `metrics` columns.

        Raises:
            BadDataError: A target without prediction, or nothing to score.
        """

    @abstractmethod
    def picture(self, targets: Path, predictions: Path, case: str) -> matplotlib.figure.Figure:
        """Target, baseline where there is one, prediction and error of one telling slice."""


def get_task(name: TaskName, config: Config) -> Task:
    """The implementation of a task."""
    task: Task = import_module(_MODULES[name]).TASK(config)
    return task
