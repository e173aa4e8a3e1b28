"""What each network expects pixels to be: mean and deviation of each colour, as its pretrained weights had them."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from models.common.backbones.names import is_timm, timm_architecture, timm_name
from models.common.image.normalisation import MEAN, STD, Normalised
from models.common.image.params import BUILTIN_NETWORKS

EFFICIENTNET_LITE = "tf_efficientnet_lite"


class Statistics(NamedTuple):
    """Of red, green and blue, in 0..255: a network takes (pixel - mean) / std."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Statistics(MEAN, STD)


def statistics(name: str) -> Statistics:
    """What the network called `name` takes; ImageNet's where nobody has trained it."""
    if name in BUILTIN_NETWORKS:
        return IMAGENET
    if is_timm(name):
        return _of_timm(name)
    from torchvision.models import get_model_weights

    weights = get_model_weights(name)
    if not len(weights):
        return IMAGENET
    transforms = weights.DEFAULT.transforms()
    return _in_pixels(transforms.mean, transforms.std)


def normalised(name: str, network: nn.Module) -> Normalised:
    """`network`, which is called `name`, behind the normalisation that it expects."""
    return Normalised(network, *statistics(name))


def _of_timm(name: str) -> Statistics:
    if timm_architecture(name).startswith(EFFICIENTNET_LITE):
        return Statistics((127.0,) * 3, (128.0,) * 3)  # as it was trained; timm's own 0.5 is a rounded one
    import timm

    config = timm.get_pretrained_cfg(timm_name(name))
    if config is None or not len(config.mean) == len(config.std) == len(MEAN):
        return IMAGENET
    return _in_pixels(config.mean, config.std)


def _in_pixels(mean: Sequence[float], std: Sequence[float]) -> Statistics:
    return Statistics(tuple(255 * float(value) for value in mean), tuple(255 * float(value) for value in std))
