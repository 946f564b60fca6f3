"""What sources are called, and keys of objects, which anybody may have chosen, as places in a folder."""

from collections.abc import Iterable
from pathlib import Path

from condswin.errors import BadDataError
from condswin.files import folded

#: Bytes of one name. File systems take 255, and names of files that are not whole yet are longer than the final ones.
LONGEST = 200
#: How versions in a DVC remote begin: `dvc+s3://bucket/prefix/MD5.dir`, `dvc+/folder/MD5.dir`.
SCHEME = "dvc+"


def is_fetched(source: str) -> bool:
    """Whether a source's files are brought here first; else it is a folder."""
    return source.startswith(("s3://", SCHEME))


def places(folder: Path, source: str, keys: Iterable[str]) -> dict[str, Path]:
    """Where objects go, by their keys below the prefix.

    Raises:
        BadDataError: A key cannot be a file's name on every system, or two keys would be one file.
    """
    result: dict[str, Path] = {}
    # macOS and Windows take names for equal that differ in case or in how accents are written.
    files: dict[str, str] = {}
    parents: dict[str, str] = {}
    for key in keys:
        result[key] = place(folder, source, key)
        same = folded(key)
        parts = same.split("/")
        within = {"/".join(parts[:length]) for length in range(1, len(parts))}
        other = files.setdefault(same, key)
        if other != key:
            raise BadDataError(f"{source}: {other!r} and {key!r} are one file where case does not count; rename one")
        parents.update(dict.fromkeys(within, key))
        clash = next((files[name] for name in sorted(within) if name in files), None)
        if clash is not None or same in parents:
            file, below = (clash, key) if clash is not None else (key, parents[same])
            raise BadDataError(f"{source}: {file!r} would be a file, and a folder for {below!r}; rename one")
    return result


def place(folder: Path, source: str, key: str) -> Path:
    """Where an object goes in a folder, by its key below the prefix.

    Raises:
        BadDataError: The key would lead out of the folder, or cannot be a file's name.
    """
    parts = key.split("/")
    reason = None
    if ".." in parts or key.startswith("/"):
        reason = "this object's key would lead out of the folder"
    elif "" in parts or "." in parts:
        reason = "a part of this object's key is empty or a dot"
    elif not key.isprintable():
        reason = "this object's key holds characters that cannot be printed"
    elif longest := max((part for part in parts if len(part.encode()) > LONGEST), key=len, default=""):
        reason = f"a name in this object's key has {len(longest.encode())} bytes, {LONGEST} are the most"
    if reason:
        shown = key if key.isprintable() else repr(key)
        raise BadDataError(f"{source}/{shown}: {reason}; rename it")
    return folder.joinpath(*parts)
