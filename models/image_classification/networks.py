"""Networks: two small CNNs of our own for little pictures, and every torchvision classification network by name.

All take float pictures (N, 3, size, size), normalised, and give logits (N, classes); some give auxiliary logits too
while they train. `head` finds the layers that make the logits, whatever their family calls them.
"""

import difflib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models.common.errors import UserError
from models.common.image.imagenet import imagenet_weights
from models.common.image.params import BUILTIN_NETWORKS
from models.common.image.small_cnn import SmallCNN
from models.common.training.heads import add_dropout, class_layers, on_meta_device
from models.common.training.weights import load_matching_tensors, load_weights
from models.image_classification.params import ImageTrain

SIZE_ARGUMENT = {"vit_": "image_size", "maxvit": "input_size"}  # families that are built for one picture size
AUXILIARY = ("googlenet", "inception")  # families with further heads halfway, to train with
AUXILIARY_FROM = 299  # px; inception_v3 has no room for one in less


def build(name: str, classes: int, size: int, width: int, dropout: float = 0.0) -> nn.Module:
    """An untrained network for pictures of `size` px, with `dropout` before its head on top of what it has itself.

    Raises UserError for an unknown name, and for a size that the network cannot take.
    """
    _check_size(name, size, width)
    network = _untrained(name, classes, size, width)
    if dropout:
        add_dropout(head(name, network, size, width), dropout)
    return network


def head(name: str, network: nn.Module, size: int, width: int) -> list[nn.Module]:
    """The layers whose shape depends on the number of classes: the last one, and those of auxiliary outputs."""
    return class_layers(network, lambda classes: _untrained(name, classes, size, width))


def load_initial(
    network: nn.Module, head: list[nn.Module], train: ImageTrain, labels: tuple[str, ...], initial: Path | None
) -> None:
    """Fills `network` from ImageNet's weights or from the file `initial`; leaves it as it is without either.

    Raises UserError where the weights cannot be had or are another network's.
    """
    if train.weights == "imagenet":
        load_matching_tensors(
            network, head, imagenet_state(train.network, network), f"ImageNet's weights of {train.network}"
        )
    elif initial:
        load_weights(network, head, train.network, labels, initial)


def imagenet_state(name: str, network: nn.Module) -> dict[str, Tensor]:
    """torchvision's newest ImageNet weights for `network`, made to fit its picture size.

    Raises UserError where they can be neither found nor downloaded, saying which file to put where.
    """
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    state = imagenet_weights(name)
    if isinstance(network, VisionTransformer):
        return dict(interpolate_embeddings(network.image_size, network.patch_size, state))
    return state


def _untrained(name: str, classes: int, size: int, width: int) -> nn.Module:
    if name in BUILTIN_NETWORKS:
        return SmallCNN(classes, size, width, BUILTIN_NETWORKS[name])
    from torchvision.models import get_model

    arguments: dict[str, Any] = {
        argument: size if argument == "image_size" else (size, size)
        for prefix, argument in SIZE_ARGUMENT.items()
        if known_network(name).startswith(prefix)
    }
    if name.startswith(AUXILIARY):
        # transform_input as ImageNet's weights have it; the auxiliary heads need room
        arguments |= {"init_weights": True, "transform_input": True, "aux_logits": size >= AUXILIARY_FROM}
    network: nn.Module = get_model(name, weights=None, num_classes=classes, **arguments)
    return network


def known_network(name: str) -> str:
    """`name` itself where it is a network's; UserError with the names nearest to it where it is not."""
    if name in BUILTIN_NETWORKS:
        return name  # without the seconds that torchvision takes to import
    from torchvision import models

    names = [*BUILTIN_NETWORKS, *models.list_models(module=models)]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=4, cutoff=0.4)
        suggestion = f" Did you mean: {', '.join(close)}?" if close else ""
        raise UserError(
            f"Unknown network '{name}'.{suggestion} Known: {', '.join(BUILTIN_NETWORKS)} and torchvision's classifiers"
        )
    return name


def _check_size(name: str, size: int, width: int) -> None:
    known_network(name)
    try:
        on_meta_device(lambda: _untrained(name, 2, size, width))(torch.empty(2, 3, size, size, device="meta"))
    except (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"network {name} cannot take pictures of {size} px; change data.image_size ({reason})"
        ) from None
