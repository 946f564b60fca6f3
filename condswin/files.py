"""Files that are whole or absent: atomic writes, checksums, JSON."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unicodedata import normalize

from condswin.errors import BadFileError

MANIFEST = "manifest.json"
#: How names of files that are being written begin.
PARTIAL = ".partial-"
# Of a name, in that of its temporary file: with more, names near the limit of file systems would be too long.
_KEPT = 40
#: Asked once, since asking sets it for a moment: threads that did so at once could leave the process with 0.
UMASK = os.umask(0)
os.umask(UMASK)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that becomes `path` if the block succeeds and vanishes if it fails.

    The temporary name keeps the suffixes of `path`, since nibabel and h5py choose formats by them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL, suffix=f"-{path.name[-_KEPT:]}")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~UMASK)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def folded(name: str) -> str:
    """The same for names that some file systems do not tell apart, for their case or the form of their accents."""
    return normalize("NFC", name).casefold()


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Hex SHA-256 of a JSON-able value in canonical form; equal values give equal fingerprints."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, sorted and indented so that versions diff well; refuses NaN, which is not JSON."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        BadFileError: The file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise BadFileError(path, "no such file; run the step that writes it first") from None
    except (ValueError, OSError, RecursionError) as error:
        raise BadFileError(path, f"not readable as JSON ({error})") from None


def copy_with_sha256(source: Path, target: Path) -> str:
    """Copies a file atomically and returns the SHA-256 of the bytes written."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, atomic_file(target) as temporary, temporary.open("wb") as writer:
        while chunk := reader.read(1 << 22):
            digest.update(chunk)
            writer.write(chunk)
    return digest.hexdigest()
