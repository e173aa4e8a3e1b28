"""Mask R-CNN by torchvision (He et al., ICCV 2017) on a choice of backbones, one of them our own, with smaller heads.

It takes float pictures (N, 3, H, W), normalised. In training it takes targets, too, and gives a dict of losses; else a
list with `boxes` (D, 4) in px of the input, `scores` (D,), `labels` (D,) and `masks` (D, 1, 28, 28) of each picture,
the surest first. Its class 0 is the background, ours begin at 1.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from models.common.image.normalisation import Normalised
from models.common.objects import backbones
from models.instance_segmentation.params import InstanceData, InstanceTrain

LEAST_SCORE = 0.05  # objects below it are not even evaluated: they cost time and hardly any average precision
SMALL_LEVELS, LEVELS = range(3), range(4)  # of the pyramid, from 1/4 of the picture on: masks need it fine
RATIOS = (0.5, 1.0, 2.0)
SMALL = 64  # channels of the heads on our own trunk
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
    network.transform = backbones.Ready()
    backbones.rank_finely(network)
    answering = ("rpn.head", "roi_heads.box_predictor", "roi_heads.mask_predictor")
    for name, layer in network.named_modules():
        if name in answering:
            layer.register_forward_hook(backbones.in_full_precision)
    if train.dropout:
        box_predictor = network.get_submodule("roi_heads.box_predictor")
        box_predictor.register_forward_pre_hook(functools.partial(_drop, train.dropout))
    return network


def class_layers(train: InstanceTrain, data: InstanceData, network: nn.Module) -> list[nn.Module]:
    """The layers whose shape depends on the number of classes."""
    two, three = (backbones.hollow(lambda count: _maskrcnn(train, count, data), classes) for classes in (2, 3))
    return backbones.class_layers(network, two, three)


class Segmenter(nn.Module):
    """A network with its preprocessing: pictures (N, H, W, 3) uint8 -> what was found, labels from 0."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.normalised = Normalised(network)

    def forward(self, pictures: Tensor) -> list[dict[str, Tensor]]:
        """For each picture boxes (D, 4), scores (D,), labels (D,) and masks (D, 28, 28) of probabilities."""
        answers: list[dict[str, Tensor]] = self.normalised(pictures)
        return [each | {"labels": each["labels"] - 1, "masks": each["masks"][:, 0]} for each in answers]

    def losses(self, inputs: Tensor, boxes: list[Tensor], classes: list[Tensor], masks: list[Tensor]) -> Tensor:
        """The sum of the network's losses.

        inputs: (N, 3, H, W), scaled. Of each picture boxes (M, 4) in px, classes (M,) int64, masks (M, H, W) uint8.
        """
        targets = [
            {"boxes": each, "labels": numbers + 1, "masks": drawn}
            for each, numbers, drawn in zip(boxes, classes, masks, strict=True)
        ]
        parts: dict[str, Tensor] = self.normalised.network(inputs, targets)
        return torch.stack([part.float() for part in parts.values()]).sum()

    def scaled(self, pictures: Tensor) -> Tensor:
        """(N, H, W, 3) float in 0..255 -> (N, 3, H, W), normalised."""
        return self.normalised.scaled(pictures)


class Single(nn.Module):
    """One picture at a time, as it is exported: (1, H, W, 3) uint8 -> boxes, scores, labels, masks."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(D, 4), (D,), (D,), (D, 28, 28)."""
        answer = self.segmenter(pictures)[0]
        return answer["boxes"], answer["scores"], answer["labels"], answer["masks"]


def _maskrcnn(train: InstanceTrain, classes: int, data: InstanceData) -> nn.Module:
    small = train.backbone == "small"
    levels = SMALL_LEVELS if small else LEVELS
    frozen = train.weights != "none" and not small
    backbone = backbones.pyramid(train.backbone, train.width, levels, LastLevelMaxPool(), frozen_norms=frozen)
    sizes = tuple((train.anchor * 2**level,) for level in range(len(levels) + 1))
    names = [str(place) for place in range(len(levels))]
    samples = 1 if small else 2  # of a cell, either way: their gradients take most of a step on a CPU
    parts: dict[str, Any] = _small_heads(classes) if small else {"num_classes": classes + 1}
    network: nn.Module = MaskRCNN(
        backbone,
        rpn_anchor_generator=AnchorGenerator(sizes, (RATIOS,) * len(sizes)),
        box_roi_pool=MultiScaleRoIAlign(names, 7, samples),
        mask_roi_pool=MultiScaleRoIAlign(names, MASK_SIDE // 2, samples),
        box_score_thresh=LEAST_SCORE,
        box_nms_thresh=data.nms_iou,
        box_detections_per_img=data.max_objects,
        **parts,
    )
    return network


def _small_heads(classes: int) -> dict[str, Any]:
    channels = backbones.SMALL_PYRAMID
    features = 4 * SMALL
    return {
        "box_head": TwoMLPHead(channels * 7**2, features),
        "box_predictor": FastRCNNPredictor(features, classes + 1),
        "mask_head": MaskRCNNHeads(channels, (SMALL, SMALL), 1),
        "mask_predictor": MaskRCNNPredictor(SMALL, SMALL, classes + 1),
        **SMALL_SAMPLES,
    }


def _drop(share: float, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(nn.functional.dropout(each, share, layer.training) for each in inputs)
