"""What an ideal router could gain: a light network's images with a heavy one's in the parts that it picks.

    python -m tests.mri.headroom data/prepared/reconstruction/test ablation/reconstruction light heavy

reads the predictions that `condswin ablate` left of two networks, with every seed that both have. A share of the parts
of each volume (tiles or bands of rows of its slices, whole slices) comes from the heavy network. `error` picks the
parts where the light network is most wrong, as a router could learn to; `gain` those where the heavy one is better by
most, of which a part is luck: it would also gain something from two networks that are equally good.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from condswin.mri.metrics import psnr
from condswin.mri.scoring import read_case

Parts = NDArray[np.floating]
#: Rows and columns of a part, pixels; 0 for all there are.
UNITS = {"tile": (16, 16), "band": (16, 0), "slice": (0, 0)}


def pooled(error: Parts, rows: int, columns: int) -> Parts:
    """Sums (slices, m, n) of squared errors (slices, H, W) over parts of `rows` x `columns`, the last ones smaller."""
    down, across = (
        np.arange(0, side, step or side) for side, step in zip(error.shape[1:], (rows, columns), strict=True)
    )
    return np.add.reduceat(np.add.reduceat(error, down, axis=1), across, axis=2)


def chosen(worth: Parts, share: float, *, whole_volume: bool) -> NDArray[np.bool_]:
    """The parts (slices, m, n) of the highest worth: a share of each slice's or, of whole slices, of the volume's."""
    flat = worth.reshape(1 if whole_volume else len(worth), -1)
    order = (-flat).argsort(axis=1, kind="stable").argsort(axis=1)
    return (order < round(share * flat.shape[1])).reshape(worth.shape)


def composite(light: Parts, heavy: Parts, target: Parts, unit: str, rule: str, share: float) -> Parts:
    """The light network's images (slices, H, W) with the heavy one's where the rule says."""
    rows, columns = UNITS[unit]
    errors = [pooled((image - target) ** 2, rows, columns) for image in (light, heavy)]
    picked = chosen(errors[0] - errors[1] if rule == "gain" else errors[0], share, whole_volume=unit == "slice")
    height, width = target.shape[1:]
    mask = picked.repeat(rows or height, axis=1).repeat(columns or width, axis=2)[:, :height, :width]
    return np.where(mask, heavy, light)


def cases(prepared: Path, ablation: Path, networks: list[str], place: str) -> Iterator[list[Parts]]:
    """Target and both networks' images of all volumes, for every seed."""
    slugs = [name.replace(" ", "-").replace("/", "-") for name in networks]
    seeds = [{path.parent.name[len(slug) + 1 :] for path in ablation.glob(f"{slug}-*/scores.json")} for slug in slugs]
    for seed in sorted(seed for seed in set.intersection(*seeds) if seed.isdigit()):
        for file in sorted((ablation / f"{slugs[0]}-{seed}" / place).glob("*.h5")):
            read = [read_case(prepared / file.name, ablation / f"{slug}-{seed}" / place / file.name) for slug in slugs]
            yield [read[0][0].target, *(images for _, images, _ in read)]


def table(volumes: list[list[Parts]], shares: list[float]) -> str:
    """Gains over the light network in dB, mean over volumes and seeds, as Markdown; how sure they are, below it."""
    head = ["part", "picked by", *(f"{share:.0%}" for share in shares)]
    lines = ["| " + " | ".join(head) + " |", "|---|---" + "|---:" * len(shares) + "|"]
    base = [psnr(target, light) for target, light, _ in volumes]
    for unit in UNITS:
        for rule in ("error", "gain"):
            gains = [
                [psnr(target, composite(light, heavy, target, unit, rule, share)) for target, light, heavy in volumes]
                for share in shares
            ]
            cells = [f"{np.mean(np.subtract(values, base)):+.3f}" for values in gains]
            lines.append("| " + " | ".join([unit, rule, *cells]) + " |")
    gained = np.subtract([psnr(target, heavy) for target, _, heavy in volumes], base)
    error = gained.std(ddof=1) / len(gained) ** 0.5
    return "\n".join([*lines, "", f"All of it: {gained.mean():+.3f} dB, standard error {error:.3f} dB over volumes."])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What an ideal router could gain.")
    parser.add_argument("prepared", type=Path, help="Folder of prepared files with targets.")
    parser.add_argument("ablation", type=Path, help="Folder of a task that `condswin ablate` wrote.")
    parser.add_argument("networks", nargs=2, help="Light and heavy network, by their names in the study.")
    parser.add_argument("--place", default="test", help="`test`, or the name of an --also folder.")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25, 0.375, 0.5, 1.0])
    arguments = parser.parse_args()
    found = list(cases(arguments.prepared, arguments.ablation, arguments.networks, arguments.place))
    print(table(found, arguments.shares), end="\n\n")  # a page needs the line between two tables
