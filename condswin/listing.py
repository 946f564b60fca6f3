"""Files below a folder as people keep them: behind links too, and all that is passed over counted by reason."""

import heapq
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from condswin.config.task import IngestConfig
from condswin.errors import BadDataError
from condswin.files import folded
from condswin.outputs import RECORD
from condswin.plain import plain

HIDDEN = "hidden"
LINKED = "linked to what is read already"
IRREGULAR = "neither file nor folder"
UNREADABLE = "not readable"


@dataclass
class Listing:
    """What lies below a folder.

    Attributes:
        source: The folder, absolute.
        files: Files with a wanted suffix, absolute, as they stand below the source; those that the policy takes.
        outside: Such files in folders that the policy does not take.
        skipped: What was passed over, as paths below the source, by reason.
        read: Real paths of the folders that were read.
    """

    source: Path
    files: list[Path] = field(default_factory=list)
    outside: list[Path] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    read: list[Path] = field(default_factory=list)

    def name(self, path: Path) -> str:
        """A path below the source, empty for the source itself."""
        return "/".join(path.relative_to(self.source).parts)

    def skip(self, path: Path, reason: str) -> None:
        """Counts a file or folder as passed over."""
        self.skipped.setdefault(reason, []).append(self.name(path))


def list_files(source: Path, suffixes: Sequence[str], policy: IngestConfig) -> Listing:
    """Lists the files below a folder, linked folders included, that have a suffix, in whatever case.

    A folder or file that several paths lead to is listed once: in a folder that the policy names if there is such a
    path, else where it really lies. If the policy names a folder of training files, and any named folder has files,
    those elsewhere are `outside`. Hidden files and folders are passed over.

    Args:
        source: The folder.
        suffixes: In lower case, with their dots.
        policy: Its `folders` count.

    Raises:
        BadDataError: There is no such folder, some of it cannot be read, or one folder or file is in two splits.
    """
    if not source.is_dir():
        raise BadDataError(f"{source}: no such folder")
    listing = Listing(source.absolute())
    found, unreadable = _walk(listing, tuple(suffixes), policy)
    chosen: dict[tuple[object, str], Path] = {}
    for *_, path in sorted(found):
        name = path.name.lower()
        bare = folded(next(name.removesuffix(suffix) for suffix in suffixes if name.endswith(suffix)))
        # Tools that save space link files of equal content: one file under two names may be of two cases.
        first = chosen.setdefault((identity(path) or path, bare), path)
        if first != path:
            _pass_over(listing, path, first, policy)
    files = sorted(chosen.values())
    inside = [path for path in files if policy.split_of(listing.name(path.parent))]
    closed = "train" in policy.folders and bool(inside)
    listing.files = inside if closed else files
    listing.outside = sorted(set(files) - set(listing.files))
    whole = closed and {policy.split_of(listing.name(path.parent)) for path in inside} == set(policy.folders)
    wrong = {path: why for path, why in unreadable.items() if not whole or policy.split_of(listing.name(path))}
    if wrong:
        listed = "; ".join(f"{plain(listing.name(path)) or '.'}: {why}" for path, why in sorted(wrong.items()))
        raise BadDataError(f"{source}: cannot be read as a whole, repair or remove what is named: {listed}")
    for path in unreadable:
        listing.skip(path, UNREADABLE)
    return listing


def summary(skipped: Mapping[str, Sequence[str]]) -> str:
    """What was passed over, in a line: "12 files: 8 hidden (in a, b), 4 not .h5 (notes.txt, ...)"; empty if nothing."""
    parts = []
    for reason, names in skipped.items():
        if not names:
            continue
        shown = list(names) if len(names) <= 3 else sorted({f"{name.rpartition('/')[0] or '.'}/" for name in names})
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        parts.append(f"{len(names)} {reason} ({', '.join(map(plain, shown[:3]))}{more})")
    count = sum(map(len, skipped.values()))
    return f"{count} {'file' if count == 1 else 'files'}: {', '.join(parts)}" if parts else ""


def _walk(
    listing: Listing, suffixes: tuple[str, ...], policy: IngestConfig
) -> tuple[list[tuple[bool, bool, Path]], dict[Path, str]]:
    """Reads all folders, the best path to each first.

    Returns:
        Files by whether they are in no named folder, whether a link leads to them, and path; and what cannot be read.
    """
    found: list[tuple[bool, bool, Path]] = []
    unreadable: dict[Path, str] = {}
    read: dict[object, Path] = {}
    waiting: list[tuple[bool, bool, Path, tuple[object, ...]]] = [(True, False, listing.source, ())]
    while waiting:
        unnamed, linked, folder, above = heapq.heappop(waiting)
        at = identity(folder)
        first = read.get(at)
        # What was read below no named folder is read again below one, but never below itself.
        if at in above or (first and (unnamed or policy.split_of(listing.name(first)))):
            _pass_over(listing, folder, first or folder, policy)
            continue
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            unreadable[folder] = str(error.strerror)
            continue
        read[at] = folder
        listing.read.append(folder.resolve())
        for entry in entries:
            path, behind = folder / entry.name, linked or entry.is_symlink()
            wanted = entry.name.lower().endswith(suffixes)
            try:
                mode = path.stat().st_mode
            except OSError as error:
                mode, why = 0, f"a link that leads nowhere ({error.strerror})"
            if entry.name == RECORD:
                continue
            if entry.name.startswith("."):
                listing.skip(path, HIDDEN)
            elif stat.S_ISDIR(mode):
                named = policy.split_of(listing.name(path)) is not None
                heapq.heappush(waiting, (not named, behind, path, (*above, at)))
            elif not mode and not wanted:
                unreadable[path] = why
            elif mode and not stat.S_ISREG(mode):
                listing.skip(path, IRREGULAR)
            elif wanted:
                # Checking a case says so if its file is not there.
                found.append((unnamed, behind, path))
            else:
                listing.skip(path, f"not {' or '.join(suffixes)}")
    return found, unreadable


def identity(path: Path) -> object:
    """The same for every path that leads to one file or folder; None if nothing is there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino)


def _pass_over(listing: Listing, path: Path, first: Path, policy: IngestConfig) -> None:
    """Counts another path to what is listed already.

    Raises:
        BadDataError: Both are in named folders, of different splits.
    """
    splits = [policy.split_of(listing.name(one if one.is_dir() else one.parent)) for one in (first, path)]
    if None not in splits and splits[0] != splits[1]:
        raise BadDataError(
            f"{first} and {path}: are the same, and in the folders of two splits; a case may be in one split only"
        )
    listing.skip(path, LINKED)
