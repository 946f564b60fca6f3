"""Checkpoints of trainings: a folder for each key, in it the last two states, each whole or not there.

A state is named by where it was saved, `epoch-0003-batch-000120.ckpt`: after 120 batches of epoch 3. Beside it lies its
SHA-256, as `sha256sum` writes it.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from condswin.errors import BadFileError, CheckpointError
from condswin.files import PARTIAL, atomic_file, read_json, sha256, write_json
from condswin.training.ranks import a_loader_died
from condswin.validity import Key

#: The key of the training that a folder belongs to.
TRAINING = "training.json"
#: States kept: the newest, and the one before in case the newest is damaged.
KEPT = 2

_NAME = re.compile(r"epoch-(\d+)-batch-(\d+)\.ckpt")


class Position(NamedTuple):
    """How far a training has come; ordered.

    Attributes:
        epoch: The epoch that it is in, from 0.
        batch: Batches of that epoch that are done.
    """

    epoch: int
    batch: int

    @property
    def file_name(self) -> str:
        """Of the state saved there."""
        return f"epoch-{self.epoch:04}-batch-{self.batch:06}.ckpt"


#: Where a training starts.
START = Position(0, 0)


class WholeFiles(CheckpointIO):
    """Reads and writes states for Lightning.

    Lightning's own plugin writes to the system's temporary folder and moves the file from there, which is no rename
    where that is another file system (Lightning-AI/pytorch-lightning#21253).
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes a state and its checksum, flushes both, then removes all but the last two.

        Raises:
            CheckpointError: It cannot be written; the states before are as they were.
        """
        path = Path(path)
        try:
            with atomic_file(path) as temporary:
                # A file of Python's: its errors say what happened, torch's own only that a position is wrong.
                with temporary.open("wb") as file:
                    torch.save(checkpoint, file)
                # First the checksum: a state that has its name is complete.
                with atomic_file(_checksum_file(path)) as text:
                    text.write_text(f"{sha256(temporary)}  {path.name}\n")
            _flush_folder(path.parent)
        except (OSError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and a_loader_died(error):
                raise
            raise CheckpointError(
                f"{path}: this checkpoint cannot be written ({_reason(error)}); make room or mend the disk and start "
                "again: the training goes on from the checkpoint before"
            ) from error
        _keep_last(path.parent)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a state onto the CPU; only tensors and plain values, nothing in it is ever executed."""
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a state and its checksum."""
        _remove(Path(path))


def newest(folder: Path) -> tuple[Position, Path] | None:
    """The newest state that is whole, None if there is none.

    Newer ones that are damaged are named on standard error and set aside as `<name>.damaged`. What a killed process
    left unfinished, or was about to remove, is removed.
    """
    for unfinished in folder.rglob(f"{PARTIAL}*"):
        unfinished.unlink()
    for position, path in _states(folder):
        if (reason := _damage(path)) is None:
            _keep_last(folder)
            return position, path
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        print(f"{path}: damaged ({reason}); set aside as {aside.name}", file=sys.stderr)
    return None


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


def _states(folder: Path) -> list[tuple[Position, Path]]:
    """States of a folder, newest first, whole or not."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("epoch-*.ckpt"))
    return sorted(((Position(int(name[1]), int(name[2])), path) for name, path in found if name), reverse=True)


def _keep_last(folder: Path) -> None:
    """Removes all states but the last, and checksums that have no state."""
    for _, old in _states(folder)[KEPT:]:
        _remove(old)
    for checksum in folder.glob("epoch-*.ckpt.sha256"):
        if not checksum.with_suffix("").exists():
            checksum.unlink()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _checksum_file(path).unlink(missing_ok=True)


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _damage(path: Path) -> str | None:
    """What is wrong with a state."""
    try:
        wanted = _checksum_file(path).read_text()[:64]
    except OSError:
        return f"no {_checksum_file(path).name} beside it"
    return None if sha256(path) == wanted else "its SHA-256 is another"


def _reason(error: BaseException) -> str:
    """What the system said, which may be the reason of torch's error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0]


def _flush_folder(folder: Path) -> None:
    """Makes renames in a folder outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
