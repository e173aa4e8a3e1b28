"""Weights to start from: ImageNet's, the champion's, a file's. The head is kept as far as its classes are the same."""

from pathlib import Path

from torch import nn

from models.common.training.weights import fill, load_file
from models.image_classification import networks


def load_initial(
    network: nn.Module,
    head: list[nn.Module],
    name: str,
    labels: tuple[str, ...],
    weights: str,
    initial: Path | None,
) -> None:
    """Fills `network` from ImageNet's weights or from the file `initial`; leaves it as it is without either.

    Raises UserError where the weights cannot be had or are another network's.
    """
    if weights == "imagenet":
        fill(network, head, networks.imagenet_state(name, network), f"ImageNet's weights of {name}")
    elif initial:
        load_file(network, head, name, labels, initial)
