"""Folders and files that commands write: opened so that nothing of anybody else's is lost.

A folder that a step writes holds a record of what it wrote. A step replaces and removes files of that record only.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from condswin.checksums import checksums
from condswin.errors import BadFileError, OutputError
from condswin.files import folded, read_json, write_json
from condswin.progress import say

#: The record, in the folder that it describes.
RECORD = ".condswin.json"
#: Raise it when the record changes, so that older folders count as nobody's.
FORMAT = 1
#: Key of a JSON file that says which step wrote it.
WRITTEN_BY = "written_by"
#: Among the facts of a file: somebody else's, claimed to be replaced.
THEIRS = "theirs"
# Bytes of a file's name, the limit of all common file systems.
_NAME_MAX = 255
#: What an HTML page of ours has in its head.
GENERATOR = 'name="generator" content="condswin"'


@dataclass
class Output:
    """A folder that a step may write.

    Attributes:
        folder: The folder, which may not be there yet.
        step: The step.
        record: What was recorded of it before; empty if nothing.
        overwrite: Files of the same names that are not ours are replaced.
        shared: Runs add to each other's files, several at once too: none removes another's, or what was edited since.
    """

    folder: Path
    step: str
    inputs: list[Path]
    record: dict[str, Any] = field(default_factory=dict)
    overwrite: bool = False
    shared: bool = False

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """The recorded files by path within the folder."""
        files: dict[str, dict[str, Any]] = self.record.get("files", {})
        return files

    def is_current(self, key: Mapping[str, Any]) -> bool:
        """Whether the folder holds the whole result of a key, unchanged since it was written."""
        if self.record.get("complete") is not True or self.record.get("key") != key:
            return False
        whole = all(self._is_whole(path) for path in self.files)
        checksums(self.folder).save()
        return whole

    def claim(self, names: Iterable[str]) -> None:
        """Makes the folder and records files before they are written: those of a run that was killed are then ours.

        Args:
            names: Paths within the folder.

        Raises:
            OutputError: One of them is there and not ours, or is an input, or the folder cannot be made.
        """
        with self._locked():
            self._claim(sorted(set(names)))

    def _claim(self, wanted: list[str]) -> None:
        taken = []
        for name in wanted:
            target = self.folder / name
            if (size := len(os.fsencode(target.name))) > _NAME_MAX:
                raise OutputError(f"{target}: a name of {size} bytes, {_NAME_MAX} are possible; rename the input")
            if any(_same(target, path) for path in self.inputs):
                raise OutputError(f"{target}: is an input and would be written over; give another folder")
            if target.is_dir() and not target.is_symlink():
                raise OutputError(f"{target}: is a folder, a file of this name is to be written; give another folder")
            if os.path.lexists(target) and not self._is_ours(name):
                taken.append(name)
        if taken and not self.overwrite:
            raise OutputError(
                f"{self.folder}: {_listed(taken)} {'is' if len(taken) == 1 else 'are'} there and not what "
                f"condswin {self.step} wrote; give another folder, or --overwrite to replace such files"
            )
        self._make()
        if not self.shared:
            for name in sorted(set(self.files) - set(wanted)):
                self.remove(name)
        # What is replaced counts as somebody else's until it is: only `finish` knows that.
        files = {**self.files, **{name: {THEIRS: True} if name in taken else {} for name in wanted}}
        self._write({"files": files, "complete": False})

    def _is_ours(self, name: str) -> bool:
        """Whether a file that is there is recorded and, in a shared folder, still what was written."""
        facts = self.files.get(name)
        if facts is None or THEIRS in facts:
            return False
        return not (self.shared and facts) or self._is_whole(name)

    def finish(self, names: Iterable[str], key: Mapping[str, Any] | None = None) -> None:
        """Records a result that is whole, and removes what an earlier one had beside it.

        Args:
            names: Paths within the folder of all that belongs to the result.
            key: What decided it, for `is_current`.
        """
        with self._locked():
            self._finish(names, key)

    def _finish(self, names: Iterable[str], key: Mapping[str, Any] | None) -> None:
        known = checksums(self.folder)
        recorded = dict(self.files) if self.shared else {}
        for name in sorted(set(names)):
            path = self.folder / name
            if path.is_file():
                recorded[name] = {"bytes": path.stat().st_size, "sha256": known.sha256(path)}
        for name in sorted(set(self.files) - set(recorded)):
            self.remove(name)
        known.save()
        self._write({"files": recorded, "complete": True, "key": key})

    def _is_whole(self, name: str) -> bool:
        path, facts = self.folder / name, self.files[name]
        if not path.is_file() or path.stat().st_size != facts.get("bytes"):
            return False
        return checksums(self.folder).sha256(path) == facts.get("sha256")

    def remove(self, name: str) -> None:
        """Removes a recorded file, if it still is what was recorded, and folders that are empty then."""
        relative = PurePosixPath(name)
        path = self.folder / relative
        if relative.is_absolute() or ".." in relative.parts or path.is_symlink() or not path.is_file():
            return
        facts = self.files[name]
        # A file that was claimed and never recorded as whole is a run's that was killed.
        if THEIRS in facts or (facts and not self._is_whole(name)):
            return
        path.unlink()
        for parent in path.parents:
            if parent == self.folder or any(parent.iterdir()):
                return
            parent.rmdir()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """In a shared folder, what others recorded meanwhile is read first, and nobody writes until this is done."""
        if not self.shared:
            yield
            return
        self._make()
        with FileLock(self.folder / f"{RECORD}.lock"):
            self.record = _read_record(self.folder)
            yield

    def _make(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be made ({error.strerror}); give another folder") from None

    def _write(self, values: dict[str, Any]) -> None:
        self.record = {"format": FORMAT, WRITTEN_BY: f"condswin {self.step}", **values}
        write_json(self.folder / RECORD, self.record)


def open_output(
    folder: Path, *, step: str, inputs: Iterable[Path], overwrite: bool = False, shared: bool = False
) -> Output:
    """Opens a folder for a step's files. Nothing is written before the first `claim`.

    Args:
        folder: The folder.
        step: Name of the command.
        inputs: Files and folders that are read.
        overwrite: Take a folder that holds other files too, and replace those of the same names.
        shared: Results of several runs gather there.

    Raises:
        OutputError: Writing there would hurt something, or is not possible; nothing was changed.
    """
    inputs = list(inputs)
    check_output(folder, step=step, inputs=inputs, overwrite=overwrite)
    return Output(folder, step, inputs, _read_record(folder), overwrite, shared)


def checksums_by(step: str, folder: Path) -> set[str]:
    """Checksums of the files that a step wrote to a folder or to one above it."""
    records = map(_read_record, (folder, *folder.absolute().parents))
    ours = [record["files"] for record in records if record.get(WRITTEN_BY) == f"condswin {step}"]
    return {str(facts["sha256"]) for files in ours for facts in files.values() if "sha256" in facts}


def check_output(folder: Path, *, step: str, inputs: Iterable[Path], overwrite: bool = False) -> None:
    """Refuses a folder that a step cannot or should not write; changes nothing. Quick, to be asked before any work.

    Raises:
        OutputError: See `open_output`.
    """
    _require_writable(folder)
    place = folder.resolve()
    for path in inputs:
        source = path.resolve()
        if source == place or place in source.parents:
            holds = "is the input" if source == place else f"holds the input {path}"
            raise OutputError(f"{folder}: {holds}, which must stay as it is; give another folder")
    if not folder.is_dir():
        return
    record = _read_record(folder)
    writer = record.get(WRITTEN_BY)
    if writer is not None and writer != f"condswin {step}":
        raise OutputError(f"{folder}: holds what {writer} wrote; give another folder")
    # Hidden files are those of file systems, desktops and git.
    held = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if writer is None and held and not overwrite:
        raise OutputError(
            f"{folder}: holds {_listed(held)}, not written by condswin {step}; "
            "give a new or empty folder, or --overwrite to write beside them and replace files of the same names"
        )


def check_file(path: Path, *, inputs: Iterable[Path] = (), overwrite: bool = False) -> None:
    """Refuses a file that a step cannot or should not write: an input, a folder, or a file that is not ours.

    Raises:
        OutputError: See above; nothing was changed.
    """
    if any(_same(path, other) for other in inputs):
        raise OutputError(f"{path}: is an input and would be written over; give another file")
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; give a file")
    _require_writable(path.parent)
    if path.exists() and not overwrite and not _is_ours(path):
        raise OutputError(f"{path}: is there and not written by condswin; give another file, or --overwrite")


def write_result(path: Path, step: str, values: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Writes a step's result as JSON that says who wrote it, atomically.

    Raises:
        OutputError: The file is there and not ours.
    """
    check_file(path, overwrite=overwrite)
    write_json(path, {WRITTEN_BY: f"condswin {step}", **values})


