"""K-space, mask, images and errors of a scan, slice by slice."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from condswin.errors import BadFileError
from condswin.fourier import FloatArray, magnitude_image
from condswin.mri.pictures import ERROR_END, ERROR_UNIT, white_of
from condswin.mri.prepared import image_size, read_mask
from condswin.mri.reading import IMAGES, KSPACE, MASK, PREDICTION, SUFFIXES, ZERO_FILLED, VolumeReader
from condswin.tasks.pictures import CasePanels, Panel, shades
from condswin.tasks.viewing import Viewing, Volumes

#: Pixels of all pictures of a page: at somewhat less than a byte each, packed, and four thirds of that in HTML.
ROOM = 32_000_000
# Powers of ten from the largest value of k-space down to black.
_DECADES = 5
_WHOLE = "image of all k-space"

Slice = NDArray[Any]


class ReconstructionViewing(Viewing):
    """fastMRI's files, undersampled or not, of one or several coils, prepared ones and reconstructions."""

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    own: ClassVar[tuple[str, ...]] = (KSPACE, MASK, "target", "zero-filled", _WHOLE, "reconstruction")

    def takes(self, path: Path) -> bool:
        """Whether it holds k-space or magnitude images."""
        with VolumeReader(path) as reader:
            return any(name in reader for name in (KSPACE, *IMAGES))

    def prediction_of(self, path: Path) -> str:
        """The name of the k-space file."""
        with VolumeReader(path) as reader:
            return path.stem if PREDICTION in reader else ""

    def scan_name(self, case: str) -> str:
        """As fastMRI."""
        return f"{case}.h5"

    def show(
        self, scan: Path | None, reference: Path | None, predictions: Mapping[str, Path]
    ) -> tuple[CasePanels | Volumes, list[str]]:
        """Log magnitude of k-space, mask, target, zero-filled image, reconstructions, and errors against the target.

        Slices that a page has no room for are left out, evenly.
        """
        with ExitStack() as stack:
            return self._show(*self._sources(stack, scan, reference, predictions))

    def _sources(
        self, stack: ExitStack, scan: Path | None, reference: Path | None, predictions: Mapping[str, Path]
    ) -> tuple[dict[str, Callable[[int], Slice]], int, list[str]]:
        """What gives a slice of each picture, how many slices there are, and what was assumed."""
        found: dict[str, Callable[[int], Slice]] = {}
        counts: dict[Path, int] = {}
        assumed: list[str] = []

        def images(reader: VolumeReader, name: str) -> Callable[[int], Slice]:
            counts.setdefault(reader.path, reader.shape(name)[0])
            assumed.extend(reader.assumed(name))
            return lambda place: reader.read(name, place, place + 1)[0]

        reader = stack.enter_context(VolumeReader(scan)) if scan is not None else None
        truth = stack.enter_context(VolumeReader(reference)) if reference is not None else reader
        if reader is not None and KSPACE in reader:
            found |= _raw(reader, images(reader, KSPACE))
        if truth is not None and (name := truth.target_name()):
            found = {
                **{raw: found[raw] for raw in (KSPACE, MASK) if raw in found},
                "target": images(truth, name),
                **found,
            }
        elif reference is not None:
            raise BadFileError(reference, "holds no target; give a file with one as --reference")
        if reader is not None:
            if ZERO_FILLED in reader:
                found["zero-filled"] = images(reader, ZERO_FILLED)
            if PREDICTION in reader:
                found["reconstruction"] = images(reader, PREDICTION)
        for method, path in predictions.items():
            reader = stack.enter_context(VolumeReader(path))
            found[method] = images(reader, PREDICTION)
        first, *others = counts
        for path in others:
            if counts[path] != counts[first]:
                raise BadFileError(
                    path,
                    f"{counts[path]} slices, {first.name} has {counts[first]}: not of one scan; give predictions of it",
                )
        return found, counts[first], assumed

    def _show(
        self, sources: Mapping[str, Callable[[int], Slice]], total: int, notes: list[str]
    ) -> tuple[CasePanels, list[str]]:
        middle = {name: source(total // 2) for name, source in sources.items()}
        images = [name for name in middle if name not in (KSPACE, MASK)]
        judged = []
        if (truth := middle.get("target")) is not None:
            for name in (name for name in images if name != "target"):
                if middle[name].shape == truth.shape:
                    judged.append(name)
                else:
                    notes = [*notes, f"{name} is {middle[name].shape}, the target {truth.shape}: no errors of it"]
        size = sum(middle[name].size for name in (*middle, *judged))
        count = max(min(total, ROOM // size), 1)
        if count < total:
            notes = [*notes, f"{count} of {total} slices: the page has no room for more"]
        spread = {round(place) for place in np.linspace(0, total - 1, count)} if count > 1 else set()
        # The one that is shown first.
        places = [total // 2, *sorted(spread - {total // 2})][:count]
        shown = {name: [source(place) for place in places] for name, source in sources.items()}
        bright = "target" if "target" in shown else images[0] if images else ""
        white = (white_of(np.stack(shown[bright])) if bright else 0.0) or 1.0
        panels = [Panel(name, _levels(name, slices, white)) for name, slices in shown.items()]
        for name in judged:
            errors = [np.abs(one - other) for one, other in zip(shown[name], shown["target"], strict=True)]
            pixels = [shades(error, 0, white * ERROR_END) for error in errors]
            panels.append(Panel(f"error of {name}", pixels, error=True))
        scale = f"K-space: logarithm of magnitudes over {_DECADES} powers of ten. " if KSPACE in shown else ""
        legend = scale + ("Errors are absolute differences from the target, on a scale of their own." if judged else "")
        return (
            CasePanels(
                places,
                total,
                panels,
                "the file's units",
                (0.0, white) if bright else None,
                (0.0, 100 * ERROR_END) if judged else None,
                legend,
                ERROR_UNIT,
            ),
            notes,
        )


def _raw(reader: VolumeReader, kspace: Callable[[int], Slice]) -> dict[str, Callable[[int], Slice]]:
    """Magnitudes of k-space, the mask, and the image that they give where the file has none; of coils together."""
    mask = read_mask(reader) if MASK in reader else None
    rows, columns = reader.shape(KSPACE)[-2:]
    try:
        size = image_size(reader)
    except BadFileError:  # which does not say how large its images are
        size = rows, columns
    found = {KSPACE: lambda place: _together(np.abs(kspace(place)))}
    if mask is not None:
        found[MASK] = lambda place: np.broadcast_to(mask[None], (rows, columns))
    name = _WHOLE if mask is None else "zero-filled"
    found[name] = lambda place: _together(magnitude_image(kspace(place), size, mask))
    return found


def _together(magnitudes: FloatArray) -> FloatArray:
    """Root of the sum of squares over coils, if there are several."""
    combined: FloatArray = magnitudes if magnitudes.ndim == 2 else np.linalg.norm(magnitudes, axis=0)
    return combined


def _levels(name: str, slices: list[Slice], white: float) -> list[NDArray[np.uint8]]:
    if name == MASK:
        return [each.astype(np.uint8) * 255 for each in slices]
    if name == KSPACE:
        top = max(float(each.max()) for each in slices) or 1.0
        with np.errstate(divide="ignore"):
            return [shades(np.log10(each / top), -_DECADES, 0) for each in slices]
    return [shades(each, 0, white) for each in slices]


PART = ReconstructionViewing
