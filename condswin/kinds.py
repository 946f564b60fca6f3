"""What kind of file a file is, by its first bytes: for messages to somebody who gave the wrong one."""

import gzip
import zlib
from pathlib import Path

HDF5 = "an HDF5 file"
NIFTI = "a NIfTI volume"
DICOM = "a DICOM file"

_HDF5 = b"\x89HDF\r\n\x1a\n"
# Where HDF5's signature may stand: MATLAB, for one, has a header of its own before it.
_HDF5_AT = (0, 512, 1024, 2048)
_STARTS = {
    b"MATLAB ": "a MATLAB file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"BM": "a BMP picture",
    b"%PDF": "a PDF file",
    b"\x93NUMPY": "a NumPy array",
    b"NRRD": "an NRRD volume",
    b"ObjectType": "a MetaImage header",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip file",
}


def kind_of(path: Path) -> str:
    """Names the kind of a file; empty if its first bytes are those of no kind known here.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(4096)
    if _is_nifti(_unpacked(path) if head.startswith(b"\x1f\x8b") else head):
        return NIFTI
    found = next((kind for start, kind in _STARTS.items() if head.startswith(start)), "")
    if found:
        return found
    if any(head[at : at + len(_HDF5)] == _HDF5 for at in _HDF5_AT):
        return HDF5
    if head[128:132] == b"DICM":
        return DICOM
    return "a text file" if head and _is_text(head) else ""


def _unpacked(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(544)
    except (OSError, EOFError, zlib.error):
        return b""


def _is_nifti(head: bytes) -> bool:
    size = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    return (348 in size and head[344:347] in (b"n+1", b"ni1")) or (540 in size and head[4:7] in (b"n+2", b"ni2"))


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # The last character may be cut.
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode()
    return all(char.isprintable() or char in "\t\r\n\ufeff" for char in text)
