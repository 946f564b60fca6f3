"""The U-Net around the blocks: embedding, merging, expanding, skips, and the way back to pixels.

Axes: B batch, H height, W width, C channels.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from condswin.networks.blocks import BlockFactory, fold_patches, two_blocks, unfold_patches
from condswin.networks.presets import FOLD
from condswin.networks.tiles import WidePixels

#: Smallest image side in pixels.
SMALLEST = 8
#: Patches whose expanded features (2048 channels in the thesis's networks) fit the cache.
CACHED = 256


class PatchEmbedding(nn.Module):
    """Cuts an image into patches and maps each to C channels: (B, in, H, W) to (B, H/p, W/p, C)."""

    def __init__(self, in_channels: int, dim: int, *, patch: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, dim, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image: Tensor) -> Tensor:
        """Embeds an image whose sides the patch divides."""
        result: Tensor = self.norm(self.convolution(image).permute(0, 2, 3, 1))
        return result


class PatchMerging(nn.Module):
    """Halves height and width, doubles channels: (B, H, W, C) to (B, H/2, W/2, 2C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Merges 2x2 neighbours."""
        result: Tensor = self.reduction(self.norm(unfold_patches(x)))
        return result


class PatchExpanding(nn.Module):
    """Multiplies height and width: (B, H, W, dim) to (B, factor*H, factor*W, out)."""

    def __init__(self, dim: int, out: int, *, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.expansion = nn.Linear(dim, factor**2 * out, bias=False)
        self.norm = nn.LayerNorm(out)

    def forward(self, x: Tensor) -> Tensor:
        """Expands each patch to `factor` x `factor` patches."""
        result: Tensor = self.norm(fold_patches(self.expansion(x), self.factor))
        return result

    def project(self, x: Tensor, weight: Tensor) -> Tensor:
        """Expands, then maps the channels of every pixel linearly: (B, H, W, dim) to (B, factor*H, factor*W, K).

        The expanded features are by far the largest tensor of a network. Norm and map work pixel by pixel, so both are
        done before pixels are put in their places, for a few patches at a time, which stay in the cache. Training
        keeps the features only and norms them again in the backward pass.

        Args:
            x: Patches.
            weight: (K, out).
        """

        def map_pixels(features: Tensor) -> Tensor:
            return F.linear(self.norm(features), weight)

        patches = x.flatten(0, 2)
        # A number of parts would tie an exported network to its batch.
        whole = torch.compiler.is_exporting()
        outputs = []
        for part in (patches,) if whole else torch.split(patches, CACHED):
            features = self.expansion(part).unflatten(-1, (self.factor**2, -1))
            if torch.is_grad_enabled() and not torch.compiler.is_compiling():
                outputs.append(checkpoint(map_pixels, features, use_reentrant=False, preserve_rng_state=False))
            else:
                outputs.append(map_pixels(features))
        return fold_patches(torch.cat(outputs).view(*x.shape[:3], -1), self.factor)


class DecoderStage(nn.Module):
    """Expands, joins the encoder's features of the same scale, and refines: two blocks at `dim` channels."""

    def __init__(self, dim: int, *, blocks: nn.Sequential) -> None:
        super().__init__()
        self.expanding = PatchExpanding(2 * dim, dim, factor=2)
        self.join = nn.Linear(2 * dim, dim)
        self.blocks = blocks

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Combines (B, H/2, W/2, 2C) with the skip (B, H, W, C)."""
        x = self.expanding(x)[:, : skip.shape[1], : skip.shape[2]]
        result: Tensor = self.blocks(self.join(torch.cat([x, skip], dim=-1)))
        return result


class Stem(nn.Module):
    """Convolutions on all pixels, whose features skip the patches and meet the output again.

    Pixels are first folded 2x2 into channels: nothing is lost, and wide convolutions get cheap
    (docs/explanation/decisions.md).
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(FOLD),
            nn.Conv2d(FOLD**2 * in_channels, channels, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GELU(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, in, H, W) to (B, channels, H/2, W/2)."""
        result: Tensor = self.layers(image)
        return result


class Modulation(nn.Module):
    """Scales and shifts channels by what is known beside the image: x -> (1 + a) x + b (Perez et al. 2018, FiLM).

    a and b are linear in cosines of what is known, and zero at the beginning, so that a network starts as it would
    without. There is no hidden layer, which zeros behind it would keep from learning in the first step.

    Args:
        conditions: How many numbers are known.
        dim: Channels.
    """

    WAVES = 4

    def __init__(self, conditions: int, dim: int) -> None:
        super().__init__()
        # Zeros, not a layer that draws: other weights stay what they are without conditions.
        self.weight = nn.Parameter(torch.zeros(2 * dim, conditions * self.WAVES))
        self.bias = nn.Parameter(torch.zeros(2 * dim))

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        """(B, H, W, dim) by known numbers (B, conditions) between 0 and 1."""
        waves = torch.arange(1, self.WAVES + 1, device=known.device, dtype=known.dtype)
        features = (torch.pi * known[..., None] * waves).cos().flatten(1)
        scale, shift = F.linear(features, self.weight, self.bias)[:, None, None].chunk(2, dim=-1)
        return x * (1 + scale) + shift


class SwinUNet(nn.Module):
    """A U-Net of the blocks that `make_block` makes; variants differ in nothing else.

    Args:
        in_channels: Channels of the input image.
        out_channels: Channels of the output image.
        embedding: Channels C of the first stage; doubles per stage.
        patch: Side of a patch in pixels.
        heads: Heads per stage, the bottleneck's last; their number less one is the number of stages ("basic layers").
        make_block: Makes one block.
        stem_channels: Channels of a stem of convolutions whose features are joined again before the output; 0 for the
            thesis's network, which leaves pixels to the patches.
        wide: Wide convolutions for routed tiles beside the stem's and the output's, of the given number of channels;
            None for none.
        residual: Add the input to the output where both have the same channels, so that the network learns a
            correction (of the zero-filled image).
        conditions: How many numbers are known beside an image, which modulate what each stage gives.
        deep_supervision: In training, append what each decoder stage would answer, at full size, finest first.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        embedding: int,
        patch: int,
        heads: tuple[int, ...],
        make_block: BlockFactory,
        stem_channels: int = 0,
        wide: WidePixels | None = None,
        residual: bool = False,
        conditions: int = 0,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.patch = patch
        self.residual = residual and in_channels == out_channels
        stages = len(heads) - 1
        dims = [embedding * 2**stage for stage in range(stages + 1)]
        self.stem = Stem(in_channels, stem_channels) if stem_channels else None
        # The patches of a folded image span the same pixels.
        folded_patch = patch // FOLD if self.stem else patch
        self.wide = wide
        seen = stem_channels + (wide.channels if wide else 0)
        self.embedding = PatchEmbedding(seen or in_channels, embedding, patch=folded_patch)
        self.encoder = nn.ModuleList(two_blocks(make_block, dims[stage], heads[stage]) for stage in range(stages))
        self.merging = nn.ModuleList(PatchMerging(dims[stage]) for stage in range(stages))
        self.bottleneck = two_blocks(make_block, dims[-1], heads[-1])
        self.bottleneck_norm = nn.LayerNorm(dims[-1])
        self.decoder = nn.ModuleList(
            DecoderStage(dims[stage], blocks=two_blocks(make_block, dims[stage], heads[stage]))
            for stage in reversed(range(stages))
        )
        self.output_norm = nn.LayerNorm(embedding)
        if self.stem is None:
            self.output_expanding = PatchExpanding(embedding, embedding, factor=patch)
            self.projection: nn.Module = nn.Conv2d(embedding, out_channels, 1, bias=False)
        else:
            self.output_expanding = PatchExpanding(embedding, stem_channels, factor=folded_patch)
            self.projection = nn.Sequential(
                nn.Conv2d(2 * stem_channels, stem_channels, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(stem_channels, FOLD**2 * out_channels, 3, padding=1),
                nn.PixelShuffle(FOLD),
            )
        order = [*dims, *reversed(dims[:-1])]
        self.modulations = nn.ModuleList(Modulation(conditions, dim) for dim in order if conditions)
        self.heads = nn.ModuleList(nn.Linear(dim, out_channels) for dim in reversed(dims[:-1]) if deep_supervision)

    def forward(self, image: Tensor, known: Tensor | None = None) -> Tensor:
        """Maps an image (B, in, H, W) of any height and width of at least 8 pixels to (B, out, H, W).

        With deep supervision, training gives (B, out * (1 + stages), H, W).

        Args:
            image: The image.
            known: (B, conditions), between 0 and 1, of a network with conditions.

        Raises:
            ValueError: The image has another number of axes or channels, or a side is too small.
        """
        check_image(image, self.in_channels)
        height, width = image.shape[-2:]
        padded = F.pad(image, (0, -width % self.patch, 0, -height % self.patch))
        stem = padded if self.stem is None else self.stem(padded)
        wide = None
        if self.wide is not None:
            tiles = self.wide.route(stem)
            wide = self.wide.stem(F.pixel_unshuffle(padded, FOLD), tiles)
        x = self.embedding(stem if wide is None else torch.cat([stem, wide], dim=1))
        modulations = iter(self.modulations)

        def modulated(features: Tensor) -> Tensor:
            modulation = next(modulations, None)
            return features if modulation is None else modulation(features, known)

        skips, scales = [], []
        for blocks, merging in zip(self.encoder, self.merging, strict=True):
            x = modulated(blocks(x))
            skips.append(x)
            x = merging(x)
        x = modulated(self.bottleneck_norm(self.bottleneck(x)))
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            x = modulated(stage(x, skip))
            scales.append(x)
        x = self.output_norm(x)
        if self.stem is None:
            pixels = self.output_expanding.project(x, cast(nn.Conv2d, self.projection).weight[:, :, 0, 0])
            pixels = pixels.permute(0, 3, 1, 2)
        else:
            features = torch.cat([self.output_expanding(x).permute(0, 3, 1, 2), stem], dim=1)
            pixels = self.projection(features)
            if self.wide is not None and wide is not None:
                heavy = self.wide.head(torch.cat([features, wide], dim=1), tiles)
                pixels = pixels + F.pixel_shuffle(heavy, FOLD)
        output = pixels[..., :height, :width]
        output = image + output if self.residual else output
        if not (self.heads and self.training):
            return output
        answers = [output]
        for finer, (head, features) in enumerate(zip(reversed(self.heads), reversed(scales), strict=True)):
            coarse = head(features).permute(0, 3, 1, 2)
            # Merged patches reach beyond an image that they do not divide.
            whole = F.interpolate(coarse, scale_factor=float(self.patch * 2**finer), mode="bilinear")
            answers.append(whole[..., :height, :width])
        return torch.cat(answers, dim=1)


def check_image(image: Tensor, channels: int) -> None:
    """Refuses an image that a network of ours cannot take.

    Raises:
        ValueError: It has another number of axes or channels, or a side below `SMALLEST`; the message names which.
    """
    if image.ndim != 4:
        raise ValueError(f"image has {image.ndim} axes; give (batch, channels, height, width)")
    if image.shape[1] != channels:
        raise ValueError(f"image has {image.shape[1]} channels; this network takes {channels}")
    for axis, size in zip(("height", "width"), image.shape[-2:], strict=True):
        if size < SMALLEST:
            raise ValueError(f"image {axis} is {size}; it must be at least {SMALLEST}")
