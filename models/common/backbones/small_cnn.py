"""The small CNN for little pictures, whatever kind learns from them: small_cnn with stride 2, resnet9 with stride 1."""

import itertools

from torch import Tensor, nn

from models.common.image.blocks import ConvNormAct, ResidualBlock


class SmallCNN(nn.Module):
    """A stem, then one stage per halving down to 4 px: convolution, pooling, residual block.

    After ResNet-9 (Coleman et al., DAWNBench 2017) and airbench (Jordan 2024). A stage has twice the channels of the
    one before it, up to eight times the stem's. With `stride` 2 the stem halves the picture (from 16 px up): the
    full resolution is where most of a CPU's time would go.
    """

    def __init__(self, classes: int, size: int, width: int, stride: int) -> None:
        super().__init__()
        halved = stride == 2 and size >= 16
        stages = max(1, (size // (8 if halved else 4)).bit_length() - 1)  # halved: 16 px: 1, 32 px: 2, 64 px: 3
        channels = [width * 2 ** min(stage, 3) for stage in range(stages + 1)]
        stem = ConvNormAct(3, width, kernel=4, stride=2) if halved else ConvNormAct(3, width)
        blocks = [
            nn.Sequential(ConvNormAct(in_channels, out_channels), nn.MaxPool2d(2), ResidualBlock(out_channels))
            for in_channels, out_channels in itertools.pairwise(channels)
        ]
        self.features = nn.Sequential(stem, *blocks)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.classifier = nn.Linear(channels[-1], classes)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, size, size) -> logits (N, classes)."""
        logits: Tensor = self.classifier(self.pool(self.features(pictures)).flatten(1))
        return logits
