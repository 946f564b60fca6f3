"""Checkpoints of trainings: a folder for each key, and nothing in them that a move would break."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from condswin.errors import BadFileError
from condswin.files import read_json, write_json
from condswin.validity import Key

#: The key of the training that a folder belongs to.
TRAINING = "training.json"


class MovableCheckpoint(ModelCheckpoint):
    """Lightning's callback with paths relative to its folder.

    Lightning forgets the best score when a training goes on from a folder of another path.
    """

    def state_dict(self) -> dict[str, Any]:
        """State without the folder's path."""
        state: dict[str, Any] = self._replaced(super().state_dict(), f"{self.dirpath}/", "")
        return state | {"dirpath": ""}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes state for the folder as it lies now."""
        state = {name: self._located(value) for name, value in state_dict.items()}
        super().load_state_dict(state | {"dirpath": self.dirpath})

    @staticmethod
    def _replaced(value: Any, old: str, new: str) -> Any:
        if isinstance(value, str):
            return value.replace(old, new)
        if isinstance(value, Mapping):
            replaced = MovableCheckpoint._replaced
            return {replaced(name, old, new): replaced(inner, old, new) for name, inner in value.items()}
        return value

    def _located(self, value: Any) -> Any:
        if isinstance(value, str):
            return f"{self.dirpath}/{value}" if value.endswith(".ckpt") else value
        if isinstance(value, Mapping):
            return {self._located(name): inner for name, inner in value.items()}
        return value


def training_folder(checkpoints: Path, key: Key) -> tuple[Path, list[str]]:
    """The folder for the checkpoints of one training: trainings that differ in anything never share one.

    Args:
        checkpoints: Folder of all trainings of a variant.
        key: What decides the result.

    Returns:
        The folder and, if this training begins although an earlier one is there, what has changed since that.
    """
    folder = checkpoints / key.digest[:16]
    changes: list[str] = []
    if not (folder / TRAINING).is_file():
        earlier = sorted(checkpoints.glob(f"*/{TRAINING}"), key=lambda path: path.stat().st_mtime)
        if earlier:
            try:
                changes = key.changes_since(read_json(earlier[-1]))
            except (BadFileError, AttributeError):
                changes = [f"{earlier[-1]} cannot be read"]
        write_json(folder / TRAINING, key.record())
    return folder, changes
