"""Scores of denoised images."""

from pathlib import Path

from condswin.errors import BadDataError
from condswin.tasks.facts import Row
from condswin.tasks.judging import Judging

from .images import psnr, read_image


class DenoisingJudging(Judging):
    """Against the clean images."""

    def case_files(self, folder: Path) -> dict[str, Path]:
        """The noisy images by case name."""
        return noisy_files(folder)

    def prediction_name(self, case: str) -> str:
        """The case's name."""
        return f"{case}.npy"

    def score(self, targets: Path, predictions: Path) -> list[Row]:
        """One row per case: `psnr`, and `noisy_psnr` of what the network was given."""
        rows: list[Row] = []
        for case, noisy in noisy_files(targets).items():
            prediction = predictions / self.prediction_name(case)
            if not prediction.is_file():
                raise BadDataError(f"{predictions}: no prediction for {case}, which should be {prediction.name}")
            clean = read_image(targets / f"{case}-clean.npy")
            scores = {"psnr": psnr(clean, read_image(prediction)), "noisy_psnr": psnr(clean, read_image(noisy))}
            rows.append({"case": case, **scores})
        if not rows:
            raise BadDataError(f"{targets}: nothing to score, no file NAME-noisy.npy")
        return rows


def noisy_files(folder: Path) -> dict[str, Path]:
    """Prepared noisy images by case name."""
    return {path.stem.removesuffix("-noisy"): path for path in sorted(folder.glob("*-noisy.npy"))}


PART = DenoisingJudging
