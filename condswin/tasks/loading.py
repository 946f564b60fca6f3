"""Finds a task's implementation of a part."""

from abc import ABC
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar

from condswin.config.names import PACKAGES, TaskName
from condswin.config.root import Config


class Part(ABC):  # noqa: B024 (its parts have abstract methods)
    """A part of a task. Constructed from the whole validated config; holds no other state."""

    def __init__(self, config: Config) -> None:
        self.config = config


P = TypeVar("P", bound=Part)


def load(kind: type[P], task: TaskName, config: Config) -> P:
    """A task's implementation of a part.

    Args:
        kind: The part, a class of a module in `condswin.tasks`.
        task: Which task.
        config: Parameters.
    """
    part: P = import_module(_module(kind, task)).PART(config)
    return part


def brings(kind: type[Part], task: TaskName) -> bool:
    """Whether a task has an implementation of a part that not every task needs."""
    return find_spec(_module(kind, task)) is not None


def _module(kind: type[Part], task: TaskName) -> str:
    return f"{PACKAGES[task]}.{kind.__module__.rpartition('.')[2]}"
