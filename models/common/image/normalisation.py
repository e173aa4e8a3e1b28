"""Photos as a network takes them, with the mean and standard deviation that it expects, inside the exported network."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

MEAN = (123.675, 116.28, 103.53)  # of ImageNet's pixels, 0..255: what torchvision's weights were trained with,
STD = (58.395, 57.12, 57.375)  # and near enough to any photos' for a network that starts from nothing


class Normalised(nn.Module):
    """A network with its preprocessing: pictures (N, S, S, 3) uint8 -> logits. This is what is exported.

    mean, std: of red, green and blue, 0..255; each network's own stand in models/common/backbones/normalisation.py.
    """

    shift: Tensor
    factor: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> None:
        super().__init__()
        self.network = network
        means, deviations = torch.tensor(mean), torch.tensor(std)
        self.register_buffer("shift", -means / deviations, persistent=False)
        self.register_buffer("factor", 1 / deviations, persistent=False)

    def forward(self, pictures: Tensor) -> Any:
        """Logits (N, classes), or in training whatever the network gives."""
        return self.network(self.normalise(pictures.float()))

    def normalise(self, pictures: Tensor) -> Tensor:
        """(N, S, S, 3) float in 0..255 -> (N, 3, S, S), zero mean, unit deviation, channels last in memory.

        Whole rows at a time: a broadcast over three channels would take five times as long as a CPU needs.
        """
        count, height, width, _ = pictures.shape
        rows = pictures.reshape(count, height, width * 3)
        normalised = torch.addcmul(self.shift.repeat(width), rows, self.factor.repeat(width))
        return normalised.view(count, height, width, 3).permute(0, 3, 1, 2)
