"""Generated raw files in a task's real format."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

from condswin.tasks.loading import Part

Advance = Callable[[], None]


class Generation(Part):
    """Demo data."""

    @abstractmethod
    def count(self) -> int:
        """How often `write` will call `advance`."""

    @abstractmethod
    def write(self, folder: Path, advance: Advance) -> None:
        """Writes generated, seeded files in the real format to `folder` (as a user's source would look)."""
