"""Checksums of files that are read again only when they changed."""

import os
from functools import cache
from pathlib import Path
from typing import Any

from condswin.errors import BadFileError
from condswin.files import fingerprint, read_json, sha256, write_json

#: Raise it when what is remembered changes.
FORMAT = 1


class Checksums:
    """Remembers checksums in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`), without names.

    A file counts as changed if its size, its times of modification and change (ns) or its inode did. Where nothing can
    be kept, files are read every time.

    Args:
        folder: The folder that the files lie in, at any depth.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._memory = cache_folder() / f"checksums-{fingerprint(str(self._folder.resolve()))[:16]}.json"
        try:
            known = read_json(self._memory)
        except BadFileError:
            known = {}
        self._known: dict[str, Any] = known if isinstance(known, dict) else {}
        self._changed = False

    def sha256(self, path: Path) -> str:
        """Hex SHA-256 of a file's bytes."""
        # Asked before the file is read: a change meanwhile is noticed next time.
        at = path.stat()
        mark = [FORMAT, at.st_size, at.st_mtime_ns, at.st_ctime_ns, at.st_ino]
        name = fingerprint(os.path.relpath(path.absolute(), self._folder))
        entry = self._known.get(name)
        if isinstance(entry, list) and entry[:-1] == mark:
            return str(entry[-1])
        digest = sha256(path)
        self._known[name] = [*mark, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Keeps what is known for later runs."""
        if not self._changed:
            return
        try:
            write_json(self._memory, self._known)
        except OSError:  # a read-only or missing home
            return
        self._changed = False


@cache
def checksums(folder: Path) -> Checksums:
    """The checksums of a folder's files, one memory per process."""
    return Checksums(folder)


def cache_folder() -> Path:
    """Where things are remembered between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "condswin"