def remove_output(path: Path) -> bool:
    """Removes what a step wrote: a folder's recorded files, or a file of ours. What anybody else made stays.

    Returns:
        Whether nothing is left at the path.
    """
    record = _read_record(path)
    if record:
        output = Output(path, str(record.get(WRITTEN_BY)), [], record)
        for name in output.files:
            output.remove(name)
        (path / RECORD).unlink()
        # Large folders are often links to another disk.
        if not any(path.iterdir()) and not path.is_symlink():
            path.rmdir()
    elif path.is_file() and _is_ours(path):
        path.unlink()
    return not path.exists()


def require_space(folder: Path, needed: int, step: str, advice: str) -> None:
    """Says how much a step will write, and refuses what does not fit; nothing is said or refused where that is nothing.

    Args:
        folder: Where it will write.
        needed: Bytes that it will add to what is there.
        step: What for, in words.
        advice: What to do if they do not fit.

    Raises:
        OutputError: They do not.
    """
    if not needed:
        return
    place = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    total, _, free = shutil.disk_usage(place)
    if needed > free and total:  # some network file systems tell nothing
        raise OutputError(f"{folder}: {step} needs {_size(needed)}, {_size(free)} are free there; {advice}")
    say(f"{step}: {_size(needed)} to write, {_size(free)} free")


