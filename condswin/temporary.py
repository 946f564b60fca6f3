"""A temporary folder that its user's sudden end does not leave behind for good."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

#: In a folder: locked while its owner lives, which the kernel knows however the owner ends.
_LOCK = "lock"


class Owned(NamedTuple):
    """A temporary folder, and the right to it.

    Attributes:
        path: The folder.
        lock: Open file. A process that inherits it owns the folder as well.
    """

    path: Path
    lock: int


@contextmanager
def owned_folder(prefix: str) -> Iterator[Owned]:
    """Yields a new temporary folder, and removes it, and those of the same prefix whose owners were killed.

    Args:
        prefix: Begins the folder's name; nobody else's folders begin so.
    """
    _remove_left(prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        # It gets its name once it is locked: nobody finds one that seems to be left.
        lock = os.open(folder / "new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "new").rename(folder / _LOCK)
            yield Owned(folder, lock)
        finally:
            os.close(lock)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_left(prefix: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            if folder.lstat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # it goes away, or is none of these
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)  # which follows no link
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
