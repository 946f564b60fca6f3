"""A source as a local folder."""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from condswin.checksums import checksums
from condswin.errors import BadDataError
from condswin.files import copy_with_sha256, fingerprint, sha256
from condswin.progress import track
from condswin.sources.contents import SIZE, Listed
from condswin.sources.keys import SCHEME, is_fetched, places
from condswin.sources.remote import address, fetch
from condswin.sources.s3 import Prefix


@dataclass(frozen=True)
class Origin:
    """The object that a file was fetched from.

    Attributes:
        url: `s3://bucket/key`.
        etag: Its ETag, without quotation marks.
        compared_by: What its content was compared by (`condswin.sources.contents.compared_by`).
    """

    url: str
    etag: str
    compared_by: str


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched earlier.

    Attributes:
        path: The file.
        sha256: Of its bytes when they were compared with the object.
        origin: Its object.
    """

    path: Path
    sha256: str
    origin: Origin


class LocalSource(NamedTuple):
    """A source's files.

    Attributes:
        folder: Where they are.
        origins: Objects that they were fetched from, by file; empty for a folder.
    """

    folder: Path
    origins: Mapping[Path, Origin]


@contextmanager
def local_source(
    source: str, scratch: Path, *, earlier: Iterable[Fetched] = (), accept_unchecked: bool = False
) -> Iterator[LocalSource]:
    """Yields a folder with the source's files; what is elsewhere is downloaded beside `scratch` while the block runs.

    Objects that are here already are not fetched: from an interrupted download, or among `earlier`. They are read
    whole and compared with their SHA-256; their objects' ETags must be those that are listed. Files of objects that
    are not listed go.

    Args:
        source: Folder, `s3://` prefix, or version in a DVC remote (`condswin.sources.remote`).
        scratch: Path that names the folder for downloads, which is removed when the block succeeds.
        earlier: Files of the same objects that lie elsewhere and stay as they are.
        accept_unchecked: Take objects of which size alone can be compared.

    Raises:
        BadDataError: The folder does not exist, or S3 refuses, lies, or holds nothing under the prefix.
    """
    if not is_fetched(source):
        yield LocalSource(_existing(source), {})
        return
    # Of this source alone: an interrupted download of another one is not mixed in.
    folder = scratch.with_name(f"{scratch.name}-{fingerprint(source)[:8]}")
    if source.startswith(SCHEME):
        fetch(source, folder)
        yield LocalSource(folder, {})
        shutil.rmtree(folder)
        return
    download = _Download(Prefix(source), folder, accept_unchecked)
    yield LocalSource(download.files, download.run(list(earlier)))
    shutil.rmtree(folder)


def source_version(source: str) -> str:
    """A checksum that changes when files of a source do; they are listed, not read.

    Of objects it is made of keys, sizes and ETags; of files, of paths, sizes and times of modification. Of a version in
    a DVC remote it is the MD5 that the source names.

    Raises:
        BadDataError: As `local_source` raises it.
    """
    if source.startswith(SCHEME):
        return address(source)[1]
    if source.startswith("s3://"):
        return fingerprint(sorted([key, one.size, one.etag] for key, one in Prefix(source).objects().items()))[:16]
    folder = _existing(source)
    walked = [Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names]
    stats = [(path, path.stat()) for path in walked if path.is_file()]
    return fingerprint(sorted([str(path.relative_to(folder)), at.st_size, at.st_mtime_ns] for path, at in stats))[:16]


def _existing(source: str) -> Path:
    if "://" in source:
        # Not all of it: it may be signed.
        scheme = source.partition("://")[0]
        raise BadDataError(f"{scheme}://: sources are folders, s3:// prefixes and dvc+s3://...; set `source`")
    folder = Path(source)
    if not folder.is_dir():
        raise BadDataError(f"{source}: no such folder; set `source` in the parameters to a folder or an s3:// prefix")
    return folder


class _Download:
    """Files of a prefix in a folder, with a line for each that is whole in a record beside them."""

    def __init__(self, prefix: Prefix, folder: Path, accept_unchecked: bool) -> None:
        self._prefix, self._accept_unchecked = prefix, accept_unchecked
        self.files, self._record = folder / "files", folder / "objects.jsonl"

    def run(self, earlier: list[Fetched]) -> dict[Path, Origin]:
        objects = self._prefix.objects()
        targets = places(self.files, self._prefix.source, objects)
        self._remove_all_but(set(targets.values()))
        urls = {self._prefix.url(listed.key) for listed in objects.values()}
        self._tell_withdrawn([copy.origin.url for copy in earlier if copy.origin.url not in urls])
        here: dict[str, list[Fetched]] = {}
        for copy in [*self._recorded(), *earlier]:
            here.setdefault(copy.origin.url, []).append(copy)
        origins: dict[Path, Origin] = {}
        missing: dict[Path, Listed] = {}
        for key, listed in track(objects.items(), f"compare {self._prefix.source}", total=len(objects)):
            copies = here.get(self._prefix.url(listed.key), [])
            whole = next((copy for copy in copies if self._is_whole(copy, listed)), None)
            if whole is None:
                missing[targets[key]] = listed
                continue
            origins[targets[key]] = whole.origin
            if whole.path != targets[key]:
                _link(whole.path, targets[key])
                self._write(Fetched(targets[key], whole.sha256, whole.origin))
        self._require_room(missing.values())
        for target, listed in track(missing.items(), f"fetch {self._prefix.source}", total=len(missing)):
            origins[target] = self._fetch(listed, target)
        return origins

    def _fetch(self, listed: Listed, target: Path) -> Origin:
        origin = Origin(self._prefix.url(listed.key), listed.etag, self._prefix.fetch(listed, target))
        if origin.compared_by == SIZE and not self._accept_unchecked:
            target.unlink()
            raise BadDataError(
                f"{origin.url}: the server tells no checksum of this object that can be compared; upload it with a "
                "SHA-256, or set ingest.unchecked_objects to accept to go by its size"
            )
        # Remembered, since whoever reads the folder asks for it next.
        self._write(Fetched(target, checksums(self.files).sha256(target), origin))
        return origin

    def _is_whole(self, copy: Fetched, listed: Listed) -> bool:
        return (
            copy.origin.etag == listed.etag != ""
            and (self._accept_unchecked or copy.origin.compared_by != SIZE)
            and copy.path.is_file()
            and copy.path.stat().st_size == listed.size
            and sha256(copy.path) == copy.sha256
        )

    def _recorded(self) -> list[Fetched]:
        """What the record tells; a line that is not whole tells nothing."""
        result = []
        for line in self._record.read_text().splitlines() if self._record.is_file() else []:
            try:
                values = json.loads(line)
                origin = Origin(**values["origin"])
                result.append(Fetched(self.files / values["path"], values["sha256"], origin))
            except (ValueError, TypeError, KeyError):
                continue
        return result

    def _write(self, copy: Fetched) -> None:
        values = {**asdict(copy), "path": str(copy.path.relative_to(self.files))}
        with self._record.open("a") as file:
            file.write(f"{json.dumps(values)}\n")

    def _remove_all_but(self, wanted: set[Path]) -> None:
        # In reverse, so that folders come after what is in them.
        for path in sorted(self.files.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path not in wanted:
                path.unlink()

    def _tell_withdrawn(self, urls: list[str]) -> None:
        urls = sorted(url for url in urls if url.startswith(f"{self._prefix.source}/"))
        if urls:
            more = f" and {len(urls) - 3} more" if len(urls) > 3 else ""
            print(
                f"{', '.join(urls[:3])}{more}: ingested before and not listed any more; leaves the dataset",
                file=sys.stderr,
            )

    def _require_room(self, missing: Iterable[Listed]) -> None:
        needed = sum(listed.size for listed in missing)
        self.files.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.files).free
        if needed > free:
            raise BadDataError(
                f"{self._prefix.source}: {needed / 1e9:.1f} GB are to be fetched and {free / 1e9:.1f} GB are free in "
                f"{self.files}; make room, or set the result's folder to another disk"
            )


def _link(path: Path, target: Path) -> None:
    """Gives a file a second name, without its bytes where the file system can. Neither is ever written in place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(path, target)
    except OSError:
        copy_with_sha256(path, target)
