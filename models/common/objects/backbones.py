"""What detectors have in common: backbones with a feature pyramid, one of our own, and what stands in for
torchvision's own resizing, which happens before.

A backbone is what ImageNet's weights fill; all the rest of a detector is new in another task, so it is its head.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v3_large, resnet
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from models.common.image.blocks import ConvNormAct, ResidualBlock

Backbone = Literal["small", "resnet18", "resnet34", "resnet50", "mobilenet_v3_large"]
PYRAMID_CHANNELS = 256  # channels of torchvision's feature pyramids
SMALL_PYRAMID_CHANNELS = 64
PROPOSAL_TEMPERATURE = 16.0  # what the logits of proposals are divided by before they are ranked
LEVELS = 4  # that a backbone ends stages at: 1/4, 1/8, 1/16 and 1/32 of the picture


def pyramid(name: Backbone, width: int, levels: range, extra: ExtraFPNBlock, *, frozen_norms: bool) -> Any:
    """An untrained backbone with a feature pyramid on some of its LEVELS, and what `extra` adds to them.

    width: channels of the stem of the backbone `small`. frozen_norms: small batches would spoil good statistics.
    """
    if name == "small":
        small = SmallBackbone(width)
        names, channels = [f"stage{index}" for index in range(1, LEVELS + 1)], small.channels
        return _with_pyramid(small, names, channels, levels, SMALL_PYRAMID_CHANNELS, extra)
    norm = FrozenBatchNorm2d if frozen_norms else nn.BatchNorm2d
    if name == "mobilenet_v3_large":
        backbone = mobilenet_v3_large(weights=None, norm_layer=norm).features
        indices = (3, 6, 12, 16)  # the last block of each resolution
        return _with_pyramid(
            backbone,
            [*map(str, indices)],
            [backbone[index].out_channels for index in indices],
            levels,
            PYRAMID_CHANNELS,
            extra,
        )
    backbone = getattr(resnet, name)(weights=None, norm_layer=norm)
    channels = [backbone.inplanes // 2**halved for halved in (3, 2, 1, 0)]
    return _with_pyramid(
        backbone, [f"layer{number}" for number in range(1, 5)], channels, levels, PYRAMID_CHANNELS, extra
    )


def _with_pyramid(
    backbone: nn.Module, names: list[str], channels: list[int], levels: range, width: int, extra: ExtraFPNBlock
) -> Any:
    outputs = {names[level]: str(index) for index, level in enumerate(levels)}
    return BackboneWithFPN(backbone, outputs, [channels[level] for level in levels], width, extra_blocks=extra)


def backbone_of(network: nn.Module) -> nn.Module:
    """The layers of a classifier; torchvision's own SSDlite calls them otherwise than its pyramids do."""
    with_pyramid = network.get_submodule("backbone")
    return with_pyramid.get_submodule("features" if hasattr(with_pyramid, "features") else "body")


def head(network: nn.Module) -> list[nn.Module]:
    """All that is not the backbone that ImageNet's weights would fill: what is new in another task."""
    with_pyramid, backbone = network.get_submodule("backbone"), backbone_of(network)
    return [part for part in (*with_pyramid.children(), *network.children()) if part not in (backbone, with_pyramid)]


class SmallBackbone(nn.Sequential):
    """Our own small backbone, 1/2 to 1/32 of the picture: each stage halves it and refines it by a residual block.

    After ResNet-9 (Coleman et al., DAWNBench 2017), with strided convolutions for pooling: at the picture's own
    resolution is where a CPU's time would go. Trained from nothing it learns in minutes.
    """

    def __init__(self, width: int) -> None:
        self.channels = [2 * width, 4 * width, 8 * width, 8 * width]  # at 1/4, 1/8, 1/16, 1/32
        super().__init__()
        self.add_module("stem", ConvNormAct(3, width, kernel=4, stride=2))
        in_channels = width
        for index, out_channels in enumerate(self.channels, start=1):
            self.add_module(
                f"stage{index}",
                nn.Sequential(ConvNormAct(in_channels, out_channels, stride=2), ResidualBlock(out_channels)),
            )
            in_channels = out_channels


class NoTransform(nn.Module):
    """In the place of torchvision's GeneralizedRCNNTransform: the pictures are of one size and normalised before."""

    def forward(self, pictures: Tensor, targets: Any = None) -> tuple[ImageList, Any]:
        height, width = pictures.shape[-2:]
        return ImageList(pictures, [(int(height), int(width))] * len(pictures)), targets

    def postprocess(self, answers: Any, _shapes: Any, _original: Any) -> Any:
        """Boxes stay in px of the input, masks as large as the network gives them."""
        return answers


def to_float32(_layer: nn.Module, _inputs: Any, outputs: Any) -> Any:
    """A forward hook: losses and boxes in float32, whatever the layers before were computed in."""
    if isinstance(outputs, Tensor):
        return outputs.float()
    if isinstance(outputs, dict):
        return {name: to_float32(_layer, (), each) for name, each in outputs.items()}
    return type(outputs)(to_float32(_layer, (), each) for each in outputs)


def scale_proposal_logits(network: nn.Module) -> None:
    """Has the proposals of a two-stage detector ranked by scores that do not saturate.

    torchvision ranks them by a sigmoid, which calls all logits beyond some 8 the same: which one of several overlapping
    proposals is kept was then up to the last bit, and 2 % of objects were found by the network or by its program alone.
    """
    rpn: Any = network.get_submodule("rpn")
    rpn.filter_proposals = functools.partial(_filter_scaled, rpn.filter_proposals)


def _filter_scaled(filter_proposals: Callable[..., Any], proposals: Tensor, objectness: Tensor, *rest: Any) -> Any:
    return filter_proposals(proposals, objectness / PROPOSAL_TEMPERATURE, *rest)


@contextmanager
def losses_in_evaluation(network: nn.Module) -> Iterator[None]:
    """A detector in evaluation mode gives losses while inside, and its norms stay as they are."""
    switched = [part for name, part in network.named_modules() if name in ("", "rpn", "roi_heads")]
    for part in switched:
        part.training = True
    try:
        yield
    finally:
        for part in switched:
            part.training = False


def set_memory_format(network: nn.Module, *, channels_last: bool, compiled: bool) -> torch.memory_format:
    """Gives the weights their memory format, which inputs must have, too, and compiles the backbone where asked to."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    network.to(memory_format=memory_format)
    if compiled:
        network.get_submodule("backbone").compile()
    return memory_format
