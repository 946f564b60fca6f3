"""Pictures of reconstructions."""

import math
from pathlib import Path

import matplotlib.figure
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from condswin.errors import BadDataError
from condswin.mri.metrics import psnr, ssim
from condswin.mri.scoring import read_prediction, read_truth, score_pairs
from condswin.tasks.pictures import Pictures

#: Error maps are shown this many times brighter than the images.
ERROR_GAIN = 5


class ReconstructionPictures(Pictures):
    """The middle slice of a volume."""

    def picture(self, targets: Path, predictions: Path, case: str) -> matplotlib.figure.Figure:
        """Target, zero-filled, prediction and both errors of the middle slice."""
        pairs = score_pairs(targets, predictions)
        if case not in pairs:
            raise BadDataError(f"{predictions}: no prediction of {case!r}; there are: {', '.join(list(pairs)[:9])}")
        return picture_case(case, *pairs[case])


def picture_case(case: str, target_file: Path, prediction_file: Path) -> Figure:
    """Middle slice: target, zero-filled image (where there is one) and prediction above their errors.

    PSNR and SSIM in the titles are the slice's own, with the volume's maximum as data range.

    Raises:
        BadFileError: As in `score_case`.
    """
    truth = read_truth(target_file)
    prediction = read_prediction(prediction_file, truth)
    rivals = {"zero-filled": truth.zero_filled, "reconstruction": prediction}
    shown = {name: volume for name, volume in rivals.items() if volume is not None}
    middle, maximum = len(truth.target) // 2, float(truth.target.max())
    target = truth.target[middle : middle + 1]

    rows, columns = target.shape[-2:]
    figure = Figure(figsize=(3 * (1 + len(shown)), 6 * rows / columns + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1 + len(shown), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    # A little below the maximum, which single bright vessels set.
    white = float(np.quantile(target, 0.998)) or maximum
    axes[0, 0].imshow(target[0], cmap="gray", vmin=0, vmax=white)
    axes[0, 0].set_title("target")
    axes[1, 0].text(0.5, 0.5, f"errors x {ERROR_GAIN}", ha="center", va="center", transform=axes[1, 0].transAxes)
    for column, (name, volume) in enumerate(shown.items(), start=1):
        image = volume[middle : middle + 1]
        decibels, similarity = psnr(target, image, maximum=maximum), ssim(target, image, maximum=maximum)
        axes[0, column].imshow(image[0], cmap="gray", vmin=0, vmax=white)
        axes[0, column].set_title(f"{name}\n{decibels:.2f} dB, SSIM {similarity:.3f}")
        axes[1, column].imshow(np.abs(image - target)[0], cmap="gray", vmin=0, vmax=white / ERROR_GAIN)
    faster = f", {truth.acceleration:.2f}x" if math.isfinite(truth.acceleration) else ""
    figure.suptitle(f"{case} ({truth.acquisition}{faster}), slice {middle + 1} of {len(truth.target)}")
    return figure


PART = ReconstructionPictures
