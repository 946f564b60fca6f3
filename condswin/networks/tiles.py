"""Wide convolutions on routed tiles of an image: `Light(x) + score Heavy(x)`, tile by tile.

Convolutions on pixels are most of what small networks compute, and a good part of an image is background.

Axes: B batch, C channels, H rows and W columns of the folded image, n tiles of an image, k routed ones, t side of a
tile.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condswin.networks.presets import FOLD
from condswin.networks.routers import Router


class Tiles(NamedTuple):
    """Routed tiles of maps that stand in a frame of zeros, which is what convolutions pad with.

    Attributes:
        frame: Pixels beyond the map at its left, right, upper and lower side; the tiles fill the rest.
        inside: (B * k * t^2,) places of the tiles' pixels among those of all framed maps.
        around: (B * k * (t + 2)^2,) the same with the pixels around each tile.
        real: (B * k * t^2, 1) False for pixels beyond the map.
        gates: (B * k * t^2, 1) weights.
    """

    frame: tuple[int, int, int, int]
    inside: Tensor
    around: Tensor
    real: Tensor
    gates: Tensor


class TileConvolutions(nn.Module):
    """3x3 convolutions, with GELU in between, on routed tiles; elsewhere nothing is computed and the result is 0.

    Between convolutions tiles stand in the whole map, so neighbouring tiles see each other, and all tiles together give
    exactly what convolutions of the whole map give (submanifold sparse convolutions, Graham et al. 2018,
    arXiv:1711.10275).

    Args:
        widths: Channels in, between and out.
        tile: Side t.
    """

    def __init__(self, widths: list[int], *, tile: int) -> None:
        super().__init__()
        self.tile = tile
        self.convolutions = nn.ModuleList(nn.Conv2d(before, after, 3) for before, after in pairwise(widths))

    def forward(self, x: Tensor, tiles: Tiles) -> Tensor:
        """Transforms (B, C, H, W); the result is weighted by the tiles' gates."""
        batch, _, height, width = x.shape
        framed = F.pad(x, tiles.frame).permute(0, 2, 3, 1)
        flat = framed.flatten(0, 2)
        for number, convolution in enumerate(self.convolutions):
            cut = torch.unflatten(flat.index_select(0, tiles.around), 0, (-1, self.tile + 2, self.tile + 2))
            result = convolution(cut.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).flatten(0, 2)
            last = number + 1 == len(self.convolutions)
            result = result * tiles.gates.to(result.dtype) if last else F.gelu(result) * tiles.real
            flat = result.new_zeros(flat.shape[0], result.shape[1]).index_copy(0, tiles.inside, result)
        whole: Tensor = flat.view(batch, *framed.shape[1:3], -1)
        return whole[:, 1 : height + 1, 1 : width + 1].permute(0, 3, 1, 2)


class WidePixels(nn.Module):
    """A wide stem and a wide head for the tiles that a router picks by the mean of the light stem's features.

    Args:
        in_channels: Of the image.
        light_channels: Of the light stem, and of the patches' expanded features.
        channels: Of the wide convolutions.
        out_channels: Of the result.
        tile: Side t of a tile.
        router: On `light_channels`.
    """

    def __init__(
        self, in_channels: int, light_channels: int, channels: int, out_channels: int, *, tile: int, router: Router
    ) -> None:
        super().__init__()
        self.tile = tile
        self.channels = channels
        self.router = router
        self.stem = TileConvolutions([FOLD**2 * in_channels, channels, channels], tile=tile)
        self.head = TileConvolutions([2 * light_channels + channels, channels, FOLD**2 * out_channels], tile=tile)

    def route(self, light: Tensor) -> Tiles:
        """Picks tiles by the light stem's features (B, C, H, W)."""
        height, width = light.shape[2:]
        down, across = -(-height // self.tile), -(-width // self.tile)
        pooled = F.avg_pool2d(light, self.tile, ceil_mode=True).flatten(2).transpose(1, 2)
        routing = self.router(pooled)
        rows, columns = down * self.tile + 2, across * self.tile + 2
        indices = routing.indices
        corner = (indices // across * columns + indices % across) * self.tile
        image = torch.arange(indices.shape[0], device=indices.device)[:, None] * (rows * columns)

        def places(start: int, stop: int) -> Tensor:
            reach = torch.arange(start, stop, device=indices.device)
            offsets = (reach[:, None] * columns + reach).flatten()
            every: Tensor = (image + corner)[..., None] + offsets
            return every.flatten()

        inside = places(1, self.tile + 1)
        real = ((inside // columns % rows <= height) & (inside % columns <= width))[:, None]
        return Tiles(
            frame=(1, columns - 1 - width, 1, rows - 1 - height),
            inside=inside,
            around=places(0, self.tile + 2),
            real=real,
            gates=routing.gates.flatten().repeat_interleave(self.tile**2)[:, None] * real,
        )
