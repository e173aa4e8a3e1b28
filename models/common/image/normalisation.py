"""Photos as networks take them, with torchvision's mean and standard deviation, inside the exported network."""

from typing import Any

import torch
from torch import Tensor, nn

MEAN = (123.675, 116.28, 103.53)  # of ImageNet's pixels, 0..255: what torchvision's weights were trained with,
STD = (58.395, 57.12, 57.375)  # and near enough to any photos' for a network that starts from nothing


class Normalised(nn.Module):
    """A network with its preprocessing: pictures (N, S, S, 3) uint8 -> logits. This is what is exported."""

    shift: Tensor
    factor: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        self.register_buffer("shift", -mean / std, persistent=False)
        self.register_buffer("factor", 1 / std, persistent=False)

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
