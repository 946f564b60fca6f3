"""Which files of a source folder belong together: LiTS's and the Medical Segmentation Decathlon's (MSD's) naming."""

import hashlib
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from condswin.ct.nifti import LABELS, SUFFIXES, read_pair, stem
from condswin.errors import BadDataError, BadFileError
from condswin.patients import patient_key
from condswin.tasks.source import Case, CaseInfo

_LITS = re.compile(r"(volume|segmentation)-(.+)")
_MSD = {"imagesTr": "volume", "labelsTr": "segmentation"}


def find_cases(source: Path) -> list[Case]:
    """Lists the CT images below a folder and pairs them with their segmentations, wherever each lies.

    LiTS: `volume-N.nii[.gz]` and `segmentation-N.nii[.gz]`. MSD: `imagesTr/NAME.nii.gz` and `labelsTr/NAME.nii.gz`.
    A case is named `volume-N` (`volume-NAME`); the role of its image is `volume`, too, as LiTS calls the file. Hidden
    files and folders are passed over. An image or segmentation without its other half is listed all the same, so that
    checking it names what is missing.

    Raises:
        BadDataError: There is no case, or two files claim the same role of one.
    """
    if not source.is_dir():
        raise BadDataError(f"{source}: no such folder")
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if not path.name.endswith(SUFFIXES) or any(part.startswith(".") for part in inside.parts):
            continue
        if match := _LITS.fullmatch(stem(path)):
            found[match[2]][match[1]].append(path)
        elif path.parent.name in _MSD:
            found[stem(path)][_MSD[path.parent.name]].append(path)
    if not found:
        raise BadDataError(f"{source}: no volume-N.nii[.gz] (LiTS) and no imagesTr/*.nii[.gz] (MSD) in it")
    twice = [paths for roles in found.values() for paths in roles.values() if len(paths) > 1]
    if twice:
        lines = "; ".join(" and ".join(str(path.relative_to(source)) for path in paths) for paths in twice)
        raise BadDataError(f"{source}: names must be unique, but these claim to be the same: {lines}")
    return sorted((_case(source, key, roles) for key, roles in found.items()), key=lambda case: case.name)


def check_case(case: Case) -> CaseInfo:
    """Reads both files of a case and checks that they are a usable pair.

    Raises:
        BadFileError: One is missing or unusable; the message says why.
    """
    for role, other in (("segmentation", "volume"), ("volume", "segmentation")):
        if role not in case.files:
            raise BadFileError(case.files[other], f"no {role} for {case.name}: found no {target_stem(case.name, role)}")
    image, labels = read_pair(case.files["volume"], case.files["segmentation"])
    counts = np.bincount(labels.data.ravel(order="K"), minlength=len(LABELS))
    geometry = image.geometry
    return CaseInfo(
        # One LiTS volume is one patient. A hospital may put a record number into the name: only a keyed hash goes on.
        patient=patient_key(case.name),
        details={
            "shape": list(geometry.shape),
            "spacing": [round(size, 4) for size in geometry.spacing],
            "orientation": geometry.orientation,
            "oblique": geometry.oblique,
            "hu": [float(image.data.min()), float(image.data.max())],
            "voxels": {name: int(counts[value]) for value, name in LABELS.items()},
            # Equal images under two names can be told from this, whatever the file's compression.
            "image_sha256": hashlib.sha256(image.data.ravel(order="K").data).hexdigest(),
        },
    )


def target_stem(case: str, role: str = "segmentation") -> str:
    """File name, without suffix, of a case's target and prediction: `volume-N` -> `segmentation-N`."""
    return f"{role}-{case.removeprefix('volume-')}" if case.startswith("volume-") else case


def case_of_target(path: Path) -> str:
    """The inverse of `target_stem`; a file with any other name is its own case."""
    name = stem(path)
    return f"volume-{name.removeprefix('segmentation-')}" if name.startswith("segmentation-") else name


def _case(source: Path, key: str, roles: dict[str, list[Path]]) -> Case:
    files = {role: paths[0].absolute() for role, paths in roles.items()}
    some = next(roles[role][0] for role in ("volume", "segmentation") if role in roles)
    parts = some.relative_to(source).parts
    return Case(name=f"volume-{key}", folder=parts[0] if len(parts) > 1 else "", files=files)
