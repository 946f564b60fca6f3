"""Which files of a source folder belong together: LiTS's and the Medical Segmentation Decathlon's (MSD's) naming."""

import hashlib
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from condswin.config.task import IngestConfig
from condswin.ct.config import CtIngestConfig
from condswin.ct.nifti import LABELS, SUFFIXES, stem
from condswin.ct.pairs import read_pair, tissue
from condswin.errors import BadDataError, BadFileError
from condswin.files import folded
from condswin.listing import Listing, list_files, summary
from condswin.patients import patient_key
from condswin.tasks.source import Case, CaseInfo, Found

_LITS = re.compile(r"(volume|segmentation)-(.+)")
_MSD = {"imagesTr": "volume", "labelsTr": "segmentation"}


def find_cases(source: Path, policy: IngestConfig | None = None) -> Found:
    """Lists the CT images below a folder and pairs them with their segmentations, wherever each lies.

    LiTS: `volume-N.nii[.gz]` and `segmentation-N.nii[.gz]`. MSD: `imagesTr/NAME.nii.gz` and `labelsTr/NAME.nii.gz`.
    A case is named `volume-N` (`volume-NAME`); the role of its image is `volume`, too, as LiTS calls the file. An image
    or segmentation without its other half is listed all the same, so that checking it names what is missing.

    Args:
        source: The folder.
        policy: If it names folders, they are the images'; the segmentation may lie elsewhere.

    Raises:
        BadDataError: There is no case, two files claim the same role of one, or some of the folder cannot be read.
    """
    listing = list_files(source, SUFFIXES, policy or IngestConfig())
    found, outside = _by_case(listing, listing.files), _by_case(listing, listing.outside)
    for key, roles in outside.items():
        for role, paths in roles.items():
            if role == "segmentation" and list(found.get(key, ())) == ["volume"]:
                found[key][role] = paths
            else:
                for path in paths:
                    listing.skip(path, "not in segmentation.ingest.folders")
    if not found:
        skipped = summary(listing.skipped)
        raise BadDataError(
            f"{source}: no volume-N.nii[.gz] (LiTS) and no imagesTr/*.nii[.gz] (MSD) in it"
            f"{skipped and f'; skipped {skipped}'}"
        )
    twice = [paths for roles in found.values() for paths in roles.values() if len(paths) > 1]
    if twice:
        lines = "; ".join(" and ".join(map(listing.name, paths)) for paths in twice)
        raise BadDataError(f"{source}: names must be unique, but these claim to be the same: {lines}")
    cases = []
    for roles in found.values():
        files: dict[str, Path] = {role: roles[role][0] for role in ("volume", "segmentation") if role in roles}
        first = next(iter(files.values()))
        cases.append(Case(f"volume-{_role(first)[1]}", listing.name(first.parent), files))
    return Found(sorted(cases, key=lambda case: case.name), listing.skipped, listing.read)


def check_case(case: Case, rules: CtIngestConfig = CtIngestConfig()) -> CaseInfo:  # noqa: B008 (frozen)
    """Reads both files of a case and checks that they are a usable pair.

    Args:
        case: Which.
        rules: What to do where headers leave something open, or differ.

    Raises:
        BadFileError: One is missing or unusable; the message says why.
    """
    for role, other in (("segmentation", "volume"), ("volume", "segmentation")):
        if role not in case.files:
            raise BadFileError(case.files[other], f"no {role} for {case.name}: found no {target_stem(case.name, role)}")
    image, labels = read_pair(case.files["volume"], case.files["segmentation"], rules)
    assumed = [f"{role}: {what}" for role, one in (("volume", image), ("segmentation", labels)) for what in one.assumed]
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
            "geometry_from": geometry.field,
            "hu": [float(image.data.min()), float(image.data.max())],
            "liver_hu": tissue(image.data, labels.data).median,
            "voxels": {name: int(counts[value]) for value, name in LABELS.items()},
            # Equal images under two names can be told from this, whatever the file's compression.
            "image_sha256": hashlib.sha256(image.data.ravel(order="K").data).hexdigest(),
            "assumed": assumed,
        },
    )


def target_stem(case: str, role: str = "segmentation") -> str:
    """File name, without suffix, of a case's target and prediction: `volume-N` -> `segmentation-N`."""
    return f"{role}-{case.removeprefix('volume-')}" if case.startswith("volume-") else case


def case_of_target(path: Path) -> str:
    """The inverse of `target_stem`; a file with any other name is its own case."""
    name = stem(path)
    return f"volume-{name.removeprefix('segmentation-')}" if name.startswith("segmentation-") else name


def _by_case(listing: Listing, files: list[Path]) -> dict[str, dict[str, list[Path]]]:
    """Files by folded name of the case, and by role."""
    found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in files:
        role, name = _role(path)
        if role:
            found[folded(name)][role].append(path)
        else:
            listing.skip(path, "neither volume-N or segmentation-N nor in imagesTr or labelsTr")
    return found


def _role(path: Path) -> tuple[str, str]:
    """Role and case of a file by its name and its folder's; no role if it has none."""
    if match := _LITS.fullmatch(stem(path)):
        return match[1], match[2]
    return _MSD.get(path.parent.name, ""), stem(path)
