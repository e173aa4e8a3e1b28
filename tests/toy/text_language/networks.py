"""One hidden layer: letter shares (N, 34) uint8 -> logits (N, languages)."""

import torch
from torch import Tensor, nn

from models.text_language.preprocessing import ALPHABET


class Network(nn.Module):
    def __init__(self, languages: int) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(len(ALPHABET), 16), nn.Linear(16, languages)

    def forward(self, shares: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.stem(shares.float() / 25)))
        return logits
