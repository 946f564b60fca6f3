"""Raw files of reconstruction: fastMRI's HDF5."""

import hashlib
from pathlib import Path

from condswin.errors import BadDataError, BadFileError
from condswin.mri.coils import open_volume
from condswin.mri.config import ReconstructionConfig
from condswin.mri.info import check_volume
from condswin.mri.reading import SUFFIXES, VolumeReader, acquisition
from condswin.tasks.source import Case, CaseInfo, Source


class ReconstructionSource(Source):
    """K-space files, single-coil or combined to that."""

    def find_cases(self, source: Path) -> list[Case]:
        """Every `.h5` and `.hdf5` file below `source` that is not hidden and that `ingest` wants, named by its stem.

        Only a filter by acquisition opens the files.
        """
        cases: dict[str, Case] = {}
        for path in sorted(source.rglob("*")):
            inside = path.relative_to(source).parts
            if path.suffix not in SUFFIXES or any(part.startswith(".") for part in inside) or path.is_dir():
                continue
            if (other := cases.get(path.stem)) is not None:
                raise BadDataError(f"{path} and {other.files['kspace']}: two files of one name, rename one of them")
            folder = inside[0] if len(inside) > 1 else ""
            cases[path.stem] = Case(path.stem, folder, {"kspace": path.absolute()})
        if not cases:
            raise BadDataError(f"{source}: no {' or '.join(SUFFIXES)} file in this folder or below")
        policy = self.config.section(ReconstructionConfig).ingest
        chosen = [cases[name] for name in sorted(cases) if _drawn(name, self.config.seed, policy.volume_fraction)]
        if policy.acquisitions:
            chosen = [case for case in chosen if _acquisition(case) in (*policy.acquisitions, None)]
        if not chosen:
            raise BadDataError(
                f"{source}: {len(cases)} files, none left by reconstruction.ingest (acquisitions "
                f"{', '.join(policy.acquisitions) or 'all'}, volume_fraction {policy.volume_fraction})"
            )
        return chosen

    def check_case(self, case: Case) -> CaseInfo:
        """Reads the whole file; the details are shapes, dtype, acquisition and what was assumed.

        `measured_columns` are the first and one past the last column that hold values.
        """
        with open_volume(case.files["kspace"], self.config.section(ReconstructionConfig).ingest.multicoil) as reader:
            info = check_volume(reader)
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
            "assumed": list(info.assumed),
        }
        return CaseInfo(info.patient, details)


def _drawn(name: str, seed: int, fraction: float) -> bool:
    """Whether a volume belongs to a fraction of all; a larger fraction keeps what a smaller one has."""
    digest = hashlib.sha256(f"{seed} volume {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _acquisition(case: Case) -> str | None:
    """The file's acquisition; None if it cannot be read, which the check that follows reports."""
    try:
        with VolumeReader(case.files["kspace"]) as reader:
            return acquisition(reader)
    except BadFileError:
        return None


PART = ReconstructionSource
