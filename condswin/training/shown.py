"""A few validation slices, the same ones after every epoch: what the network makes of them, and what its routers do."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch.utils.data import default_collate

from condswin.networks.watching import Decision, has_routers, watched
from condswin.tasks.slices import Shown, Slices
from condswin.training.history import Rows
from condswin.training.measures import Measure

#: Slices over which routers are measured, whether they are drawn or not.
ROUTED = 8


class Epoch(NamedTuple):
    """What there is to draw of a training after an epoch.

    Attributes:
        rows: The history, with the machine's figures.
        monitor: Name of the score that picks the best epoch, as in the history; None without validation.
        shown: The slices to draw.
        decisions: What routers decided on each of them.
    """

    rows: Rows
    monitor: str | None
    shown: Sequence[Shown]
    decisions: Sequence[Sequence[Decision]]


#: Draws into the folder of the checkpoints.
Draw = Callable[[Epoch, Path], None]


class Watch(Measure):
    """Applies the network to the slices at the end of each validation, and measures its routers.

    `router/<block>/<kind>/entropy` is the mean of `Decision.entropy`. `router/<block>/<kind>/load` is how evenly the
    heavy branch is used: of the places that the choices on all slices could cover, the share that they do. It is 1
    where every slice has other places chosen, and small where a router goes by the place.

    Rank 0 does this alone, with the weights that are validated and without drawing a random number.

    Args:
        slices: Validated on; None for none.
        pictures: How many of them are drawn.
    """

    def __init__(self, slices: Slices | None, pictures: int) -> None:
        self._slices, self._pictures = slices, pictures
        self._inputs: list[tuple[str, dict[str, Any]]] | None = None
        self._found: list[tuple[Shown, list[Decision]]] = []

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The network is in evaluation mode here."""
        if trainer.global_rank > 0 or self._slices is None:
            return
        network: Any = module
        if self._inputs is None:
            items = self._slices.telling(max(self._pictures, ROUTED if has_routers(network.evaluated) else 0))
            with torch.random.fork_rng(devices=[]):
                self._inputs = [(self._slices.name(item), default_collate([self._slices[item]])) for item in items]
        self._found = []
        for name, batch in self._inputs:
            with trainer.precision_plugin.forward_context(), watched(network.evaluated) as decisions:
                output = network.evaluate(batch["image"].to(module.device))
            self._found.append((Shown(name, batch, output.float().cpu()), decisions))

    def values(self, trainer: pl.Trainer) -> dict[str, float]:
        """See the class."""
        by_router: dict[str, list[Decision]] = defaultdict(list)
        for _, decisions in self._found:
            for decision in decisions:
                by_router[f"router/{decision.block}/{decision.kind}"].append(decision)
        found = {f"{name}/entropy": _mean([each.entropy for each in same]) for name, same in by_router.items()}
        loads = {f"{name}/load": load(same) for name, same in by_router.items() if same[0].chosen is not None}
        return {**found, **loads}

    def drawn(self) -> tuple[list[Shown], list[list[Decision]]]:
        """The slices to draw and the decisions on them."""
        shown = self._found[: self._pictures]
        return [slice_ for slice_, _ in shown], [decisions for _, decisions in shown]


def load(decisions: Sequence[Decision]) -> float:
    """How evenly one router uses the heavy branch; see `Watch`. Places are compared among images of one size."""
    by_size: dict[tuple[int, ...], list[torch.Tensor]] = defaultdict(list)
    for decision in decisions:
        if decision.chosen is not None:
            by_size[tuple(decision.chosen.shape[1:])].append(decision.chosen)
    covered = coverable = 0
    for maps in by_size.values():
        chosen = torch.cat(maps)
        covered += int(chosen.any(0).sum())
        coverable += min(chosen[0].numel(), int(chosen.sum()))
    return covered / coverable


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
