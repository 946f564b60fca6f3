"""Where networks run."""

from typing import Literal

import torch


def device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that a parameter names: `auto` is a GPU where there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def described(wanted: Literal["auto", "cpu", "cuda"]) -> str:
    """The device that a parameter names, for a record: `cpu`, or a card by its name."""
    place = device(wanted)
    return place.type if place.type == "cpu" else f"{place.type} ({torch.cuda.get_device_name(place)})"
