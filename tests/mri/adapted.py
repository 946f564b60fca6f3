"""What adapting a network to each scan is worth: on kinds of scans that training never draws, and on real files.

    python -m tests.mri.adapted --model models/reconstruction/unrolled-swin [--also ../shared/data/mri] [--volumes 2]

Scans and masks are those of `tests.mri.stress`.
"""

import argparse
import json
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from torch import nn

from condswin.config.profiles import compose
from condswin.mri.metrics import psnr, ssim
from condswin.mri.prediction import ReconstructionPrediction
from condswin.mri.reading import ADAPTED, PREDICTION, VolumeReader
from condswin.mri.undersample import prepare_undersampled
from condswin.networks.saving import load_model
from tests.mri.stress import KINDS, MASKS, write_scan

HEAD = "kind | volumes | PSNR | gain | worst | SSIM | gain | worst | lines, before | after | steps"


class Result(NamedTuple):
    """Of a volume: PSNR (dB) and SSIM before and after, error in withheld lines before and after, steps."""

    before: float
    after: float
    ssim_before: float
    ssim_after: float
    lines_before: float
    lines_after: float
    steps: int


def adapted(network: nn.Module, prepared: Path, scratch: Path, steps: int) -> Result:
    """Reconstructs an undersampled file with a network as it is and adapted."""
    with VolumeReader(prepared) as reader:
        target = reader.read("reconstruction_esc")
    images, record = [], {}
    for count in (0, steps):
        settings = [f"reconstruction.predict.adapt={count}", "reconstruction.predict.fallback=none"]
        ReconstructionPrediction(compose(["demo"], settings)).predict(network, prepared, scratch / "out.h5")
        with h5py.File(scratch / "out.h5") as file:
            images.append(file[PREDICTION][()])
            record = json.loads(file.attrs.get(ADAPTED, "{}"))
    decibels, likeness = [psnr(target, image) for image in images], [ssim(target, image) for image in images]
    return Result(*decibels, *likeness, record["before"], record["after"], record["steps"])


def line(name: str, results: list[Result]) -> str:
    """A row of the table."""
    before, after, like, liked, lines, left, steps = np.array(results, dtype=float).T
    gains = [
        f"{old.mean():.{digits}f} | {(new - old).mean():+.{digits}f} ± {(new - old).std():.{digits}f} | "
        f"{(new - old).min():+.{digits}f}"
        for old, new, digits in ((before, after, 2), (like, liked, 3))
    ]
    rest = [f"{lines.mean():.3f}", f"{left.mean():.3f}", f"{steps.mean():.0f}"]
    return f"| {' | '.join([name, str(len(results)), *gains, *rest])} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a trained unrolled network")
    parser.add_argument("--steps", type=int, default=40, help="reconstruction.predict.adapt")
    parser.add_argument("--volumes", type=int, default=2, help="of each kind")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--also", type=Path, help="folder of fully sampled files")
    arguments = parser.parse_args()
    network, _ = load_model(arguments.model)
    torch.set_num_threads(1)
    print(f"| {HEAD} |\n|---|{'---:|' * HEAD.count('|')}")
    everything: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for path in sorted(arguments.also.glob("*.h5")) if arguments.also else []:
            prepare_undersampled(path, scratch / path.name, MASKS)
            print(line(path.stem, [adapted(network, scratch / path.name, scratch, arguments.steps)]), flush=True)
        for name in arguments.kinds:
            results = []
            for number in range(arguments.volumes):
                seed = (arguments.seed, zlib.crc32(name.encode()), number)
                write_scan(scratch / "source.h5", KINDS[name], np.random.default_rng(seed))
                prepared = scratch / f"scan{'-'.join(map(str, seed))}.h5"
                prepare_undersampled(scratch / "source.h5", prepared, KINDS[name].masks)
                results.append(adapted(network, prepared, scratch, arguments.steps))
            print(line(name, results), flush=True)
            everything += results
    if everything:
        print(line("all kinds", everything))


if __name__ == "__main__":
    main()
