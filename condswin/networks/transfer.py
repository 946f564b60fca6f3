"""Starting a network from the weights of another one, and saying which of them it took."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from condswin.errors import ConfigError

#: Names that a line of a report has at most.
_SHOWN = 6


@dataclass(frozen=True)
class Transfer:
    """What became of weights, by name; sorted.

    Attributes:
        matched: Taken.
        missing: Of the network, which the other one has not: they stay as they are.
        left_over: Of the other one, which the network has not.
        reshaped: Of both, in another shape: they stay as they are. With the shapes, the network's first.
        numbers: How many numbers were taken.
        of: How many the network has.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    reshaped: tuple[str, ...]
    numbers: int
    of: int

    def lines(self) -> list[str]:
        """The report."""
        found = [f"{len(self.matched)} weights matched ({self.numbers} of {self.of} numbers)"]
        for what, names in (
            ("missing there, fresh here", self.missing),
            ("left over", self.left_over),
            ("of another shape, fresh here", self.reshaped),
        ):
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            found.append(f"{len(names)} {what}" + (f": {', '.join(names[:_SHOWN])}{more}" if names else ""))
        return found

    def record(self) -> dict[str, Any]:
        """The counts as JSON."""
        return {
            "matched": len(self.matched),
            "missing": len(self.missing),
            "left_over": len(self.left_over),
            "reshaped": len(self.reshaped),
            "numbers": self.numbers,
            "of": self.of,
        }


def transfer(network: nn.Module, weights: Mapping[str, Tensor], origin: str) -> Transfer:
    """Puts all weights into a network that it has under the same names and in the same shapes.

    Args:
        network: Changed in place.
        weights: As `state_dict` gives them.
        origin: Whose they are, for the message.

    Raises:
        ConfigError: No trained weight matches; the network is as it was.
    """
    ours = network.state_dict()
    common = sorted(set(ours) & set(weights))
    matched = [name for name in common if ours[name].shape == weights[name].shape]
    trained = {name for name, _ in network.named_parameters()}
    if not trained & set(matched):
        raise ConfigError(
            f"{origin}: none of its {len(weights)} weights has a name and shape of this network's {len(ours)}; start "
            "from a network of the same kind and size"
        )
    with torch.no_grad():
        for name in matched:
            ours[name].copy_(weights[name])
    return Transfer(
        matched=tuple(matched),
        missing=tuple(sorted(set(ours) - set(weights))),
        left_over=tuple(sorted(set(weights) - set(ours))),
        reshaped=tuple(
            f"{name} {tuple(ours[name].shape)} for {tuple(weights[name].shape)}"
            for name in common
            if name not in matched
        ),
        numbers=sum(ours[name].numel() for name in matched),
        of=sum(value.numel() for value in ours.values()),
    )
