"""Raw files of denoising: clean images."""

from pathlib import Path

from condswin.errors import BadDataError
from condswin.patients import patient_key
from condswin.tasks.source import Case, CaseInfo, Found, Source

from .images import read_image


class DenoisingSource(Source):
    """A file is a case, and of nobody else than that."""

    def find_cases(self, source: Path) -> Found:
        """Every `.npy` file in `source`, named by its stem."""
        cases = [Case(path.stem, "", {"image": path.absolute()}) for path in sorted(source.glob("*.npy"))]
        if not cases:
            raise BadDataError(f"{source}: no .npy file in this folder")
        return Found(cases)

    def check_case(self, case: Case) -> CaseInfo:
        """Reads the image."""
        return CaseInfo(patient_key(case.name), {"shape": list(read_image(case.files["image"]).shape)})


PART = DenoisingSource
