"""What all learners of classes do alike: mixup in training, loss and accuracy of a validation split."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def mixup_loss(
    inputs: Tensor,
    classes: Tensor,
    alpha: float,
    network: Callable[[Tensor], Any],
    loss: Callable[[Any, Tensor], Tensor],
) -> Tensor:
    """The loss of a batch, each example mixed with a random share of another (mixup, Zhang et al. 2018).

    alpha: of the beta distribution that the share is drawn from; 0: the batch as it is. loss: of what the network gives
    and classes (N,).
    """
    if not alpha:
        return loss(network(inputs), classes)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    other = torch.randperm(len(classes), device=classes.device)
    outputs = network(share * inputs + (1 - share) * inputs[other])
    return share * loss(outputs, classes) + (1 - share) * loss(outputs, classes[other])


def class_validation(answers: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Cross-entropy and accuracy over a validation split: logits (N, classes) and classes (N,), batch by batch."""
    return loss_and_accuracy(
        (F.cross_entropy(logits.float(), classes, reduction="sum"), logits, classes) for logits, classes in answers
    )


def loss_and_accuracy(answers: Iterable[tuple[Tensor, Tensor, Tensor]]) -> dict[str, float]:
    """The same with a loss of the kind's own: what it sums to over a batch, logits and classes, batch by batch."""
    total, count = torch.zeros(2, dtype=torch.float64), 0
    for loss, logits, classes in answers:
        total += torch.stack([loss, (logits.argmax(1) == classes).sum()]).double().cpu()
        count += len(classes)
    loss, accuracy = (total / count).tolist()
    return {"val_loss": loss, "val_accuracy": accuracy}
