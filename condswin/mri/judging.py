"""Scores of reconstructions by fastMRI's protocol."""

import math
from pathlib import Path
from typing import ClassVar

from condswin.manifest import Manifest
from condswin.mri.metrics import psnr
from condswin.mri.noise import signal_to_noise
from condswin.mri.prepared import prepared_files
from condswin.mri.reading import VolumeReader
from condswin.mri.scoring import read_case, score_case, score_pairs
from condswin.plain import plain
from condswin.tasks.facts import Row
from condswin.tasks.judging import Judging, spread


class ReconstructionJudging(Judging):
    """By fastMRI's protocol."""

    slice_order: ClassVar[str] = "slices as they lie in the file"

    def case_files(self, folder: Path) -> dict[str, Path]:
        """Prepared files by case name."""
        return prepared_files(folder)

    def prediction_name(self, case: str) -> str:
        """As fastMRI: the name of the k-space file."""
        return f"{case}.h5"

    def score(self, targets: Path, predictions: Path) -> list[Row]:
        """One row per volume: its metrics, those of its zero-filled image, acquisition and true acceleration.

        And `fallback`, as in `score_case`, unless no prediction says so.
        """
        pairs = score_pairs(targets, predictions)
        rows = [score_case(case, target, prediction) for case, (target, prediction) in pairs.items()]
        if all(math.isnan(float(row["fallback"])) for row in rows):
            for row in rows:
                del row["fallback"]
        return rows

    def by_slice(self, targets: Path, predictions: Path) -> dict[str, list[float]]:
        """PSNR against the largest value of the volume."""
        found = {}
        for case, (target_file, prediction_file) in score_pairs(targets, predictions).items():
            truth, prediction, _ = read_case(target_file, prediction_file)
            maximum, slices = float(truth.target.max()), zip(truth.target, prediction, strict=True)
            found[case] = [psnr(target[None], image[None], maximum=maximum) for target, image in slices]
        return found

    def describe(self, manifest: Manifest) -> dict[str, str]:
        """Sampling, coils, and sizes of k-space and images."""
        known = [case.details for case in manifest.cases]
        sampling = {name.replace("_", " "): value for name, value in manifest.parameters.items() if value is not None}
        shapes = [details["shape"] for details in known if "shape" in details]
        images = {"x".join(map(str, details["target_shape"][-2:])) for details in known if "target_shape" in details}
        return {
            "sampling": ", ".join(f"{name} {plain(str(value), 60)}" for name, value in sampling.items()),
            "coils": ", ".join(sorted({"one" if len(shape) == 3 else f"{shape[1]}" for shape in shapes})),
            "slices per volume": spread(shape[0] for shape in shapes),
            "k-space": " by ".join(spread((shape[axis] for shape in shapes), unit)
                                   for axis, unit in ((-2, "rows"), (-1, "columns"))) if shapes else "",
            "images": ", ".join(sorted(images)) + " pixels" if images else "",
        }  # fmt: skip

    def qualities(self, targets: Path) -> dict[str, dict[str, float]]:
        """Signal to noise of the middle slice of the target."""
        found = {}
        for case, path in prepared_files(targets).items():
            with VolumeReader(path) as reader:
                name = reader.target_name()
                if name is not None:
                    middle = reader.shape(name)[0] // 2
                    found[case] = signal_to_noise(reader.read(name, middle, middle + 1)[0])
        return {"target_snr": found}


PART = ReconstructionJudging
