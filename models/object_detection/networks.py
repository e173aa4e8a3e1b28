"""Detectors: torchvision's SSDlite, RetinaNet, FCOS and Faster R-CNN on a choice of backbones, one of them our own.

All take float pictures (N, 3, H, W), normalised. In training they take targets, too, and give a dict of losses; else a
list with `boxes` (D, 4) in px of the input, `scores` (D,) and `labels` (D,) of each picture, best first. Their labels
begin at `first_label`: some count the background as class 0.
"""

import functools
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    FCOS,
    FasterRCNN,
    RetinaNet,
    ssdlite320_mobilenet_v3_large,
)
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from models.common.backbones.pretrained import imagenet_weights
from models.common.errors import UserError
from models.common.objects import backbones
from models.common.objects.detector import Detector
from models.common.objects.weights import BACKGROUND, load_backbone_weights, load_detector_weights, load_weights_file
from models.common.training import heads
from models.object_detection.params import DetectionData, DetectionTrain

MIN_SCORE = 0.02  # boxes below it are not even evaluated: they cost time and hardly any average precision
MAX_CANDIDATES = 400  # of a level, before overlapping ones are dropped
DEFAULT_ANCHOR = 32  # px; FCOS' own finest grid, 8 px, is for objects of about this size
RATIOS = (0.5, 1.0, 2.0)
# In heads that all levels share: a BatchNorm would learn one level's statistics and apply them to the others'.
LEVEL_NORM = functools.partial(nn.GroupNorm, 8)


def build(train: DetectionTrain, data: DetectionData, classes: int) -> nn.Module:
    """An untrained detector, its answers limited as `data` says."""
    limits: dict[str, Any] = {"nms_thresh": data.nms_iou, "detections_per_img": data.max_boxes}
    if train.network == "fasterrcnn":
        limits = {f"box_{name}": value for name, value in (limits | {"score_thresh": MIN_SCORE}).items()}
    else:
        limits |= {"score_thresh": MIN_SCORE, "topk_candidates": MAX_CANDIDATES}
    network: nn.Module = BUILDERS[train.network](train, classes, limits)
    network.transform = backbones.NoTransform()
    for layer in _output_layers(network):
        layer.register_forward_hook(backbones.to_float32)
    if train.dropout:
        heads.add_dropout(class_layers(train, network), train.dropout)
    return network.requires_grad_(requires_grad=True)


def first_label(train: DetectionTrain) -> int:
    """The number by which a detector calls our class 0: 1 where 0 is the background."""
    return int(train.network in ("ssdlite", "fasterrcnn"))


def class_layers(train: DetectionTrain, network: nn.Module) -> list[nn.Module]:
    """The layers whose shape depends on the number of classes."""
    return heads.class_layers(network, lambda classes: BUILDERS[train.network](train, classes, {}))


def detector(network: nn.Module, train: DetectionTrain) -> Detector:
    """A network with its preprocessing."""
    result = Detector(network, first_label(train))
    if train.network == "ssdlite":  # torchvision trained it on -1..1
        result.normalised.shift.fill_(-1.0)
        result.normalised.factor.fill_(1 / 127.5)
    return result


def load_initial(network: nn.Module, train: DetectionTrain, labels: tuple[str, ...], initial: Path | None) -> None:
    """Fills `network` as `train.weights` says, from the file `initial` where that is the champion's or a path.

    Raises UserError where the weights cannot be had or are another network's.
    """
    background = first_label(train) == 1
    if train.weights == "imagenet" and train.network == "ssdlite":
        _load_ssdlite_backbone(network)
    elif train.weights == "imagenet":
        load_backbone_weights(network, train.backbone)
    elif train.weights == "coco":
        state, rows = _coco_weights(train)
        class_rows = [BACKGROUND] * background + list(labels)
        load_detector_weights(network, class_layers(train, network), state, rows, class_rows, "COCO's weights")
    elif initial:
        layers = class_layers(train, network)
        load_weights_file(network, layers, train.design, labels, initial, background=background)


def _load_ssdlite_backbone(network: nn.Module) -> None:
    """Those of ImageNet's weights that fit its backbone, whose layers have other names and whose last blocks are half
    as wide."""
    state, backbone = imagenet_weights("mobilenet_v3_large"), backbones.backbone_of(network)
    current, feature_keys = backbone.state_dict(), [key for key in state if key.startswith("features.")]
    fitting = {
        target: state[source]
        for target, source in zip(current, feature_keys, strict=False)
        if current[target].shape == state[source].shape
    }
    backbone.load_state_dict(fitting, strict=False)


