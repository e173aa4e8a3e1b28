"""Untrained classifiers of either library and our own, for a number of classes, a picture size and input channels.

All take float pictures (N, channels, size, size), normalised, and give logits (N, classes); some of torchvision's give
auxiliary logits too while they train. `head` finds the layers that make the logits, whatever their family calls them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.common.backbones.names import is_timm, known_network, timm_name
from models.common.backbones.small_cnn import SmallCNN
from models.common.errors import UserError
from models.common.image.params import BUILTIN_NETWORKS
from models.common.training.heads import add_dropout, class_layers, on_meta_device

SIZE_ARGUMENT = {"vit_": "image_size", "maxvit": "input_size"}  # torchvision's families that are built for one size
DEFAULT_SIZE = 224  # px, of networks that nobody has trained
AUXILIARY = ("googlenet", "inception")  # families with further heads halfway, to train with
AUXILIARY_FROM = 299  # px; inception_v3 has no room for one in less
SIZE_ERRORS = (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError, TypeError)


@dataclass(frozen=True)
class Backbone:
    """Which network, and what it takes.

    width: channels of the stem of our own ones. auxiliary: whether networks that can give auxiliary logits do so.
    """

    name: str
    size: int  # px, square
    width: int = 32
    channels: int = 3
    auxiliary: bool = True

    def untrained(self, classes: int) -> nn.Module:
        """The classifier. UserError for a name that neither library knows."""
        known_network(self.name)
        if self.name in BUILTIN_NETWORKS:
            return SmallCNN(classes, self.size, self.width, BUILTIN_NETWORKS[self.name])
        if is_timm(self.name):
            return timm_network(self.name, self.size, self.channels, num_classes=classes)
        return _of_torchvision(self.name, classes, self.size, auxiliary=self.auxiliary)

    def build(self, classes: int, dropout: float = 0.0) -> nn.Module:
        """The classifier, with `dropout` before its head on top of what it has itself.

        Raises UserError for an unknown name, and for a size that the network cannot take.
        """
        self.check_size()
        network = self.untrained(classes)
        if dropout:
            add_dropout(self.head(network), dropout)
        return network

    def features(self) -> nn.Module:
        """The same without its head: (N, channels, size, size) -> (N, D); `feature_size` says D."""
        self.check_size()
        network = self.untrained(2)
        head = self.head(network)
        for key in [key for key, module in network.named_modules() if module in head]:
            network.set_submodule(key, nn.Identity())
        return network

    def head(self, network: nn.Module) -> list[nn.Module]:
        """The layers whose shape depends on the number of classes: the last one, and those of auxiliary outputs."""
        return class_layers(network, self.untrained)

    def check_size(self) -> None:
        """UserError where the network cannot take pictures of this size; on shapes alone, so it costs little."""
        known_network(self.name)
        try:
            network = on_meta_device(lambda: self.untrained(2))
            network(torch.empty(2, self.channels, self.size, self.size, device="meta"))
        except SIZE_ERRORS as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"network {self.name} cannot take pictures of {self.size} px; change data.image_size ({reason})"
            ) from None


def timm_network(name: str, size: int, channels: int = 3, **arguments: Any) -> nn.Module:
    """timm's network, untrained unless `arguments` say otherwise; one that is made for one size is made for `size` px.

    arguments: of timm.create_model: num_classes, features_only, …
    """
    import timm

    if built_for_one_size(name):
        arguments["img_size"] = size
    network: nn.Module = timm.create_model(timm_name(name), in_chans=channels, **arguments)
    return network


def built_for_one_size(name: str) -> bool:
    """Whether a timm network must be told its picture size: its positions are learnt one by one."""
    import timm

    config = timm.get_pretrained_cfg(timm_name(name))
    return bool(config is not None and config.fixed_input_size)


def own_size(name: str) -> int:
    """px, of the pictures that a library's network was made for."""
    if is_timm(name):
        import timm

        config = timm.get_pretrained_cfg(timm_name(name))
        return int(config.input_size[-1]) if config is not None else DEFAULT_SIZE
    from torchvision.models import get_model_weights

    weights = get_model_weights(name)
    return int(weights.DEFAULT.transforms().crop_size[0]) if len(weights) else DEFAULT_SIZE


def feature_size(network: nn.Module, size: int, channels: int = 3) -> int:
    """How many numbers a network gives of a picture of `size` px."""
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        features: Tensor = network(torch.zeros(1, channels, size, size))
    network.train(was_training)
    return int(features.shape[1])


def _of_torchvision(name: str, classes: int, size: int, *, auxiliary: bool) -> nn.Module:
    from torchvision.models import get_model

    arguments: dict[str, Any] = {
        argument: size if argument == "image_size" else (size, size)
        for prefix, argument in SIZE_ARGUMENT.items()
        if name.startswith(prefix)
    }
    if name.startswith(AUXILIARY):
        # transform_input as ImageNet's weights have it; the auxiliary heads need room
        arguments |= {"init_weights": True, "transform_input": True, "aux_logits": auxiliary and size >= AUXILIARY_FROM}
    network: nn.Module = get_model(name, weights=None, num_classes=classes, **arguments)
    return network
