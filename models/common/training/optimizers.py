"""Optimizers over layer groups, and the moving average of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from models.common.params import TrainParams
from models.common.training.freezing import LayerGroup

STEM_RATE = 0.1  # times the head's rate: how fast the stem of a network with trained weights learns


def build_optimizer(groups: list[LayerGroup], train: TrainParams) -> torch.optim.Optimizer:
    """AdamW or SGD with Nesterov momentum, fused, over parameter groups that carry their own `peak` learning rate.

    The head learns at `learning_rate`, each group before it at `layer_decay` times the next one's; where that is 0, so
    that the stem has STEM_RATE times the head's. Norms and biases (whatever has one dimension) are not decayed.
    """
    layer_decay = train.layer_decay or STEM_RATE ** (1 / max(1, len(groups) - 1))
    options: list[dict[str, Any]] = []
    for index, group in enumerate(groups):
        peak = train.learning_rate * layer_decay ** (len(groups) - 1 - index)
        for decayed in (True, False):
            parameters = [parameter for parameter in group.parameters if (parameter.ndim > 1) == decayed]
            if parameters:
                decay = train.weight_decay if decayed else 0.0
                options.append({"params": parameters, "peak": peak, "lr": peak, "weight_decay": decay})
    if train.optimizer == "sgd":
        nesterov = train.momentum > 0
        return torch.optim.SGD(options, lr=train.learning_rate, momentum=train.momentum, nesterov=nesterov, fused=True)
    return torch.optim.AdamW(options, lr=train.learning_rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Gives every parameter group that share of its peak learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


class ExponentialMovingAverage:
    """Moving average of weights and of floating-point buffers (BatchNorm's statistics); counters are copied.

    The decay warms up as min(decay, (1 + t) / (10 + t)) at update t, so that early averages forget the start.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._updates = 0
        self._floats, self._counters = _floats_and_counters(network)
        self._averages = [tensor.detach().clone() for tensor in self._floats]
        self._copies = [tensor.detach().clone() for tensor in self._counters]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the network's present weights in."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self._averages, self._floats, 1 - decay)
        for copy, counter in zip(self._copies, self._counters, strict=True):
            copy.copy_(counter)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The network has the averages while inside, and its own weights again after."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on from here."""
        return {"updates": self._updates, "averages": self._averages, "copies": self._copies}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from `state()` of an average over the same network."""
        self._updates = state["updates"]
        for average, saved in zip(self._averages + self._copies, state["averages"] + state["copies"], strict=True):
            average.copy_(saved)

    @torch.no_grad()
    def _swap(self) -> None:
        pairs = zip(self._floats + self._counters, self._averages + self._copies, strict=True)
        for current, average in pairs:
            saved = current.detach().clone()
            current.copy_(average)
            average.copy_(saved)


def _floats_and_counters(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    tensors = [*network.parameters(), *network.buffers()]
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    return floats, [tensor for tensor in tensors if not tensor.is_floating_point()]
