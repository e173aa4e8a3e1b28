"""Networks that name the class of every pixel: a small one of our own, and torchvision's heads on its backbones.

All take float pictures (N, 3, H, W), normalised, and give logits (N, classes, H, W); some give auxiliary logits too
while they train.
"""

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.backbones.pretrained import imagenet_weights
from models.common.image.blocks import ConvNormAct, ResidualBlock
from models.common.training.heads import add_dropout, class_layers
from models.common.training.weights import load_matching_tensors
from models.semantic_segmentation.params import SMALL_FPN

LRASPP_CHANNELS = 128  # channels between LRASPP's backbone and its classifiers (Howard et al. 2019)


def build(name: str, classes: int, width: int, dropout: float = 0.0) -> nn.Module:
    """An untrained network, with `dropout` before the layers that give logits, on top of what it has itself."""
    if name == SMALL_FPN:
        network: nn.Module = SmallFPN(classes, width)
    else:
        family, _, backbone = name.partition("_")
        network = _Logits(_FAMILIES[family](backbone, classes))
    if dropout:
        add_dropout(head(name, network, width), dropout)
    return network


def head(name: str, network: nn.Module, width: int) -> list[nn.Module]:
    """The layers whose shape depends on the number of classes: those that give logits, auxiliary ones too."""
    return class_layers(network, lambda classes: build(name, classes, width))


def load_imagenet(name: str, network: nn.Module) -> None:
    """Fills the backbone with torchvision's newest ImageNet weights. UserError where they cannot be had."""
    backbone = name.partition("_")[2]
    layers = network.get_submodule("network.backbone")
    state = imagenet_weights(backbone)
    weights = {key: state.get(key, state.get(f"features.{key}")) for key in layers.state_dict()}
    load_matching_tensors(
        layers,
        [],
        {key: value for key, value in weights.items() if value is not None},
        f"ImageNet's weights of {backbone}",
    )


class SmallFPN(nn.Module):
    """A residual encoder down to 1/32 and a feature pyramid back up to 1/4 (Lin et al. 2017), with the whole picture's
    mean as a gate at its top (as in LRASPP, Howard et al. 2019). Made for training from nothing on a CPU.
    """

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        channels = [width, 2 * width, 4 * width, 8 * width, 8 * width]  # at 1/2, 1/4, 1/8, 1/16, 1/32
        inner = 2 * width
        self.stem = ConvNormAct(3, width, kernel=4, stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNormAct(in_channels, out_channels, stride=2), ResidualBlock(out_channels))
            for in_channels, out_channels in itertools.pairwise(channels)
        )
        self.context = nn.Conv2d(channels[-1], inner, 1)
        self.sides = nn.ModuleList(nn.Conv2d(each, inner, 1, bias=False) for each in channels[1:])
        self.smooth = nn.ModuleList(ConvNormAct(inner, inner) for _ in channels[1:])
        self.classifier = nn.Conv2d(inner, classes, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, classes, H, W)."""
        features, stage_outputs = self.stem(pictures), []
        for stage in self.stages:
            features = stage(features)
            stage_outputs.append(features)
        gate = torch.sigmoid(self.context(features.mean((2, 3), keepdim=True)))
        merged = self.smooth[-1](self.sides[-1](features)) * gate
        for side, smooth, finer in zip(self.sides[-2::-1], self.smooth[-2::-1], stage_outputs[-2::-1], strict=True):
            merged = smooth(side(finer) + F.interpolate(merged, finer.shape[-2:], mode="nearest"))
        logits = self.classifier(merged)
        return F.interpolate(logits, pictures.shape[-2:], mode="bilinear", align_corners=False)


class _Logits(nn.Module):
    """A torchvision network without its dictionary: logits, and while it trains a tuple of those and auxiliary ones."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Any:
        outputs = self.network(pictures)
        return (outputs["out"], outputs["aux"]) if self.training and "aux" in outputs else outputs["out"]


def _fcn(name: str, classes: int) -> nn.Module:
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    backbone, middle, high = _backbone(name, "aux", "out")
    network: nn.Module = FCN(backbone, FCNHead(high, classes), FCNHead(middle, classes))
    return network


def _deeplabv3(name: str, classes: int) -> nn.Module:
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3
    from torchvision.models.segmentation.fcn import FCNHead

    backbone, middle, high = _backbone(name, "aux", "out")
    network: nn.Module = DeepLabV3(backbone, DeepLabHead(high, classes), FCNHead(middle, classes))
    return network


def _lraspp(name: str, classes: int) -> nn.Module:
    from torchvision.models.segmentation.lraspp import LRASPP

    backbone, low, high = _backbone(name, "low", "high")
    network: nn.Module = LRASPP(backbone, low, high, classes, LRASPP_CHANNELS)
    return network


_FAMILIES: dict[str, Callable[[str, int], nn.Module]] = {"fcn": _fcn, "deeplabv3": _deeplabv3, "lraspp": _lraspp}


def _backbone(name: str, lower: str, upper: str) -> tuple[nn.Module, int, int]:
    """The layers wanted of a torchvision classifier, called `lower` and `upper`, and their channels.

    Dilated, so that the upper ones are at 1/8 (ResNet) or 1/16 (MobileNet), where torchvision can; its basic blocks
    (resnet18, resnet34) cannot: 1/32. `lower` is auxiliary ("aux", halfway up) or for detail ("low", 1/8).
    """
    from torchvision.models import get_model
    from torchvision.models._utils import IntermediateLayerGetter

    if name.startswith("mobilenet"):
        layers = get_model(name, weights=None, dilated=True).features
        cuts = [0, *(index for index, block in enumerate(layers) if getattr(block, "_is_cn", False)), len(layers) - 1]
        indices = cuts[-4], cuts[-1]
        names = {str(indices[0]): lower, str(indices[1]): upper}
        return IntermediateLayerGetter(layers, names), layers[indices[0]].out_channels, layers[indices[1]].out_channels
    basic = name in ("resnet18", "resnet34")
    layers = get_model(name, weights=None, replace_stride_with_dilation=[False, not basic, not basic])
    layer, channels = ("layer2", 512) if lower == "low" else ("layer3", 1024)
    smaller = 4 if basic else 1  # a basic block has a quarter of a bottleneck's channels
    return IntermediateLayerGetter(layers, {layer: lower, "layer4": upper}), channels // smaller, 2048 // smaller
