"""What learns: the network, its examples, its loss."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.training.freezing import layer_groups
from models.text_language.networks import Network

Batch = tuple[Tensor, Tensor]  # letter shares (N, 34) uint8, languages (N,) int64


class LanguageLearner:
    """A Learner (models/common/training/loop.py) of texts small enough to be held as one batch for each split."""

    network: nn.Module

    def __init__(self, network: Network, training: Batch, validation: Batch) -> None:
        self.network, self.groups = network, layer_groups(network, [network.head])
        self.examples, self.validation_examples = len(training[1]), len(validation[1])
        self.training, self.validation = training, validation

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Those training texts."""
        return self.training[0][positions], self.training[1][positions]

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(self.network(batch[0]).float(), batch[1])

    def evaluate(self) -> dict[str, float]:
        """The same over the validation split."""
        with torch.inference_mode():
            return {"val_loss": float(self.loss(self.validation))}
