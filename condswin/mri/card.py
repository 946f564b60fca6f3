"""The data card: what an ingested dataset holds, as numbers (`card.json`) and one page to look at (`card.html`)."""

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import ks_2samp

from condswin.config.names import SPLITS
from condswin.errors import BadDataError
from condswin.fourier import FloatArray, magnitude_image
from condswin.manifest import Manifest
from condswin.mri.coils import Multicoil, open_volume
from condswin.mri.config import UndersampleConfig
from condswin.mri.extent import Extent
from condswin.mri.masks import Mask, draw_mask, name_seed
from condswin.mri.prepared import image_size, read_mask
from condswin.mri.reading import KSPACE, VolumeReader
from condswin.plain import label

#: Statistics of a volume whose distribution is compared: name, and what it is for the page.
STATISTICS = {
    "log_maximum": "largest value, log10",
    "mean_to_maximum": "mean over largest value",
    "background": "pixels below 5 % of the largest",
    "snr_db": "signal to noise, dB",
    "rows": "k-space rows",
    "columns": "k-space columns",
    "slices": "slices",
}

#: Sample slices and masks shown.
SAMPLES = 8

# The corner whose rms counts as noise, as a share of each side.
_CORNER = 0.08


def volume_statistics(path: Path, multicoil: Multicoil = "refuse") -> dict[str, float]:
    """Statistics of one ingested volume, by the names of `STATISTICS`; the signal is the middle slice's.

    Signal to noise is the mean of what is brighter than 5 % of the largest value over the rms of the darkest of the
    target's four corners. That is noise where a corner is empty air, and a lower bound elsewhere.

    Raises:
        BadFileError: The file is unusable.
    """
    with open_volume(path, multicoil) as reader:
        slices, rows, columns = reader.shape(KSPACE)
        image = _middle_slice(reader)
    largest = float(image.max()) or 1.0
    bright = image > 0.05 * largest
    height, width = (max(int(side * _CORNER), 2) for side in image.shape)
    corners = [image[:height, :width], image[:height, -width:], image[-height:, :width], image[-height:, -width:]]
    noise = min(float(np.sqrt(np.mean(np.square(corner, dtype=np.float64)))) for corner in corners)
    signal = float(image[bright].mean()) if bright.any() else largest
    return {
        "log_maximum": float(np.log10(largest)),
        "mean_to_maximum": float(image.mean()) / largest,
        "background": 1 - float(bright.mean()),
        # Air that was set to zero has no noise: 80 dB is more than any scanner's.
        "snr_db": min(20 * float(np.log10(signal / noise)), 80.0) if noise > 0 else 80.0,
        "rows": float(rows),
        "columns": float(columns),
        "slices": float(slices),
    }


def describe(folder: Path, manifest: Manifest, multicoil: Multicoil = "refuse") -> dict[str, Any]:
    """Numbers of an ingested dataset, JSON-able, without anything that identifies a person.

    Raises:
        BadDataError: One content is in two splits.
        BadFileError: A file is unusable.
    """
    paths = {case.name: manifest.path(folder, next(iter(case.files.values()))) for case in manifest.cases}
    with ThreadPoolExecutor(cpu_count()) as pool:
        found = pool.map(lambda path: volume_statistics(path, multicoil), paths.values())
        statistics = dict(zip(paths, found, strict=True))
    return {
        "format": 1,
        "data_sha256": manifest.fingerprint(),
        "cases": len(manifest.cases),
        "rejected": len(manifest.rejected),
        "splits": {
            split: {
                "cases": sum(case.split == split for case in manifest.cases),
                "patients": len({case.patient for case in manifest.cases if case.split == split}),
                "slices": sum(int(case.details["shape"][0]) for case in manifest.cases if case.split == split),
            }
            for split in SPLITS
        },
        "acquisitions": dict(Counter(str(case.details["acquisition"]) for case in manifest.cases)),
        "shapes": dict(Counter(" x ".join(map(str, case.details["shape"][1:])) for case in manifest.cases)),
        "targets": dict(Counter(" x ".join(map(str, case.details["target_shape"][1:])) for case in manifest.cases)),
        "duplicates": duplicates(manifest),
        "statistics": {name: [values[name] for values in statistics.values()] for name in STATISTICS},
    }


