"""The layers of a network that depend on its classes: which they are, and dropout before them."""

import functools
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def on_meta_device(build: Callable[[], nn.Module]) -> nn.Module:
    """The shapes alone of a network that `build` makes: no memory, no arithmetic."""
    try:
        with torch.device("meta"):
            return build()
    except NotImplementedError:  # RegNet counts its blocks in tensors, which need values
        return build().to("meta")


def class_layers(network: nn.Module, build: Callable[[int], nn.Module]) -> list[nn.Module]:
    """The layers of a network whose shape depends on the number of classes, told by two others that `build` makes."""
    two, three = (on_meta_device(functools.partial(build, classes)).state_dict() for classes in (2, 3))
    owners = {key.rpartition(".")[0]: None for key in two if two[key].shape != three[key].shape}
    return [network.get_submodule(owner) for owner in owners]


def silence(layers: Iterable[nn.Module]) -> None:
    """New heads on trained features begin at 0, no class before another. Some libraries begin with weights so large
    that a head needs most of its training to forget them."""
    with torch.no_grad():
        for layer in layers:
            for parameter in layer.parameters():
                parameter.zero_()


def add_dropout(layers: Iterable[nn.Module], share: float) -> None:
    """Dropout before each of the layers, without another key in the network's state_dict."""
    for layer in layers:
        layer.register_forward_pre_hook(functools.partial(_drop, share))


def _drop(share: float, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(nn.functional.dropout(each, share, layer.training) for each in inputs)
