"""What trained networks cost, and which patches their routers choose."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.data import default_collate

from condswin.config.names import TaskName
from condswin.config.root import Config
from condswin.networks.blocks import parameter_count
from condswin.networks.costs import Flops, count_flops, latencies
from condswin.networks.saving import load_model
from condswin.networks.watching import Decision, has_routers, watched
from condswin.reporting.figures import svg
from condswin.reporting.training import router_maps
from condswin.tasks.learning import Learning
from condswin.tasks.loading import load
from condswin.tasks.pictures import Pictures

#: Slices that routers are watched on.
_SLICES = 4
#: Times that a slice is measured.
ROUNDS = 5
#: Kinds of patches, from a third with little to a third with much.
_THIRDS = 3


class Seen(NamedTuple):
    """A trained network on slices of the test cases.

    Attributes:
        parameters: Trained numbers.
        flops: Of one slice.
        size: Rows and columns of that slice.
        milliseconds: Median time of that slice on this machine's CPU.
        maps: Which patches of it took the heavy branch; None without routers.
        shares: Of the patches with little, some and much, the shares that took the heavy branch: by `intensity` and by
            `edge`; nothing without routers that choose.
    """

    parameters: int
    flops: Flops
    size: tuple[int, int]
    milliseconds: float
    maps: Markup | None
    shares: dict[str, list[float]]


def look_into(config: Config, task: TaskName, model: Path, prepared: Path) -> Seen:
    """Runs a trained network on a few slices of the test cases, on the CPU."""
    network, spec = load_model(model)
    slices = load(Learning, task, config).dataset(prepared, "test", spec.network, training=False)
    pictures = load(Pictures, task, config)
    routed = has_routers(network)
    backgrounds: list[NDArray[np.float32]] = []
    found: list[list[Decision]] = []
    first: torch.Tensor | None = None
    names = []
    for item in slices.telling(_SLICES if routed else 1):
        batch = default_collate([slices[item]])
        first = batch["image"] if first is None else first
        if routed:
            with torch.no_grad(), watched(network) as decisions:
                network(batch["image"])
            names.append(slices.name(item))
            backgrounds.append(pictures.background(batch))
            found.append(list(decisions))
    assert first is not None, "prepared data without a test slice was not evaluated"
    maps = None
    if routed:
        said = f"Patches that the routers of {spec.variant} chose, by stage: brighter where more blocks did"
        maps = svg(router_maps(names[0], backgrounds[0], found[0]), said)
    rows, columns = first.shape[-2:]
    flops = count_flops(network, first)
    milliseconds = 1e3 * latencies({"": (network, first)}, rounds=ROUNDS)[""]
    return Seen(parameter_count(network), flops, (rows, columns), milliseconds, maps, heavy_shares(backgrounds, found))


def heavy_shares(
    backgrounds: Sequence[NDArray[np.float32]], decisions: Sequence[Sequence[Decision]]
) -> dict[str, list[float]]:
    """Shares of patches that took the heavy branch, by how bright they are and by how much they change.

    Args:
        backgrounds: (H, W), 0 to 1, of each slice.
        decisions: On each slice; those that choose nothing are left out.

    Returns:
        For `intensity` and `edge` (mean length of the gradient) the shares of the lowest, middle and highest third of
        the patches of a map, over all maps.
    """
    shares: dict[str, list[list[float]]] = {"intensity": [], "edge": []}
    for background, found in zip(backgrounds, decisions, strict=True):
        images = {"intensity": background, "edge": np.hypot(*np.gradient(background))}
        for decision in found:
            if decision.chosen is None:
                continue
            chosen = decision.chosen[0].numpy()
            for name, image in images.items():
                patches = adaptive_avg_pool2d(torch.from_numpy(image)[None, None], chosen.shape)[0, 0].numpy()
                order = np.argsort(patches, axis=None, kind="stable")
                parts = np.array_split(chosen.ravel()[order], _THIRDS)
                if all(part.size for part in parts):
                    shares[name].append([float(part.mean()) for part in parts])
    return {name: np.mean(rows, axis=0).tolist() for name, rows in shares.items() if rows}
