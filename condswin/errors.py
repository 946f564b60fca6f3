"""Errors that a user can put right: each message names the file or key, the value and what to do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condswin.plain import plain


class CondswinError(Exception):
    """Base of every error that the command line reports as one line instead of a traceback.

    Attributes:
        exit_status: Of a command that ends with it.
    """

    exit_status = 1


class ConfigError(CondswinError):
    """A parameter is unknown, of the wrong type or impossible; the message starts with the key's path."""


class BadFileError(CondswinError):
    """An input file cannot be used.

    Args:
        path: The file.
        reason: What is wrong, with the offending value.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{plain(path)}: {reason}")
        self.path = Path(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type["BadFileError"], tuple[Path, str]]:
        # Process pools rebuild an exception from `args`, which holds the message alone.
        return type(self), (self.path, self.reason)


class BadDataError(CondswinError):
    """A set of files cannot be used together (a report of several bad files, a patient in two splits)."""


class SourceError(BadDataError):
    """A source does not answer as it should; another try may find it well."""


class MachineError(CondswinError):
    """A machine lacks what the parameters ask of it; another may have it."""


class ClusterError(CondswinError):
    """Kubernetes refuses or does not answer, or what it ran failed; another try may find it well."""


class ImageError(CondswinError):
    """A task runs in another image than its pipeline was compiled for."""


class StoppedError(CondswinError):
    """A pipeline cannot go on, whatever is tried again."""


class DriftError(CondswinError):
    """Data differs from what a model was trained on; the data card, which is written, shows how.

    Attributes:
        card: What `card.json` holds.
    """

    exit_status = 3

    def __init__(self, message: str, card: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.card = card


class CheckpointError(CondswinError):
    """A training cannot write its checkpoints, or another one writes to the same folder."""


class DivergedError(CondswinError):
    """A training cannot go on: its loss is not finite, although its data is."""


class PrunedError(CondswinError):
    """A training that a search gives up, since others did better."""


class StudyError(CondswinError):
    """A search cannot go on: its study is another's, or its database does not answer, or all of its trials failed."""


class RankError(CondswinError):
    """A process of several that train together, or load for them, died."""


class GateError(CondswinError):
    """A promotion or roll-back failed in a way that a user must look at (the champion moved meanwhile)."""


class StaleError(CondswinError):
    """What was written for a model names another one than is registered now."""

    exit_status = 3


class OutputError(CondswinError):
    """A folder or file cannot be written without harm, or not at all; nothing was changed."""