def _coco_weights(train: DetectionTrain) -> tuple[dict[str, Tensor], list[str]]:
    """A detector's weights and what the rows of its class layers stand for."""
    from torchvision.models import get_model, get_model_weights

    name = {"ssdlite": "ssdlite320_mobilenet_v3_large"}.get(train.network, f"{train.network}_{train.backbone}_fpn")
    weights = get_model_weights(name).DEFAULT
    file = weights.url.rpartition("/")[2]
    path = f"{torch.hub.get_dir()}/checkpoints/{file}"
    try:
        state = get_model(name, weights=weights, progress=False).state_dict()
    except OSError as error:  # URLError, timeouts and refused connections are OSErrors
        raise UserError(
            f"COCO weights of {name} could not be downloaded ({error}); put {file} (from {weights.url}) at {path}"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:80]}); delete it and run again") from None
    return state, [BACKGROUND, *weights.meta["categories"][1:]]  # row 0 is nothing, also where there is no background


def _ssdlite(_train: DetectionTrain, classes: int, limits: Mapping[str, Any]) -> nn.Module:
    network: nn.Module = ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=classes + 1, **limits
    )
    return network


def _retinanet(train: DetectionTrain, classes: int, limits: Mapping[str, Any]) -> nn.Module:
    backbone = _pyramid(train, from_eighth=True)
    sizes = [tuple(int(size * 2 ** (third / 3)) for third in range(3)) for size in _sizes(train, train.anchor)]
    anchors = AnchorGenerator(tuple(sizes), (RATIOS,) * len(sizes))
    norm = LEVEL_NORM if train.backbone == "small" else None
    per_location = anchors.num_anchors_per_location()[0]
    heads = RetinaNetHead(backbone.out_channels, per_location, classes, norm_layer=norm)
    return RetinaNet(backbone, classes, anchor_generator=anchors, head=heads, **limits)  # type: ignore[no-any-return]


def _fcos(train: DetectionTrain, classes: int, limits: Mapping[str, Any]) -> nn.Module:
    backbone = _pyramid(train, from_eighth=True)
    sizes = [(size,) for size in _sizes(train, train.anchor // 4)]
    anchors = AnchorGenerator(tuple(sizes), ((1.0,),) * len(sizes))
    heads = FCOSHead(backbone.out_channels, 1, classes)
    if train.backbone == "small":
        parts: dict[str, Any] = {"num_convs": 2, "norm_layer": LEVEL_NORM}
        heads.classification_head = FCOSClassificationHead(backbone.out_channels, 1, classes, **parts)
        heads.regression_head = FCOSRegressionHead(backbone.out_channels, 1, **parts)
    radius = 1.5 * DEFAULT_ANCHOR / train.anchor  # of the grid, whatever size its objects have
    return FCOS(  # type: ignore[no-any-return]
        backbone, classes, anchor_generator=anchors, head=heads, center_sampling_radius=radius, **limits
    )


def _fasterrcnn(train: DetectionTrain, classes: int, limits: Mapping[str, Any]) -> nn.Module:
    backbone = _pyramid(train, from_eighth=train.backbone == "small")
    sizes = [(size,) for size in _sizes(train, train.anchor)]
    options: dict[str, Any] = {"num_classes": classes + 1}
    if train.backbone == "small":
        features = 4 * backbones.SMALL_PYRAMID_CHANNELS
        box_head = TwoMLPHead(backbone.out_channels * 7**2, features)
        options = {"box_head": box_head, "box_predictor": FastRCNNPredictor(features, classes + 1)}
        options |= {"rpn_pre_nms_top_n_train": 500, "rpn_pre_nms_top_n_test": 250, "box_batch_size_per_image": 128}
        options |= {"rpn_post_nms_top_n_train": 500, "rpn_post_nms_top_n_test": 250}
    anchors = AnchorGenerator(tuple(sizes), (RATIOS,) * len(sizes))
    network: nn.Module = FasterRCNN(backbone, rpn_anchor_generator=anchors, **options, **limits)
    backbones.scale_proposal_logits(network)
    return network


BUILDERS = {"ssdlite": _ssdlite, "retinanet": _retinanet, "fcos": _fcos, "fasterrcnn": _fasterrcnn}


def _pyramid(train: DetectionTrain, *, from_eighth: bool) -> Any:
    """A backbone with a feature pyramid on it, from 1/8 of the picture on or from 1/4."""
    small = train.backbone == "small"
    if small or not from_eighth:
        extra: Any = LastLevelMaxPool()
    else:
        extra = LastLevelP6P7(backbones.PYRAMID_CHANNELS, backbones.PYRAMID_CHANNELS)
    levels = range(1 if from_eighth else 0, backbones.LEVELS)
    return backbones.pyramid(train.backbone, train.width, levels, extra, frozen_norms=train.weights != "none")


def _sizes(train: DetectionTrain, finest: int) -> list[int]:
    """px of an object on each level of the pyramid."""
    return [finest * 2**level for level in range(4 if train.backbone == "small" else 5)]


def _output_layers(network: nn.Module) -> list[nn.Module]:
    """The layers whose outputs losses and boxes are computed from."""
    names = ("head", "rpn.head", "roi_heads.box_predictor")
    return [module for name, module in network.named_modules() if name in names]
