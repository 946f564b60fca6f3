"""What DVC knows of the working folder's data: checksums in `dvc.lock`, and files in its cache and its remote."""

import time
from pathlib import Path
from typing import Any

from condswin.config.reading import read_yaml
from condswin.errors import ConfigError
from condswin.sources.remote import holds, is_whole, remote_settings

LOCK = Path("dvc.lock")
_ATTEMPTS = 5


def recorded_md5(path: Path | str) -> str | None:
    """MD5 that `dvc.lock` has of a stage's output or dependency; None if it has none, or there is no such file."""
    for attempt in range(_ATTEMPTS):
        try:
            stages = read_yaml(LOCK)["stages"].values() if LOCK.is_file() else []
            entries = [entry for stage in stages for kind in ("outs", "deps") for entry in stage.get(kind, [])]
            return next((str(entry["md5"]) for entry in entries if entry["path"] == str(path) and "md5" in entry), None)
        except (ConfigError, KeyError, TypeError, AttributeError):
            # DVC writes it in place, and another DVC may be doing so.
            time.sleep(0.2 * (attempt + 1))
    return None


def stored(md5: str, remote: str = "") -> tuple[str, str | None]:
    """Where DVC has data, and what is wrong with it.

    Files of the cache are read and compared with their checksums. A remote is asked whether it has them.

    Args:
        md5: Of a file or, ending in `.dir`, of a folder.
        remote: Address of the remote; empty for the project's own.

    Returns:
        The place in words, and an objection or None.
    """
    # Takes a second, and few ask.
    from botocore.exceptions import BotoCoreError, ClientError
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(config=remote_settings(remote) if remote else None) as repo:
            lacking = _not_cached(repo.cache.local, md5)
            if lacking is None:
                return "DVC's cache", None
            try:
                remote = repo.cloud.get_remote_odb()
            except DvcException:
                return "", f"{lacking}, and there is no remote"
            elsewhere = _not_remote(remote, md5)
            return ("DVC's remote", None) if elsewhere is None else ("", f"{lacking}, and {elsewhere} in its remote")
    except (DvcException, BotoCoreError, ClientError, OSError) as error:
        return "", f"DVC cannot be asked ({type(error).__name__})"


def contained(md5: str, name: str) -> bytes | None:
    """A file of a folder that DVC's cache has; None if it has it not.

    Args:
        md5: Of the folder.
        name: Of the file, directly within it.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            cache = repo.cache.local
            oid = _files(cache, md5).get(name)
            path = Path(cache.oid_to_path(oid)) if oid else None
            return path.read_bytes() if path and path.is_file() else None
    except (DvcException, OSError):
        return None


def _not_cached(cache: Any, md5: str) -> str | None:
    """What the cache has not, or not as it was."""
    for oid in [md5, *_files(cache, md5).values()]:
        path = Path(cache.oid_to_path(oid))
        if not is_whole(path, oid.removesuffix(".dir")):
            return f"{oid[:12]}... is {'damaged' if path.is_file() else 'not'} in DVC's cache"
    return None


def _not_remote(remote: Any, md5: str) -> str | None:
    if not holds(remote, md5):
        return f"{md5[:12]}... is not"
    missing = [oid for oid in _files(remote, md5).values() if not holds(remote, oid)]
    return f"{len(missing)} of its files are not" if missing else None


def _files(database: Any, md5: str) -> dict[str, str]:
    """Checksums of a folder's files by their paths; nothing if the database does not know the folder."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    if not md5.endswith(".dir") or not holds(database, md5):
        return {}
    return {"/".join(key): str(info.value) for key, _, info in Tree.load(database, HashInfo("md5", md5))}
