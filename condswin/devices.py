"""Where networks run."""

from typing import Literal

import torch


def device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that a parameter names: `auto` is a GPU where there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def ranks(place: torch.device) -> int:
    """How many processes train together there, each with batches of its own: one per GPU."""
    return torch.cuda.device_count() if place.type == "cuda" else 1
