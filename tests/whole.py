"""All parts of a task under one roof, for tests that go through several of them."""

from importlib import import_module
from typing import Any

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.tasks.loading import PACKAGES

PARTS = ("facts", "generation", "source", "preparation", "learning", "prediction", "judging", "pictures", "serving")


class Whole:
    """Finds a method in whichever part has it."""

    def __init__(self, name: TaskName, config: Config) -> None:
        self._parts = [import_module(f"{PACKAGES[name]}.{part}").PART(config) for part in PARTS]

    def __getattr__(self, name: str) -> Any:
        for part in self._parts:
            if hasattr(part, name):
                return getattr(part, name)
        raise AttributeError(name)
