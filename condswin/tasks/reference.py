"""The method without a network that networks have to beat."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from condswin.tasks.loading import Part


class Reference(Part):
    """Chooses its few settings on validation cases and predicts as networks do; `Facts.reference_method` names it."""

    #: Validation cases that choose the settings.
    tuning_cases: int = 12

    @abstractmethod
    def tune(self, cases: Sequence[Path]) -> dict[str, Any]:
        """What `predict` takes for settings, chosen on prepared cases with targets, and why; JSON-able."""

    @abstractmethod
    def predict(self, case_file: Path, out: Path, settings: dict[str, Any]) -> None:
        """Writes the prediction for one prepared case file to `out` atomically, in the field's format."""
