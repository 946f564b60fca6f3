"""Predictions of files as they came from the scanner."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import nn

from condswin.errors import BadDataError
from condswin.tasks.loading import Part


@dataclass(frozen=True)
class Origin:
    """What is known of a network, beside what its parameters say.

    Attributes:
        attributes: What a prediction says of who made it: `model`, `weights_sha256`, `software`.
        seen: What the cases were like that it was trained on, as `Learning.seen` told; empty if that is not known.
    """

    attributes: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, Any] = field(default_factory=dict)


class Predicted(NamedTuple):
    """What a prediction left.

    Attributes:
        path: The file.
        notes: What was assumed or changed on the way, a sentence each.
    """

    path: Path
    notes: list[str]


class Serving(Part):
    """Uses a trained network on users' files."""

    #: What a model is for, and the files that it takes, for messages.
    subject: ClassVar[str] = ""
    takes: ClassVar[str] = "its files"
    #: Endings of these files' names, in lower case; empty for any.
    suffixes: ClassVar[tuple[str, ...]] = ()
    #: What `kinds.kind_of` says of them; empty for anything.
    kind: ClassVar[str] = ""
    #: What `write_form` can write, by the ending of the file's name.
    forms: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def output_names(self, source: Path) -> list[str]:
        """Names of all files that `predict_raw` may write for a file, the prediction first."""

    @abstractmethod
    def predict_raw(self, model: nn.Module, source: Path, folder: Path, origin: Origin) -> Predicted:
        """Writes the prediction for a file as it came from the scanner, with or without target."""

    def refusals(self, source: Path, seen: Mapping[str, Any]) -> list[str]:
        """Why a model trained with these parameters on such cases should not be trusted with a raw file."""
        return []

    def together(self, networks: Sequence[nn.Module]) -> nn.Module:
        """One network whose prediction is the mean of several' on inputs that are prepared alike.

        Raises:
            BadDataError: The task has no mean of predictions.
        """
        raise BadDataError(
            f"several models: predictions of networks for {self.subject or 'this task'} are not averaged"
        )

    def passed_over(self, source: Path) -> str:
        """Why a file of a folder is no input though its name ends like one; empty if it is."""
        return ""

    def write_form(self, form: str, source: Path, prediction: Path, out: Path) -> list[str]:
        """Writes a prediction in one of `forms`, atomically; returns notes as in `Predicted`."""
        raise NotImplementedError(form)

    def disagreement(self, first: Path, second: Path) -> dict[str, float]:
        """How far two networks' predictions of one file are from each other, by measure; NaN where that is undefined.

        Raises:
            BadDataError: The task has no measure.
        """
        raise BadDataError(f"shadow: no measure says how far predictions for {self.subject or 'this task'} differ")