def duplicates(manifest: Manifest) -> list[list[str]]:
    """Names of cases with equal content, a list per content.

    Raises:
        BadDataError: They are in different splits.
    """
    by_content: dict[str, list[str]] = defaultdict(list)
    split_of = {case.name: case.split for case in manifest.cases}
    for case in manifest.cases:
        by_content[next(iter(case.files.values())).sha256].append(case.name)
    groups = [sorted(names) for names in by_content.values() if len(names) > 1]
    for names in groups:
        if len({split_of[name] for name in names}) > 1:
            listed = ", ".join(f"{name} ({split_of[name]})" for name in names)
            raise BadDataError(f"{listed} have the same content in different splits; remove all but one, ingest again")
    return groups


def drift(card: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """How far two datasets are apart, 0 (alike) to 1, by statistic.

    For numbers the largest difference of their cumulative distributions (Kolmogorov-Smirnov), for acquisitions that of
    their shares (total variation distance). The mean difference of few volumes is noise: see `noise_floor`.
    """
    result = {
        name: float(ks_2samp(card["statistics"][name], reference["statistics"][name]).statistic)
        for name in STATISTICS
        if card["statistics"][name] and reference["statistics"][name]
    }
    shares = [{kind: count / one["cases"] for kind, count in one["acquisitions"].items()} for one in (card, reference)]
    kinds = set(shares[0]) | set(shares[1])
    result["acquisitions"] = 0.5 * sum(abs(shares[0].get(kind, 0) - shares[1].get(kind, 0)) for kind in kinds)
    return result


def noise_floor(cases: int, others: int) -> float:
    """Drift that equal populations of these sizes exceed once in a hundred times (Smirnov's asymptotic bound)."""
    return float(np.sqrt(-0.5 * np.log(0.01 / 2) * (cases + others) / (cases * others)))


def figures(
    folder: Path,
    manifest: Manifest,
    card: dict[str, Any],
    undersample: UndersampleConfig,
    multicoil: Multicoil = "refuse",
) -> dict[str, Figure]:
    """Histograms, masks and sample slices by caption."""
    cases = manifest.cases[:: max(len(manifest.cases) // SAMPLES, 1)][:SAMPLES]
    paths = [manifest.path(folder, next(iter(case.files.values()))) for case in cases]
    shown = {"Statistics of the volumes.": _histograms(card)}
    titles = [f"{label(case.name, 30)}\n{case.split}, {label(case.details['acquisition'], 24)}" for case in cases]
    shown["Middle slices, each scaled to its largest value."] = _images(paths, titles, multicoil)
    masks = [
        draw_mask(undersample, int(case.details["shape"][2]), name_seed(path.name)).within(
            Extent(*case.details["measured_columns"])
        )
        for path, case in zip(paths, cases, strict=True)
    ]
    shown["Masks that these files' names draw (white is measured), with nominal and true acceleration."] = _masks(masks)
    return shown


def _middle_slice(reader: VolumeReader) -> FloatArray:
    """Of the target; of an undersampled file without one, of its zero-filled image."""
    name, middle = reader.target_name(), reader.shape(KSPACE)[0] // 2
    if name is None:
        block = reader.read(KSPACE, middle, middle + 1)
        shown: FloatArray = magnitude_image(block, image_size(reader), read_mask(reader))[0]
        return shown
    image: FloatArray = reader.read(name, middle, middle + 1)[0]
    return image


def _histograms(card: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(2, 4).ravel()
    for axis, (name, title) in zip(axes, STATISTICS.items(), strict=False):
        axis.hist(card["statistics"][name], bins=20, color="#346")
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=8)
    counts = card["acquisitions"]
    names = [label(kind, 24) for kind in counts]
    axes[-1].barh(range(len(counts)), list(counts.values()), color="#346", tick_label=names)
    axes[-1].set_title("acquisition", fontsize=9)
    axes[-1].tick_params(labelsize=8)
    return figure


def _images(paths: list[Path], titles: list[str], multicoil: Multicoil) -> Figure:
    figure = Figure(figsize=(11, 6.2), layout="constrained")
    axes = figure.subplots(2, SAMPLES // 2).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, path, title in zip(axes, paths, titles, strict=False):
        with open_volume(path, multicoil) as reader:
            axis.imshow(_middle_slice(reader), cmap="gray")
        axis.set_title(title, fontsize=8)
    return figure


def _masks(masks: list[Mask]) -> Figure:
    figure = Figure(figsize=(11, 0.45 * len(masks) + 0.6), layout="constrained")
    axes = figure.subplots(len(masks), 1, squeeze=False)[:, 0]
    for axis, mask in zip(axes, masks, strict=True):
        axis.imshow(mask.sampled[None], cmap="gray", aspect="auto", interpolation="nearest")
        axis.set_yticks([])
        axis.set_xticks([])
        label = f"{mask.acceleration}x, {mask.true_acceleration:.2f}x"
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    return figure
