"""Mask R-CNN by torchvision (He et al., ICCV 2017) on a choice of backbones, one of them our own, with smaller heads.

It takes float pictures (N, 3, H, W), normalised. In training it takes targets, too, and gives a dict of losses; else a
list with `boxes` (D, 4) in px of the input, `scores` (D,), `labels` (D,) and `masks` (D, 1, 28, 28) of each picture,
the surest first. Its class 0 is the background, ours begin at 1.
"""

from pathlib import Path
from typing import Any

from torch import nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from models.common.objects import backbones
from models.common.objects.detector import Detector
from models.common.objects.weights import load_backbone_weights, load_weights_file
from models.common.training import heads
from models.instance_segmentation.params import InstanceData, InstanceTrain

MIN_SCORE = 0.05  # objects below it are not even evaluated: they cost time and hardly any average precision
SMALL_LEVELS, LEVELS = range(3), range(4)  # of the pyramid, from 1/4 of the picture on: masks need it fine
RATIOS = (0.5, 1.0, 2.0)
SMALL_CHANNELS = 64  # channels of the heads on our own backbone
MASK_SIDE = 28  # cells of a mask, either way
SMALL_SAMPLES: dict[str, Any] = {
    "rpn_pre_nms_top_n_train": 400,
    "rpn_pre_nms_top_n_test": 200,
    "rpn_post_nms_top_n_train": 400,
    "rpn_post_nms_top_n_test": 200,
    "rpn_batch_size_per_image": 128,
    "box_batch_size_per_image": 48,
}


def build(train: InstanceTrain, data: InstanceData, classes: int) -> nn.Module:
    """An untrained Mask R-CNN, its answers limited as `data` says."""
    network = _maskrcnn(train, classes, data)
    network.transform = backbones.NoTransform()
    backbones.scale_proposal_logits(network)
    output_layers = ("rpn.head", "roi_heads.box_predictor", "roi_heads.mask_predictor")
    for name, layer in network.named_modules():
        if name in output_layers:
            layer.register_forward_hook(backbones.to_float32)
    if train.dropout:
        heads.add_dropout([network.get_submodule("roi_heads.box_predictor")], train.dropout)
    return network


def class_layers(train: InstanceTrain, data: InstanceData, network: nn.Module) -> list[nn.Module]:
    """The layers whose shape depends on the number of classes."""
    return heads.class_layers(network, lambda classes: _maskrcnn(train, classes, data))


def detector(network: nn.Module) -> Detector:
    """A network with its preprocessing."""
    return Detector(network, first_label=1)


def load_initial(
    network: nn.Module, train: InstanceTrain, data: InstanceData, labels: tuple[str, ...], initial: Path | None
) -> None:
    """Fills `network` as `train.weights` says, from the file `initial` where that is the champion's or a path.

    Raises UserError where the weights cannot be had or are another network's.
    """
    if train.weights == "imagenet":
        load_backbone_weights(network, train.backbone)
    elif initial:
        load_weights_file(network, class_layers(train, data, network), train.design, labels, initial, background=True)


def _maskrcnn(train: InstanceTrain, classes: int, data: InstanceData) -> nn.Module:
    small = train.backbone == "small"
    levels = SMALL_LEVELS if small else LEVELS
    frozen = train.weights != "none" and not small
    backbone = backbones.pyramid(train.backbone, train.width, levels, LastLevelMaxPool(), frozen_norms=frozen)
    sizes = tuple((train.anchor * 2**level,) for level in range(len(levels) + 1))
    names = [str(index) for index in range(len(levels))]
    samples = 1 if small else 2  # of a cell, either way: their gradients take most of a step on a CPU
    parts: dict[str, Any] = _small_heads(classes) if small else {"num_classes": classes + 1}
    network: nn.Module = MaskRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(sizes, (RATIOS,) * len(sizes)),
        box_roi_pool=MultiScaleRoIAlign(names, 7, samples),
        mask_roi_pool=MultiScaleRoIAlign(names, MASK_SIDE // 2, samples),
        box_score_thresh=MIN_SCORE,
        box_nms_thresh=data.nms_iou,
        box_detections_per_img=data.max_objects,
        **parts,
    )
    return network


def _small_heads(classes: int) -> dict[str, Any]:
    channels = backbones.SMALL_PYRAMID_CHANNELS
    features = 4 * SMALL_CHANNELS
    return {
        "box_head": TwoMLPHead(channels * 7**2, features),
        "box_predictor": FastRCNNPredictor(features, classes + 1),
        "mask_head": MaskRCNNHeads(channels, (SMALL_CHANNELS, SMALL_CHANNELS), 1),
        "mask_predictor": MaskRCNNPredictor(SMALL_CHANNELS, SMALL_CHANNELS, classes + 1),
        **SMALL_SAMPLES,
    }
