"""Pictures of reconstructions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.figure
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from condswin.errors import BadDataError
from condswin.fourier import FloatArray
from condswin.mri.inputs import magnitude
from condswin.mri.metrics import psnr, ssim
from condswin.mri.scoring import read_case, score_pairs
from condswin.plain import label, plain
from condswin.tasks.pictures import CasePanels, Panel, Pictures, between, shades
from condswin.tasks.slices import Batch, Shown

#: Error maps of single figures are shown this many times brighter than the images.
ERROR_GAIN = 5
#: Pages show all errors on one scale, which ends at this share of what is white: few of a bad case lie above.
ERROR_END = 0.4
ERROR_UNIT = "% of white"
# Slices of a volume on a page.
_SLICES = 5


class ReconstructionPictures(Pictures):
    """The middle slice of a volume."""

    def picture(self, targets: Path, predictions: Path, case: str) -> matplotlib.figure.Figure:
        """Target, zero-filled, prediction and both errors of the middle slice."""
        pairs = score_pairs(targets, predictions)
        if case not in pairs:
            raise BadDataError(f"{predictions}: no prediction of {case!r}; there are: {', '.join(list(pairs)[:9])}")
        return picture_case(case, *pairs[case])

    def panels(self, targets: Path, predictions: Mapping[str, Path], case: str) -> CasePanels:
        """Target, zero-filled image, reconstructions and errors of the middle slice and of some beside it."""
        read = {name: read_case(*score_pairs(targets, folder)[case]) for name, folder in predictions.items()}
        truth = next(iter(read.values()))[0]
        images = {"zero-filled": truth.zero_filled, **{name: prediction for name, (_, prediction, _) in read.items()}}
        shown = {name: volume for name, volume in images.items() if volume is not None}
        slices = len(truth.target)
        spread = {round(place) for place in np.linspace(0, slices - 1, min(slices, _SLICES))}
        places = sorted(spread | {slices // 2}, key=lambda place: (abs(place - slices // 2), place))[:_SLICES]
        white = white_of(truth.target)

        def panel(name: str, volume: FloatArray, brightest: float, error: bool) -> Panel:
            return Panel(name, [shades(volume[place], 0, brightest) for place in places], error)

        errors = {f"error of {name}": np.abs(volume - truth.target) / white for name, volume in shown.items()}
        above = np.mean([volume[places] > ERROR_END for volume in errors.values()])
        return CasePanels(
            places=places,
            total=slices,
            panels=[
                *(panel(name, volume, white, False) for name, volume in {"target": truth.target, **shown}.items()),
                *(panel(name, volume, ERROR_END, True) for name, volume in errors.items()),
            ],
            unit="the file's units",
            window=(0.0, white),
            errors=(0.0, 100 * ERROR_END),
            error_unit=ERROR_UNIT,
            legend="White is the 99.8th percentile of the case's target. Errors are absolute, on one scale for all "
            f"cases; {above:.2%} of the pixels shown are above its end.",
        )

    def slices(self, shown: Sequence[Shown]) -> matplotlib.figure.Figure:
        """Zero-filled image, target, reconstruction and its error of each slice; PSNR as in validation.

        Of slices without target the zero-filled image of the lines that are shown, and the reconstruction.
        """
        figure = Figure(figsize=(8, 2.15 * len(shown) + 0.1), layout="constrained")
        grid = figure.subplots(len(shown), 4, squeeze=False)
        for row, (name, batch, output) in zip(grid, shown, strict=True):
            for axis in row:
                axis.set_xticks([])
                axis.set_yticks([])
            for axis, (title, (pixels, brightest)) in zip(row, _panels(batch, output).items(), strict=False):
                axis.imshow(pixels[0], cmap="gray", vmin=0, vmax=brightest)
                axis.set_title(title, fontsize=8)
            row[0].set_ylabel(label(Path(name).name, 30), fontsize=7)
        return figure

    def background(self, batch: Batch) -> NDArray[np.float32]:
        """The zero-filled image, with all columns that an unrolled network sees."""
        return between(_seen(batch, batch["image"].shape[-1])[0, 0].numpy())


def white_of(images: FloatArray) -> float:
    """What is shown white: a little below the maximum, which single bright vessels set."""
    return float(np.quantile(images, 0.998)) or float(images.max())


def _panels(batch: Batch, output: Tensor) -> dict[str, tuple[NDArray[np.float32], float]]:
    """Pictures (1, H, W) of a slice by their titles, each with what is white in it."""
    columns = batch["target"].shape[-1] if "target" in batch else int(batch["columns"])
    zero_filled, image = (
        (each * batch["std"][:, None, None, None] + batch["mean"][:, None, None, None])[0].numpy()
        for each in (_seen(batch, columns), magnitude(output, columns))
    )
    if "target" not in batch:
        white = float(np.quantile(image, 0.998)) or 1.0
        return {"zero-filled": (zero_filled, white), "output": (image, white)}
    maximum = float(batch["maximum"])
    target = (batch["target"] * batch["std"][:, None, None, None] + batch["mean"][:, None, None, None])[0].numpy()
    white = float(np.quantile(target, 0.998)) or maximum
    decibels = [f"{psnr(target, each, maximum=maximum):.2f} dB" for each in (zero_filled, image)]
    return {
        f"zero-filled, {decibels[0]}": (zero_filled, white),
        "target": (target, white),
        f"output, {decibels[1]}": (image, white),
        f"error x {ERROR_GAIN}": (np.abs(image - target), white / ERROR_GAIN),
    }


def _seen(batch: Batch, columns: int) -> Tensor:
    """Normalised zero-filled magnitudes (1, 1, H, columns) from what either kind of network sees."""
    image = batch["image"]
    return magnitude(image if image.shape[1] == 1 else image[:, :2], columns)


def picture_case(case: str, target_file: Path, prediction_file: Path) -> Figure:
    """Middle slice of a case; see `picture_images`.

    Raises:
        BadFileError: As in `score_case`.
    """
    truth, prediction, _ = read_case(target_file, prediction_file)
    images = {"zero-filled": truth.zero_filled, "reconstruction": prediction}
    shown = {name: volume for name, volume in images.items() if volume is not None}
    about = ", ".join(filter(None, (plain(truth.acquisition, 40), truth.faster)))
    return picture_images(f"{plain(case, 40)} ({about})", truth.target, shown)


def picture_images(title: str, target: FloatArray, images: Mapping[str, FloatArray]) -> Figure:
    """Middle slice: target and images, above their errors.

    PSNR and SSIM over the images are the slice's own, with the volume's maximum as data range.

    Args:
        title: Of the whole.
        target: (slices, H, W).
        images: The same shape, by name.
    """
    middle, maximum = len(target) // 2, float(target.max())
    truth = target[middle : middle + 1]
    rows, columns = truth.shape[-2:]
    figure = Figure(figsize=(3 * (1 + len(images)), 6 * rows / columns + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 1 + len(images), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    # A little below the maximum, which single bright vessels set.
    white = float(np.quantile(truth, 0.998)) or maximum
    axes[0, 0].imshow(truth[0], cmap="gray", vmin=0, vmax=white)
    axes[0, 0].set_title("target")
    axes[1, 0].text(0.5, 0.5, f"errors x {ERROR_GAIN}", ha="center", va="center", transform=axes[1, 0].transAxes)
    for column, (name, volume) in enumerate(images.items(), start=1):
        image = volume[middle : middle + 1]
        decibels, similarity = psnr(truth, image, maximum=maximum), ssim(truth, image, maximum=maximum)
        axes[0, column].imshow(image[0], cmap="gray", vmin=0, vmax=white)
        axes[0, column].set_title(f"{label(name, 30)}\n{decibels:.2f} dB, SSIM {similarity:.3f}")
        axes[1, column].imshow(np.abs(image - truth)[0], cmap="gray", vmin=0, vmax=white / ERROR_GAIN)
    figure.suptitle(f"{label(title, 100)}, slice {middle + 1} of {len(target)}")
    return figure


def picture_scan(title: str, mask: NDArray[np.bool_], images: Mapping[str, FloatArray]) -> Figure:
    """Middle slice of a scan without target: the images, and above them the mask, white where it measured.

    Args:
        title: Of the whole.
        mask: (W,), the measured columns.
        images: (slices, H, W) each, by name.
    """
    first = next(iter(images.values()))
    middle, (rows, columns) = len(first) // 2, first.shape[1:]
    figure = Figure(figsize=(3 * len(images), 3 * rows / columns + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(images), squeeze=False, height_ratios=[1, 12])
    white = float(np.quantile(first[middle], 0.998)) or 1.0
    for axis, shown, (name, volume) in zip(axes[0], axes[1], images.items(), strict=True):
        axis.imshow(mask[None], cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axis.set_title(label(name, 30))
        axis.axis("off")
        shown.imshow(volume[middle], cmap="gray", vmin=0, vmax=white)
        shown.axis("off")
    figure.suptitle(f"{label(title, 100)}, slice {middle + 1} of {len(first)}")
    return figure


PART = ReconstructionPictures
