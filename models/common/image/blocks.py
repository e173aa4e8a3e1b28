"""Layers that our own small networks are built from, whatever they learn."""

from torch import Tensor, nn


class ConvNormAct(nn.Sequential):
    """Convolution, BatchNorm, ReLU. With a kernel of 3, or of 4 and a stride of 2, sides are divided by the stride."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two ConvNormAct beside a shortcut, of the same size and channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(ConvNormAct(channels, channels), ConvNormAct(channels, channels))

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same."""
        out: Tensor = features + self.inner(features)
        return out
