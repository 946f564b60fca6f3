"""Learning without targets: some measured lines are withheld from a network, which must foretell them.

Source: Yaman et al. 2020 (arXiv:1910.09116, SSDU); fresh draws for each slice and epoch: Yaman et al. 2020
(arXiv:2008.06029, multi-mask). They withhold points; scans of two dimensions are undersampled in lines.

Axes: B batch, H rows (readout), W columns (phase encoding).
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from condswin.errors import BadFileError
from condswin.fourier import fftc
from condswin.mri.config import UndersampleConfig
from condswin.mri.dataset import ComplexSliceDataset
from condswin.mri.extent import center
from condswin.mri.inputs import complex_inputs
from condswin.mri.reading import VolumeReader
from condswin.mri.volumes import Volume
from condswin.tasks.slices import Batch


class MeasuredSliceDataset(ComplexSliceDataset):
    """Slices of which unrolled networks see a part of the measured lines. No target is read.

    An item has `image` (3, H, W) of the lines that are shown; `measured` (H, W), complex, what was measured in the
    withheld lines, in the same units, and zero elsewhere; `held` (1, W), which lines these are; `columns`, those of the
    image; `std` and `mean` (0) as of other slices; and `item`.

    Training draws the withheld lines anew each time, else a slice has the same ones every time. A fully sampled file
    keeps one mask, seeded by its name, in training too: nothing else of it counts as measured.

    Args:
        folder: `prepared/<split>`.
        undersample: Masks for fully sampled files.
        training: Draw lines afresh, mirror, and turn the phase.
        share: Of the measured lines outside the fully sampled centre that is withheld.
        cache_bytes: Largest split that is held in memory.

    Raises:
        BadDataError: The folder has no file.
        BadFileError: A file is unusable, or has no line outside the centre.
    """

    supervised = False

    def __init__(
        self, folder: Path, undersample: UndersampleConfig, *, training: bool, share: float, cache_bytes: int = 1 << 30
    ) -> None:
        super().__init__(folder, undersample, training=training, cache_bytes=cache_bytes)
        self._share = share
        for volume in self._volumes:
            if not outer_lines(self._mask(volume)).size:
                raise BadFileError(
                    volume.path,
                    "no line outside its fully sampled centre was measured, so none can be withheld from a network "
                    "(reconstruction.train.loss: ssdu); leave it out",
                )

    def raw(self, index: int) -> Batch:
        """See `Slices`; `held` (W,) are the withheld columns."""
        read = super().raw(index)
        draw = None if self._training else torch.Generator().manual_seed(index)
        columns = torch.tensor(self._volumes[self._index[index][0]].size[1])
        return {**read, "held": withhold(read["sampled"].numpy(), self._share, draw), "columns": columns}

    def inputs(self, batch: Batch) -> Batch:
        """See `Slices`."""
        hybrid, held = batch["signal"], batch["held"][:, None]
        if "turn" in batch:
            hybrid = torch.where(batch["mirrored"][:, None, None], hybrid.flip(-2), hybrid)
            turn = batch["turn"][:, None, None]
            hybrid = hybrid * torch.polar(torch.ones_like(turn), 2 * torch.pi * turn)
        shown = batch["sampled"][:, None] & ~held
        seen = hybrid * shown
        # The largest value of the volume is its target's: the slice's own strength bounds the scale of an empty one.
        strength = torch.linalg.vector_norm(seen, dim=(-2, -1)) / (seen.shape[-2] * seen.shape[-1]) ** 0.5
        image, std, _ = complex_inputs(seen, shown, int(batch["columns"][0]), strength)
        measured = hybrid * held / std[:, None, None]
        facts = {name: batch[name] for name in ("columns", "item")}
        return {"image": image, "measured": measured, "held": held, "mean": torch.zeros_like(std), "std": std, **facts}

    def _drawn(self, _: Volume) -> Batch:
        # No uneven phase: it mixes lines, measured ones with others.
        return {"mirrored": torch.rand(()) < 0.5, "turn": torch.rand(())}

    def _target(self, reader: VolumeReader, volume: Volume, start: int, stop: int) -> Tensor:
        return torch.empty(stop - start, 0)


def outer_lines(sampled: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The measured lines of a mask (W,) outside its fully sampled centre."""
    middle = center(sampled)
    lines = np.flatnonzero(sampled)
    return lines[(lines < middle.first) | (lines >= middle.last)]


def withhold(sampled: NDArray[np.bool_], share: float, draw: torch.Generator | None = None) -> Tensor:
    """Draws a share of the measured lines outside the centre, at least one.

    Args:
        sampled: (W,), the measured lines, at least one of them outside the centre.
        share: Of these.
        draw: What to draw with; torch's global generator if None.

    Returns:
        (W,), booleans.
    """
    lines = torch.from_numpy(outer_lines(sampled))
    chosen = lines[torch.randperm(len(lines), generator=draw)[: max(round(share * len(lines)), 1)]]
    held = torch.zeros(len(sampled), dtype=torch.bool)
    held[chosen] = True
    return held


def line_loss(output: Tensor, batch: Batch) -> Tensor:
    """Error of withheld lines in both norms, each relative to the norm of what was measured there.

    Args:
        output: (B, 2, H, W), float32.
        batch: Of a `MeasuredSliceDataset`.

    Returns:
        The mean over slices. One that measured nothing in these lines counts as 0.
    """
    measured, error = batch["measured"].flatten(1), _error(output, batch).flatten(1)
    loss = output.new_zeros(len(output))
    for order in (1, 2):
        norm = torch.linalg.vector_norm(measured, order, dim=1)
        wrong = torch.linalg.vector_norm(error, order, dim=1)
        loss = loss + torch.where(norm > 0, wrong / norm.where(norm > 0, 1.0), 0.0)
    return loss.mean()


def held_out_snr(output: Tensor, batch: Batch) -> Tensor:
    """Signal to error (B,) of withheld lines, dB; not finite of slices that measured nothing there."""
    signal, error = (part.abs().square().sum((-2, -1)) for part in (batch["measured"], _error(output, batch)))
    return 10 * (signal / error).log10()


def _error(output: Tensor, batch: Batch) -> Tensor:
    """Differences from what was measured, (B, H, W); zero in lines that were not withheld."""
    lines: Tensor = fftc(torch.complex(output[:, 0], output[:, 1]))
    return lines * batch["held"] - batch["measured"]
