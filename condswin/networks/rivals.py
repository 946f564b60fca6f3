"""Networks of others to stand beside ours, from MONAI: a plain U-Net and SwinUNETR, both in 2D."""

import torch.nn.functional as F
from torch import Tensor, nn

from condswin.networks.presets import SwinUNETRSettings, UNetSettings
from condswin.networks.unet import check_image


class AnySize(nn.Module):
    """Lets a network that halves its input several times take any image: pads with edge values, crops the output.

    Args:
        network: From (B, in, H, W) to (B, out, H, W).
        in_channels: Channels that it takes.
        multiple: What height and width must be multiples of.
        smallest: Least height and width; above `multiple` where instance normalisation needs two values at the bottom.
        residual: Add the input to the output, if they have as many channels.
    """

    def __init__(self, network: nn.Module, *, in_channels: int, multiple: int, smallest: int, residual: bool) -> None:
        super().__init__()
        self.network = network
        self.in_channels = in_channels
        self.multiple = multiple
        self.smallest = smallest
        self.residual = residual

    def forward(self, image: Tensor) -> Tensor:
        """Maps an image (B, in, H, W) of any height and width of at least 8 pixels to (B, out, H, W).

        Raises:
            ValueError: The image has another number of axes or channels, or a side is too small.
        """
        check_image(image, self.in_channels)
        height, width = image.shape[-2:]
        bottom, right = (max(self.smallest, size + -size % self.multiple) - size for size in (height, width))
        output: Tensor = self.network(F.pad(image, (0, right, 0, bottom), mode="replicate"))[..., :height, :width]
        return image + output if self.residual else output


def unet(settings: UNetSettings, in_channels: int, out_channels: int) -> nn.Module:
    """MONAI's BasicUNet (Falk et al., doi:10.1038/s41592-018-0261-2)."""
    from monai.networks.nets import BasicUNet

    channels = settings.embedding
    network = BasicUNet(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=out_channels,
        features=(channels, channels, 2 * channels, 4 * channels, 8 * channels, channels),
        # The instance normalisation behind each convolution takes a bias away again.
        bias=False,
        dropout=settings.dropout,
    )
    residual = settings.residual and in_channels == out_channels
    return AnySize(network, in_channels=in_channels, multiple=16, smallest=32, residual=residual)


def swin_unetr(settings: SwinUNETRSettings, in_channels: int, out_channels: int) -> nn.Module:
    """MONAI's SwinUNETR (Hatamizadeh et al., arXiv:2201.01266)."""
    from monai.networks.nets import SwinUNETR

    network = SwinUNETR(
        in_channels=in_channels,
        out_channels=out_channels,
        feature_size=settings.embedding,
        num_heads=settings.heads,
        depths=settings.depths,
        window_size=settings.window,
        drop_rate=settings.dropout,
        spatial_dims=2,
    )
    residual = settings.residual and in_channels == out_channels
    return AnySize(network, in_channels=in_channels, multiple=32, smallest=64, residual=residual)
