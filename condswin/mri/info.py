"""What a file of a scanner says of itself, and whether it can be trusted."""

from typing import Literal, NamedTuple

from condswin.errors import BadFileError
from condswin.mri.extent import Extent, contradictions
from condswin.mri.header import Header
from condswin.mri.prepared import image_size, read_sampling
from condswin.mri.reading import (
    KSPACE,
    MASK,
    TARGETS,
    UNKNOWN,
    VolumeReader,
    acquisition,
    check_kspace,
    checked_blocks,
    kspace_shape,
    read_header,
    target_shape,
)
from condswin.patients import BY_NAME, patient_key


class VolumeInfo(NamedTuple):
    """What checking a file found.

    Attributes:
        shape: Of k-space: slices, rows (readout), columns (phase encoding).
        target: Dataset name of the fully sampled magnitude image; None if an undersampled file has none.
        target_shape: Slices, rows, columns of it, or of the image without one.
        dtype: Of k-space in the file, which is read as complex64.
        acquisition: FastMRI's attribute (`CORPD_FBK`), "unknown" if there is none.
        patient: Hashed key of the person; never the identifier.
        patient_from: Where that was found: "patient_id attribute", "header" or "file name".
        header: Geometry from the ISMRMRD header; empty if there is none. Its `patient_id` is removed.
        assumed: What was taken for granted, a sentence each.
        held: The columns of k-space that hold anything; nothing unless its values were read.
    """

    shape: tuple[int, int, int]
    target: str | None
    target_shape: tuple[int, int, int]
    dtype: str
    acquisition: str
    patient: str
    patient_from: str
    header: Header
    assumed: tuple[str, ...]
    held: Extent


#: What to do with files that were undersampled at the scanner.
Undersampled = Literal["refuse", "accept"]


def check_volume(reader: VolumeReader, undersampled: Undersampled = "refuse") -> VolumeInfo:
    """Reads a single-coil file to its last value, block by block.

    Raises:
        BadFileError: The file cannot be trusted; the message says why.
    """
    info = read_info(reader, undersampled)
    held, width = check_kspace(reader), info.shape[-1]
    if info.target is not None:
        for _ in checked_blocks(reader, info.target):
            pass
    if MASK in reader:
        read_sampling(reader, held)
        return info._replace(held=held)
    assumed = (*info.assumed, *contradictions(held, width, info.header.measured(width)))
    return info._replace(held=held, assumed=assumed)


def read_info(reader: VolumeReader, undersampled: Undersampled = "refuse") -> VolumeInfo:
    """What a single-coil file says of itself; its values are not read.

    Raises:
        BadFileError: It says what cannot be used.
    """
    path = reader.path
    if MASK in reader and undersampled == "refuse":
        raise BadFileError(
            path,
            "is already undersampled (it has a mask): predict it or draw it (gallery), do not ingest it, or set "
            "reconstruction.ingest.undersampled to accept to learn from its measured lines alone (train.loss: ssdu)",
        )
    shape = kspace_shape(reader)
    target = reader.target_name()
    if target is None and MASK not in reader:
        raise BadFileError(path, f"has neither {' nor '.join(TARGETS)}: nothing to train on or compare with")
    header = read_header(reader)
    if header.encoded is not None and header.encoded[:2] == (shape[2], shape[1]) != shape[1:]:
        raise BadFileError(
            path,
            f"kspace {shape} has the sides of its header's encoded matrix {header.encoded[:2]} (readout, phase "
            "encoding) in the other order: store it as (slices, readout, phase encoding)",
        )
    patients = {"patient_id attribute": reader.attribute("patient_id"), "header": header.patient_id}
    source, patient = next(((at, str(name)) for at, name in patients.items() if name), (BY_NAME, path.stem))
    kind = acquisition(reader)
    unnamed = ["no acquisition attribute: counted as unknown"] if kind == UNKNOWN else []
    return VolumeInfo(
        shape=shape,
        target=target,
        target_shape=target_shape(reader, target) if target else (shape[0], *image_size(reader)),
        dtype="compound" if reader.dtype(KSPACE).names else reader.dtype(KSPACE).name,
        acquisition=kind,
        patient=patient_key(patient),
        patient_from=source,
        header=header._replace(patient_id=None),
        assumed=(*reader.assumed(KSPACE), *(reader.assumed(target) if target else ()), *unnamed),
        held=Extent(0, 0),
    )
