"""Raw files of reconstruction: fastMRI's HDF5."""

import hashlib
from pathlib import Path

from condswin.errors import BadDataError, BadFileError
from condswin.files import folded
from condswin.listing import Listing, list_files, summary
from condswin.mri.coils import open_volume
from condswin.mri.config import ReconstructionConfig
from condswin.mri.info import check_volume
from condswin.mri.reading import SUFFIXES, VolumeReader, acquisition
from condswin.patients import BY_NAME
from condswin.tasks.source import Case, CaseInfo, Found, Source


class ReconstructionSource(Source):
    """K-space files, single-coil or combined to that."""

    def find_cases(self, source: Path) -> Found:
        """Every `.h5` and `.hdf5` file below `source` that is not hidden and that `ingest` wants, named by its stem.

        Only a filter by acquisition opens the files.
        """
        policy = self.config.section(ReconstructionConfig).ingest
        listing = list_files(source, SUFFIXES, policy)
        for path in listing.outside:
            listing.skip(path, "not in reconstruction.ingest.folders")
        cases: dict[str, Case] = {}
        for path in listing.files:
            case = Case(path.stem, listing.name(path.parent), {"kspace": path})
            other = cases.setdefault(folded(path.stem), case)
            if other is not case:
                raise BadDataError(
                    f"{path} and {other.files['kspace']}: two files of one name, rename one of them, or let "
                    "reconstruction.ingest.folders name the folders that count"
                )
        if not cases:
            skipped = summary(listing.skipped)
            raise BadDataError(
                f"{source}: no {' or '.join(SUFFIXES)} file in this folder or below{skipped and f'; skipped {skipped}'}"
            )
        chosen = [case for case in sorted(cases.values(), key=lambda case: case.name) if self._wanted(case, listing)]
        if not chosen:
            raise BadDataError(
                f"{source}: {len(cases)} files, none left by reconstruction.ingest (acquisitions "
                f"{', '.join(policy.acquisitions) or 'all'}, volume_fraction {policy.volume_fraction})"
            )
        return Found(chosen, listing.skipped, listing.read)

    def _wanted(self, case: Case, listing: Listing) -> bool:
        """Whether `ingest` takes a case; it is counted as passed over if not."""
        policy = self.config.section(ReconstructionConfig).ingest
        if not _drawn(case.name, self.config.seed, policy.volume_fraction):
            listing.skip(case.files["kspace"], "not drawn by reconstruction.ingest.volume_fraction")
            return False
        if policy.acquisitions and _acquisition(case) not in (*policy.acquisitions, None):
            listing.skip(case.files["kspace"], "not in reconstruction.ingest.acquisitions")
            return False
        return True

    def check_case(self, case: Case) -> CaseInfo:
        """Reads the whole file; the details are shapes, dtype, acquisition and what was assumed.

        `measured_columns` are the first and one past the last column that hold values.
        """
        policy = self.config.section(ReconstructionConfig).ingest
        with open_volume(case.files["kspace"], policy.multicoil) as reader:
            info = check_volume(reader, policy.undersampled)
        nobody = ["no patient's identifier: the file counts as a patient of its own"]
        details = {
            "shape": list(info.shape),
            "dtype": info.dtype,
            "target": info.target,
            "target_shape": list(info.target_shape),
            "acquisition": info.acquisition,
            "encoded_matrix": list(info.header.encoded) if info.header.encoded else None,
            "recon_matrix": list(info.header.recon) if info.header.recon else None,
            "measured_columns": list(info.held),
            "patient_from": info.patient_from,
            "assumed": [*info.assumed, *(nobody if info.patient_from == BY_NAME else [])],
        }
        return CaseInfo(info.patient, details)


def _drawn(name: str, seed: int, fraction: float) -> bool:
    """Whether a volume belongs to a fraction of all; a larger fraction keeps what a smaller one has."""
    digest = hashlib.sha256(f"{seed} volume {name}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _acquisition(case: Case) -> str | None:
    """The file's acquisition; None if it cannot be read, which the check that follows reports."""
    try:
        with VolumeReader(case.files["kspace"]) as reader:
            return acquisition(reader)
    except BadFileError:
        return None


PART = ReconstructionSource
