"""The ISMRMRD header of a fastMRI file: the numbers that reconstruction needs, and a copy without personal data."""

import re
from typing import NamedTuple
from xml.etree import ElementTree

NAMESPACE = "http://www.ismrm.org/ISMRMRD"

#: Longest header read, bytes; real ones have a few thousand.
MAX_BYTES = 1 << 20

#: Deepest nesting of elements read; real ones have five.
MAX_DEPTH = 32

# Sides of voxels that are believed, mm.
_VOXEL = (0.05, 30.0)

Matrix = tuple[int, int, int]

# What a copied header may hold: the elements by name, and of their text only numbers and the kinds of trajectory.
# Ids, dates, serial numbers, institutions and free text are none of these, wherever a vendor puts them.
_SECTIONS = {"encoding", "sequenceParameters", "experimentalConditions", "acquisitionSystemInformation"}
_KEPT = _SECTIONS | {
    *("encodedSpace", "reconSpace", "matrixSize", "fieldOfView_mm", "x", "y", "z", "encodingLimits"),
    *("kspace_encoding_step_0", "kspace_encoding_step_1", "kspace_encoding_step_2", "average", "slice", "contrast"),
    *("phase", "repetition", "set", "segment", "minimum", "maximum", "center", "trajectory", "echoTrainLength"),
    *("TR", "TE", "TI", "flipAngle_deg", "echo_spacing", "H1resonanceFrequency_Hz"),
    *("systemFieldStrength_T", "receiverChannels"),
}
_TEXT = re.compile(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?|cartesian|epi|radial|goldenangle|spiral|other")


class Header(NamedTuple):
    """What an ISMRMRD header says about geometry.

    Attributes:
        encoded: Encoded matrix (readout, phase encoding, partition), None if not said.
        recon: Reconstructed matrix (columns along the readout, along phase encoding, slices), None if not said.
        padding: First and one past the last measured phase-encoding column of the encoded matrix, None if not said.
        patient_id: The patient's identifier. For hashing only: never store, print or log it.
        voxel: Size of the reconstructed matrix's voxels in mm (along the readout, along phase encoding, of a slice),
            None if not said or not believable.
    """

    encoded: Matrix | None = None
    recon: Matrix | None = None
    padding: tuple[int, int] | None = None
    patient_id: str | None = None
    voxel: tuple[float, float, float] | None = None

    def measured(self, width: int) -> tuple[int, int] | None:
        """First and one past the last measured column of k-space of so many; None if it does not say of such."""
        if self.padding is None or self.encoded is None or self.encoded[1] != width:
            return None
        first, last = self.padding
        return self.padding if 0 <= first < last <= width else None


def parse_header(raw: bytes) -> Header:
    """Reads an ISMRMRD XML header.

    Raises:
        ValueError: It is too long, not UTF-8, not well-formed, declares entities or has impossible numbers.
    """
    root = _parse(raw)
    encoding = _child(root, "encoding")
    encoded = _matrix(_child(encoding, "encodedSpace"))
    limits = _child(_child(encoding, "encodingLimits"), "kspace_encoding_step_1")
    padding = None
    if encoded is not None and limits is not None:
        center, maximum = _integer(limits, "center"), _integer(limits, "maximum")
        first = encoded[1] // 2 - center
        padding = (first, first + maximum + 1)
    patient = _child(_child(root, "subjectInformation"), "patientID")
    text = (patient.text or "").strip() if patient is not None else ""
    space = _child(encoding, "reconSpace")
    recon = _matrix(space)
    return Header(encoded, recon, padding, text or None, _voxel(recon, _child(space, "fieldOfView_mm")))


def strip_header(raw: bytes) -> bytes:
    """The same header with nothing but encoding, sequence timing and field strength: no personal data.

    Raises:
        ValueError: As in `parse_header`.
    """
    ElementTree.register_namespace("", NAMESPACE)
    bare = ElementTree.Element(f"{{{NAMESPACE}}}ismrmrdHeader")
    for child in _parse(raw):
        if _local(child) in _SECTIONS:
            _copy(child, bare)
    stripped: bytes = ElementTree.tostring(bare, encoding="utf-8", xml_declaration=True)
    return stripped


def _parse(raw: bytes) -> ElementTree.Element:
    if len(raw) > MAX_BYTES:
        raise ValueError(f"{len(raw)} bytes long, more than {MAX_BYTES}")
    # All that defusedxml would do here. Decoded first, so that no other encoding hides a declaration.
    text = raw.decode("utf-8").strip("\0 \r\n\t")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("declares a document type or entities, which a header never needs")
    try:
        return ElementTree.fromstring(text, ElementTree.XMLParser(target=_ShallowTree()))
    except ElementTree.ParseError as error:
        raise ValueError(f"not well-formed XML: {error}") from None


class _ShallowTree(ElementTree.TreeBuilder):
    """Refuses deep nesting while parsing: it costs time and memory, and recursion fails on it."""

    _depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> ElementTree.Element:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"elements are nested more than {MAX_DEPTH} deep")
        return super().start(tag, attrs)

    def end(self, tag: str) -> ElementTree.Element:
        self._depth -= 1
        return super().end(tag)


def _copy(element: ElementTree.Element, parent: ElementTree.Element) -> None:
    text = (element.text or "").strip()
    if _local(element) not in _KEPT or (not len(element) and not _TEXT.fullmatch(text)):
        return
    copied = ElementTree.SubElement(parent, f"{{{NAMESPACE}}}{_local(element)}")
    if len(element):
        for child in element:
            _copy(child, copied)
    else:
        copied.text = text


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _child(element: ElementTree.Element | None, name: str) -> ElementTree.Element | None:
    return next((child for child in element if _local(child) == name), None) if element is not None else None


def _matrix(space: ElementTree.Element | None) -> Matrix | None:
    size = _child(space, "matrixSize")
    return (_integer(size, "x"), _integer(size, "y"), _integer(size, "z")) if size is not None else None


def _voxel(matrix: Matrix | None, field: ElementTree.Element | None) -> tuple[float, float, float] | None:
    """Field of view over matrix; what is no size of an MRI voxel was made up by whoever wrote the header."""
    texts = [(child.text or "").strip() if (child := _child(field, name)) is not None else "" for name in "xyz"]
    if matrix is None or 0 in matrix or not all(re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,12})?", text) for text in texts):
        return None
    x, y, z = (float(text) / size for text, size in zip(texts, matrix, strict=True))
    low, high = _VOXEL
    return (x, y, z) if low <= min(x, y, z) and max(x, y, z) <= high else None


def _integer(element: ElementTree.Element, name: str) -> int:
    child = _child(element, name)
    text = (child.text or "").strip() if child is not None else ""
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ValueError(f"{_local(element)}.{name} is {text[:20]!r}, expected a whole number")
    return int(text)
