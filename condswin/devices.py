"""Where networks run."""

from typing import Literal

import torch


def device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that a parameter names: `auto` is a GPU where there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)