def refuse_equal(outputs: Mapping[Path, Iterable[str]]) -> None:
    """Refuses inputs that would write one output, on any file system: names that differ in case are equal on some.

    Args:
        outputs: Names of the files to write, by input.

    Raises:
        OutputError: Names the inputs and the output.
    """
    writers: dict[str, Path] = {}
    for source, names in outputs.items():
        for name in names:
            other = writers.setdefault(folded(name), source)
            if other != source:
                raise OutputError(f"{other} and {source}: both would be written to {name}; run them into two folders")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _require_writable(folder: Path) -> None:
    """Raises unless a folder is there and can be written, or can be made."""
    for place in (folder, *folder.absolute().parents):
        if place.is_dir():
            if not os.access(place, os.W_OK | os.X_OK):
                raise OutputError(f"{folder}: no permission to write in {place}; give another folder")
            return
        if os.path.lexists(place):
            raise OutputError(f"{folder}: {place} is a file, a folder is needed; give another name")


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = read_json(folder / RECORD)
    except BadFileError:
        return {}
    files = record.get("files") if isinstance(record, dict) and record.get("format") == FORMAT else None
    return record if isinstance(files, dict) and all(isinstance(facts, dict) for facts in files.values()) else {}


def _is_ours(path: Path) -> bool:
    if path.suffix == ".html":
        with path.open("rb") as file:
            return GENERATOR.encode() in file.read(4096)
    try:
        values = read_json(path)
    except BadFileError:
        return False
    return isinstance(values, dict) and str(values.get(WRITTEN_BY, "")).startswith("condswin ")


def _same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
