"""The slices of a case that show most, with the outlines of target and prediction."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from condswin.ct.cases import target_stem
from condswin.ct.config import SegmentationConfig
from condswin.ct.geometry import Geometry
from condswin.ct.judging import label_files, read_prediction
from condswin.ct.metrics import lesions, untouched
from condswin.ct.nifti import SUFFIXES, Volume, read_image, read_labels
from condswin.ct.prepared import open_prepared, read_slices
from condswin.ct.resampling import apply_window
from condswin.errors import BadDataError
from condswin.plain import label
from condswin.tasks.pictures import CasePanels, Panel, Pictures, pixels
from condswin.tasks.slices import Batch, Shown

Mask = NDArray[np.bool_]

#: Of the palette of Okabe and Ito (2008), which the colour-blind tell apart; and lines that differ without any colour.
_TARGET, _PREDICTION = ("#f0e442", "solid"), ("#56b4e9", "dashed")
#: The same of tumours, where they stand beside livers; errors of either, in the colour of their outline.
_TUMOURS = ("#e69f00", "solid"), ("#0072b2", "dashed")
_LIVER_MISSED, _LIVER_FALSE = (0.94, 0.89, 0.26, 0.6), (0.34, 0.71, 0.91, 0.6)
_TUMOUR_MISSED, _TUMOUR_FALSE = (0.90, 0.62, 0.0, 0.9), (0.0, 0.45, 0.70, 0.9)
#: Livers and found lesions where all slices are one picture.
_LIVER, _FOUND = "#c4c4c4", "#202020"
_MISSED, _FALSE = (0.90, 0.62, 0.0, 0.75), (0.0, 0.45, 0.85, 0.75)
#: Pixels of the longer side of a picture on a page, about.
_SIDE = 360
_MARGIN = 0.12  # around the liver, of its size
_ROWS = 3


def draw_case(
    case: str,
    geometry: Geometry,
    target: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    slices: Callable[[int], NDArray[np.float32]] | None,
) -> matplotlib.figure.Figure:
    """Draws up to three slices: CT, outlines of the liver, outlines of tumours (target against prediction), errors.

    The view is cut to what is liver in either volume, so that a lesion of three pixels can be seen.

    Args:
        case: Name for the title.
        geometry: Of both label volumes.
        target: Reference labels, (X, Y, Z).
        prediction: Predicted labels, same shape.
        slices: Gives a slice of the CT (rows, columns) in -1..1, resampled or not; None draws labels on black.
    """
    target, prediction = geometry.to_canonical(target), geometry.to_canonical(prediction)
    chosen = telling_slices(target, prediction)
    rows, columns = target.shape[1:]
    _, row_step, column_step = geometry.spacing
    top, bottom, left, right = _view((target > 0) | (prediction > 0))
    # One extent in pixels of the scanner for all layers: a resampled CT lies under them exactly.
    frame: dict[str, Any] = {"extent": (-0.5, columns - 0.5, rows - 0.5, -0.5), "aspect": row_step / column_step}
    tall = 2.6 * (bottom - top) * row_step / ((right - left) * column_step)
    height = (min(tall, 4.0) + 0.05) * len(chosen) + 0.75
    figure = matplotlib.figure.Figure(figsize=(10.6, height), layout="constrained")
    grid = figure.subplots(len(chosen), 4, squeeze=False)
    for panels, index in zip(grid, chosen, strict=True):
        shown = slices(index) if slices else np.full((1, 1), -1, np.float32)
        _draw_slice(panels, shown, target[index], prediction[index], frame)
        for panel in panels:
            panel.set_xlim(left, right)
            panel.set_ylim(bottom, top)
        panels[0].set_ylabel(f"slice {index + 1} of {len(target)}", fontsize=9)
    _title(figure, grid[0], f"{label(case, 50)}: ")
    return figure


def _draw_slice(
    panels: Sequence[Axes],
    shown: NDArray[np.float32],
    target: NDArray[Any],
    prediction: NDArray[Any],
    frame: dict[str, Any],
) -> None:
    """CT, outlines of liver and of tumour, and errors of one slice, on four panels."""
    for panel in panels:
        panel.imshow(shown, cmap="gray", vmin=-1, vmax=1, **frame)
        panel.set_xticks([])
        panel.set_yticks([])
    for panel, value in ((panels[1], 1), (panels[2], 2)):
        _outline(panel, target >= value, _TARGET)
        _outline(panel, prediction >= value, _PREDICTION)
    panels[3].imshow(_errors(target, prediction), **frame)


def _title(figure: matplotlib.figure.Figure, panels: Sequence[Axes], case: str) -> None:
    titles = ("CT", "liver", "tumour", "missed (orange), false (blue)")
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=9)
    figure.suptitle(f"{case}outlines of target (yellow) and prediction (blue, dashed)", fontsize=10)


def telling_slices(target: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> list[int]:
    """Indices of up to three slices in order: with most true tumour, most wrong pixels, most true liver.

    A slice that is first by two of these is named once; without any of them it is the middle slice.
    """
    masks = (target == 2, target != prediction, target > 0, prediction > 0)
    found = {int(mask.sum(axis=(1, 2)).argmax()) for mask in masks[:_ROWS] if mask.any()}
    if not found:
        found = {int(masks[-1].sum(axis=(1, 2)).argmax()) if masks[-1].any() else len(target) // 2}
    return sorted(found)


def _blank(view: tuple[float, float, float, float], stretch: float) -> Axes:
    """Axes without a frame that fill a figure, and show a part of a slice in true proportions."""
    top, bottom, left, right = view
    height, width = (bottom - top) * stretch, right - left
    scale = _SIDE / max(height, width) / 100
    figure = matplotlib.figure.Figure(figsize=(width * scale, height * scale), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, top), autoscale_on=False)
    axes.axis("off")
    return axes


def _outline(panel: Axes, mask: Mask, style: tuple[str, str]) -> None:
    if mask.any() and not mask.all():
        lines = panel.contour(mask, levels=[0.5], colors=style[0], linestyles=style[1], linewidths=1)
        # A dark rim: yellow is lost on bright tissue, blue on bone.
        lines.set(path_effects=[withStroke(linewidth=1.8, foreground="black")])


def _errors(target: NDArray[Any], prediction: NDArray[Any]) -> NDArray[np.float32]:
    """Any wrong class, (H, W, RGBA): pixels called less than they are, and more than they are."""
    overlay = np.zeros((*target.shape, 4), np.float32)
    overlay[target > prediction], overlay[target < prediction] = _MISSED, _FALSE
    return overlay


def _view(mask: Mask) -> tuple[float, float, float, float]:
    """Top, bottom, left and right of the part to show, pixels; everything if the mask is empty."""
    sides: list[float] = []
    for axis in (1, 2):
        size = mask.shape[axis]
        places = np.flatnonzero(mask.any(axis=(0, 3 - axis)))
        first, last = (places[0], places[-1]) if places.size else (0, size - 1)
        margin = _MARGIN * (last - first) + 2
        sides += [max(-0.5, first - margin), min(size - 0.5, last + margin)]
    return sides[0], sides[1], sides[2], sides[3]


def _whole(
    name: str, target: NDArray[np.uint8], prediction: NDArray[np.uint8], steps: tuple[float, float, float], axes: Axes
) -> Panel:
    """All slices of a case as one picture: livers, and over them the lesions that were found, missed and invented."""
    missed, false = untouched(target == 2, prediction == 2), untouched(prediction == 2, target == 2)
    layers = ((target > 0, _LIVER), (target == 2, _FOUND), (missed > 0, _TUMOURS[0][0]), (false > 0, _TUMOURS[1][0]))
    picture = np.ones((*target.shape[1:], 3))
    for mask, colour in layers:
        picture[mask.any(axis=0)] = to_rgb(colour)
    axes.imshow(picture, aspect="auto", interpolation="nearest")
    _outline(axes, prediction.max(axis=0) > 0, _PREDICTION)
    found, inside = lesions(target == 2, prediction == 2).found, np.unique(false[(target > 0) & (false > 0)])
    where = f" ({false.max() - inside.size} wholly outside the liver)" if false.any() else ""
    said = f"lesions by {name}: {found} found, {missed.max()} missed, {false.max()} false{where}"
    said += _elsewhere(target > 0, prediction > 0, steps)
    return Panel(said, [pixels(cast(matplotlib.figure.Figure, axes.figure))])


def _elsewhere(liver: Mask, called: Mask, steps: tuple[float, float, float]) -> str:
    """Where what is called liver lies, if most of it is no liver."""
    if not called.any():
        return "; nothing is called liver"
    if not liver.any() or 2 * (liver & called).sum() >= called.sum():
        return ""
    offsets = [(np.argwhere(called).mean(0) - np.argwhere(liver).mean(0))[axis] * steps[axis] for axis in range(3)]
    axis = int(np.abs(offsets).argmax())
    # Canonical slices go up, rows to the back, columns to the left.
    side = (("below", "above"), ("in front of", "behind"), ("right of", "left of"))[axis][int(offsets[axis] > 0)]
    return f"; what is called liver lies {abs(offsets[axis]):.0f} mm {side} the liver"


class SegmentationPictures(Pictures):
    """The slices of a case that tell most."""

    def picture(self, targets: Path, predictions: Path, case: str) -> matplotlib.figure.Figure:
        """CT, outlines of target against prediction, and errors, in the slices that tell most; see `draw_case`.

        The CT is the prepared case or the image beside the target; without either, outlines stand on black.

        Raises:
            BadDataError: Target or prediction of the case is missing.
            BadFileError: A file is unusable.
        """
        target, prediction = self._read(targets, predictions, case)
        slices = self._slices(targets, case, target.geometry)
        return draw_case(case, target.geometry, target.data, prediction.data, slices)

    def panels(self, targets: Path, predictions: Mapping[str, Path], case: str) -> CasePanels:
        """CT, and outlines and errors by method, in the slices that tell most of the first method."""
        read = {name: self._read(targets, folder, case) for name, folder in predictions.items()}
        target = next(iter(read.values()))[0]
        geometry, slices = target.geometry, self._slices(targets, case, target.geometry)
        truth = geometry.to_canonical(target.data)
        masks = {name: geometry.to_canonical(prediction.data) for name, (_, prediction) in read.items()}
        first = next(iter(masks.values()))
        # Most wrong pixels, which are shown first, and most of the false lesions.
        wrong = [
            int(mask.sum(axis=(1, 2)).argmax())
            for mask in (truth != first, untouched(first == 2, truth == 2) > 0)
            if mask.any()
        ]
        places = list(dict.fromkeys([*wrong, *telling_slices(truth, first)]))
        view = _view(np.any([truth > 0, *(mask > 0 for mask in masks.values())], axis=0))
        _, row_step, column_step = geometry.spacing
        frame: dict[str, Any] = {"extent": (-0.5, truth.shape[2] - 0.5, truth.shape[1] - 0.5, -0.5), "aspect": "auto"}
        shown = [slices(place) if slices else np.full((1, 1), -1, np.float32) for place in places]

        def panel(name: str, *outlined: NDArray[np.uint8], wrong: NDArray[np.uint8] | None = None) -> Panel:
            pictures = []
            for ct, place in zip(shown, places, strict=True):
                axes = _blank(view, row_step / column_step)
                axes.imshow(ct, cmap="gray", vmin=-1, vmax=1, **frame)
                for labels, liver, tumour in zip(outlined, (_TARGET, _PREDICTION), _TUMOURS, strict=False):
                    _outline(axes, labels[place] >= 1, liver)
                    _outline(axes, labels[place] >= 2, tumour)
                if wrong is not None:
                    overlay = np.zeros((*truth[place].shape, 4), np.float32)
                    for least, missed, false in ((1, _LIVER_MISSED, _LIVER_FALSE), (2, _TUMOUR_MISSED, _TUMOUR_FALSE)):
                        true, predicted = truth[place] >= least, wrong[place] >= least
                        overlay[true & ~predicted], overlay[predicted & ~true] = missed, false
                    axes.imshow(overlay, **frame)
                pictures.append(pixels(cast(matplotlib.figure.Figure, axes.figure)))
            return Panel(name, pictures, wrong is not None)

        low, high = self.config.section(SegmentationConfig).prepare.windows[0]
        return CasePanels(
            places=places,
            total=len(truth),
            panels=[
                panel("CT"),
                panel("target", truth),
                *(panel(name, truth, mask) for name, mask in masks.items()),
                *(panel(f"error of {name}", wrong=mask) for name, mask in masks.items()),
            ],
            unit="HU",
            window=(low, high),
            errors=None,
            legend="Outlines: the target's solid, liver yellow and tumours orange; the prediction's dashed, liver "
            "light blue and tumours dark blue. Errors in the same colours: missed liver yellow and tumours orange, "
            "false liver light blue and tumours dark blue. Shown are the slices with most wrong pixels, most of "
            "the false lesions, most tumour and most liver, cut to what any method calls liver.",
            whole=[
                _whole(name, truth, mask, geometry.spacing, _blank(view, row_step / column_step))
                for name, mask in masks.items()
            ],
            whole_legend="All slices in one, seen along the body. Grey is the target's liver; the dashed line is "
            "around what is called liver. Lesions: found black, missed orange, false dark blue.",
        )

    def slices(self, shown: Sequence[Shown]) -> matplotlib.figure.Figure:
        """CT, outlines of target against output in the part that is liver, and errors of each slice."""
        figure = matplotlib.figure.Figure(figsize=(8, 2.05 * len(shown) + 0.6), layout="constrained")
        grid = figure.subplots(len(shown), 4, squeeze=False)
        for panels, (name, batch, output) in zip(grid, shown, strict=True):
            target, prediction = batch["label"][0].numpy(), output.argmax(dim=1)[0].numpy()
            _draw_slice(panels, self._middle(batch), target, prediction, {})
            # Always the same part, whatever the network finds elsewhere: that is among the errors.
            top, bottom, left, right = _view(target[None] > 0)
            for panel in panels[1:3]:
                panel.set_xlim(left, right)
                panel.set_ylim(bottom, top)
            panels[0].set_ylabel(label(Path(name).name, 30), fontsize=7)
        _title(figure, grid[0], "")
        return figure

    def background(self, batch: Batch) -> NDArray[np.float32]:
        """The first window that the network sees."""
        shades: NDArray[np.float32] = np.float32(0.5) * (self._middle(batch) + 1)
        return shades

    def _read(self, targets: Path, predictions: Path, case: str) -> tuple[Volume, Volume]:
        """Labels of a case: the target and the prediction in its geometry."""
        paths = []
        for folder in (targets, predictions):
            files = label_files(folder)
            if (key := case.removeprefix("volume-")) not in files:
                raise BadDataError(f"{folder}: no segmentation of {case} ({target_stem(case)}.nii.gz)")
            paths.append(files[key])
        rules = self.config.section(SegmentationConfig).ingest
        target = read_labels(paths[0], rules=rules)
        return target, read_prediction(target, paths[0], paths[1], rules)

    def _middle(self, batch: Batch) -> NDArray[np.float32]:
        """The slice itself, (H, W) in -1..1, among its neighbours, in the first window."""
        image: NDArray[np.float32] = batch["image"][
            0, self.config.section(SegmentationConfig).prepare.neighbours
        ].numpy()
        return image

    def _slices(self, folder: Path, case: str, geometry: Geometry) -> Callable[[int], NDArray[np.float32]] | None:
        """Reads slices of a case's CT as a network sees them, if the folder has it on the target's grid."""
        prepared, settings = folder / f"{case}.h5", self.config.section(SegmentationConfig)
        window = settings.prepare.windows[0]
        if prepared.is_file():

            def read(index: int) -> NDArray[np.float32]:
                with open_prepared(prepared) as file:
                    return apply_window(read_slices(file, index, index + 1, 0)[0, 0], window)

            return read
        file = next((path for suffix in SUFFIXES if (path := folder / f"{case}{suffix}").is_file()), None)
        if file is None or not case.startswith("volume-"):
            return None
        image = read_image(file, settings.ingest)
        if image.geometry.mismatch(geometry):
            return None
        return lambda index: apply_window(image.canonical[index], window)


PART = SegmentationPictures
