"""A DVC remote as where data is kept and had again, by its MD5, without git and without a DVC project.

The remote has the layout that `dvc push` gives it, so any clone of a project that names it can pull what is put there.
"""

import errno
import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from condswin.errors import BadDataError, SourceError
from condswin.files import atomic_file
from condswin.progress import track
from condswin.sources.keys import SCHEME, places

#: Files that are fetched at the same time.
AT_ONCE = 8
# What is wrong with a disk of this machine.
_HERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def keep(folder: Path, remote: str) -> str:
    """Puts a folder into a remote; files that are there already are not sent.

    Args:
        folder: Everything in it counts.
        remote: `s3://bucket/prefix`, or a folder.

    Returns:
        The MD5 that `dvc.lock` has of the same folder, which ends in `.dir`.

    Raises:
        SourceError: The remote refuses, or cannot be reached.
    """
    # Takes a second, and few ask.
    from dvc.fs import LocalFileSystem
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.transfer import transfer

    with _opened(remote, "cluster.dvc_remote") as repo:
        staged, _, built = build(repo.cache.local, os.fspath(folder.absolute()), LocalFileSystem(), "md5")
        done = transfer(staged, repo.cloud.get_remote_odb(), {built.hash_info}, shallow=False)
        if done.failed:
            raise SourceError(f"{remote}: {len(done.failed)} files cannot be written; check the keys and the room")
        return str(built.hash_info.value)


def fetch(source: str, folder: Path) -> None:
    """Brings a folder here out of a remote; files that are here whole are not fetched again.

    Args:
        source: Address of the remote and MD5 of the folder; see `condswin.sources.keys.SCHEME`.
        folder: Where to; an interrupted fetch goes on in the same place.

    Raises:
        BadDataError: The address is none, or the remote has no such data, or other data under its name.
        SourceError: The remote refuses, or cannot be reached.
    """
    remote, md5 = address(source)
    with _opened(remote, "the task's source") as repo:
        database = repo.cloud.get_remote_odb()
        if not holds(database, md5):
            raise BadDataError(f"{source}: the remote has no such data; check the MD5, and push it there")
        files = _listed(database, md5)
        if files is None:
            raise BadDataError(f"{source}: its list of files was altered in the remote; push the data anew")
        targets = places(folder, source, files)

        def bring(key: str) -> None:
            if not is_whole(targets[key], files[key]):
                with atomic_file(targets[key]) as partial:
                    database.fs.get_file(database.oid_to_path(files[key]), os.fspath(partial))
                    if not is_whole(partial, files[key]):
                        raise SourceError(f"{source}: {key} comes with another MD5 than is listed; push the data anew")

        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in track(pool.map(bring, files), f"fetch {remote}", total=len(files)):
                pass


def holds(database: Any, md5: str) -> bool:
    """Whether a remote or a cache has something; an error if it cannot be asked, which `exists` takes for no."""
    try:
        database.fs.info(database.oid_to_path(md5))
    except FileNotFoundError:
        return False
    return True


def _listed(database: Any, md5: str) -> dict[str, str] | None:
    """MD5s of a folder's files by their paths; None if the list is not the one of its name."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import ObjectFormatError, Tree

    try:
        tree = Tree.load(database, HashInfo("md5", md5))
        tree.digest()
    except (ObjectFormatError, KeyError, TypeError, AttributeError):
        return None
    files = {"/".join(key): str(info.value or "") for key, _, info in tree}
    return files if tree.hash_info.value == md5 and all(files.values()) else None


def is_whole(path: Path, md5: str) -> bool:
    """Whether a file is there and has this MD5."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5


def address(source: str) -> tuple[str, str]:
    """The remote of a source, and the MD5 of the folder in it.

    Raises:
        BadDataError: It has none.
    """
    remote, _, md5 = source.removeprefix(SCHEME).rpartition("/")
    if not remote or not md5.endswith(".dir") or len(md5) != 36 or set(md5[:32]) - set("0123456789abcdef"):
        raise BadDataError(
            f"{source}: no version of data; write dvc+s3://bucket/prefix/MD5.dir, as `dvc.lock` has the MD5"
        )
    return remote, md5


def remote_settings(remote: str) -> dict[str, Any]:
    """DVC's configuration with a remote as the default one; keys come from the environment, as the endpoint does."""
    settings = {"url": remote}
    if remote.startswith("s3://") and (endpoint := os.environ.get("AWS_ENDPOINT_URL")):
        settings["endpointurl"] = endpoint
    return {"core": {"remote": "cluster"}, "remote": {"cluster": settings}}


@contextmanager
def _opened(remote: str, key: str) -> Iterator[Any]:
    """An empty DVC project whose only remote is the one that a key names; what DVC raises becomes one line of ours."""
    from botocore.exceptions import BotoCoreError, ClientError
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    log = logging.getLogger("dvc")
    level = log.level
    log.setLevel(logging.CRITICAL)  # its messages name files
    try:
        with tempfile.TemporaryDirectory(prefix="condswin-dvc-") as scratch:
            Repo.init(scratch, no_scm=True, force=True).close()
            with Repo(scratch, config=remote_settings(remote)) as repo:
                yield repo
    except (DvcException, BotoCoreError, ClientError, OSError) as error:
        if getattr(error, "errno", None) in _HERE:
            raise
        raise SourceError(f"{remote}: {_reason(error)}; check {key}, AWS_ENDPOINT_URL and the keys") from None
    finally:
        log.setLevel(level)


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "the keys are wrong, or may not do this"
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket or folder"
    return f"DVC ends in {type(error).__name__}"
