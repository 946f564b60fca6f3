"""Several networks that segment as one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Gives logits whose softmax is the mean of the networks' class probabilities.

    Args:
        networks: Of equal inputs, from (B, C, H, W) to logits (B, classes, H, W).
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, classes, H, W)."""
        mean = torch.stack([network(images).float().softmax(dim=1) for network in self.networks]).mean(dim=0)
        return mean.clamp_min(torch.finfo(mean.dtype).tiny).log()
