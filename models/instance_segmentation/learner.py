"""What learns to find objects pixel by pixel: network, augmentation and losses (models/common/training/loop.py)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from models.common.data.decoded_cache import Decoded
from models.common.image.letterbox import FILL, Canvas
from models.common.objects.annotations import Annotation
from models.common.objects.backbones import training_flag
from models.common.objects.masks import Rle
from models.common.training.freezing import LayerGroup
from models.instance_segmentation.augmentation import LEAST_SIDE, augmented, boxes_around
from models.instance_segmentation.networks import Segmenter
from models.instance_segmentation.objects import OUTPUTS, found
from models.instance_segmentation.params import InstanceTrain
from models.instance_segmentation.scoring import at_once, matched_row

# Pictures (N, H, W, 3) uint8, masks (N, M, H, W) uint8 of 0 and 1, classes (N, M) int64, -1 where there is no object.
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Drawn:
    """The mask of an object on the canvas, packed: the part that it covers, and where that is."""

    bits: NDArray[np.uint8]
    shape: tuple[int, int]
    left: int
    top: int

    @staticmethod
    def of(mask: Rle, canvas: Canvas) -> "Drawn":
        """A mask as large as its picture, scaled as the picture is."""
        whole = Image.fromarray(mask.array().astype(np.uint8) * 255)
        scaled = np.asarray(whole.resize(canvas.inner(mask.width, mask.height), Image.Resampling.BILINEAR)) >= 128
        rows, columns = np.flatnonzero(scaled.any(axis=1)), np.flatnonzero(scaled.any(axis=0))
        if not len(rows):
            return Drawn(np.zeros(0, np.uint8), (0, 0), 0, 0)
        crop = scaled[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return Drawn(np.packbits(crop), crop.shape, int(columns[0]), int(rows[0]))

    def onto(self, plane: NDArray[np.uint8]) -> None:
        """Draws it on a plane of zeros as large as the canvas."""
        height, width = self.shape
        crop = np.unpackbits(self.bits, count=height * width).reshape(self.shape)
        plane[self.top : self.top + height, self.left : self.left + width] = crop


class Scenes:
    """Pictures and the objects in them, by position."""

    def __init__(
        self,
        pixels: Decoded,
        annotations: list[Annotation],
        labels: tuple[str, ...],
        canvas: Canvas,
        device: torch.device,
    ) -> None:
        self._pixels, self._canvas, self._device = pixels, canvas, device
        self.annotations = annotations
        number = {label: place for place, label in enumerate(labels)}
        self._objects = [_learnt(each, number, canvas) for each in annotations]

    def __len__(self) -> int:
        return len(self._pixels)

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Those pictures with their objects, on the device."""
        objects = [self._objects[place] for place in positions]
        most = max(len(each) for each in objects)
        masks = np.zeros((len(positions), most, self._canvas.height, self._canvas.width), np.uint8)
        classes = np.full((len(positions), most), -1, np.int64)
        for place, each in enumerate(objects):
            for index, (number, drawn) in enumerate(each):
                drawn.onto(masks[place, index])
                classes[place, index] = number
        arrays = self._pixels.take(positions), masks, classes
        pictures, planes, numbers = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
        if self._device.type == "cuda":
            pictures, planes, numbers = (tensor.pin_memory() for tensor in (pictures, planes, numbers))
        pictures, planes, numbers = (
            tensor.to(self._device, non_blocking=True) for tensor in (pictures, planes, numbers)
        )
        return pictures, planes, numbers


def _learnt(annotation: Annotation, number: dict[str, int], canvas: Canvas) -> list[tuple[int, Drawn]]:
    """Class and mask of each object that is to be learnt."""
    objects = zip(annotation.labels, annotation.masks, annotation.ignored, strict=True)
    return [(number[label], Drawn.of(mask, canvas)) for label, mask, ignored in objects if mask and not ignored]


class InstanceLearner:
    """A Learner (models/common/training/loop.py) of masks."""

    def __init__(
        self,
        network: nn.Module,
        groups: list[LayerGroup],
        scenes: Scenes,
        val: Scenes,
        train: InstanceTrain,
        canvas: Canvas,
        labels: tuple[str, ...],
    ) -> None:
        self.network, self.groups = network, groups
        self.examples = len(scenes)
        self._scenes, self._val, self._train, self._canvas, self._labels = scenes, val, train, canvas, labels
        device = next(network.parameters()).device
        self._segmenter = Segmenter(network).to(device)
        self._fill = torch.tensor(FILL, dtype=torch.float32, device=device)
        self._format = torch.channels_last if train.channels_last else torch.contiguous_format
        network.to(memory_format=self._format)
        if train.compile:
            network.get_submodule("backbone").compile()

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Training pictures, as they were decoded, and the objects in them."""
        return self._scenes.fetch(positions)

    def loss(self, batch: Batch) -> Tensor:
        """The network's losses on an augmented batch."""
        return self._losses(*augmented(*batch, self._train.augment, self._fill))

    def evaluate(self) -> dict[str, float]:
        """The losses over the validation split, and mAP and mAP50 of masks as pycocotools counts them."""
        total, rows = 0.0, []
        for part in np.array_split(np.arange(len(self._val)), -(-len(self._val) // self._train.batch_size)):
            pictures, masks, classes = self._val.fetch(part)
            training_flag(self.network, on=True)
            total += len(part) * float(self._losses(pictures.float(), masks, classes))
            training_flag(self.network, on=False)
            for place, answer in zip(part, self._segmenter(pictures), strict=True):
                truth = self._val.annotations[place]
                outputs = {name: answer[name].float().cpu().numpy() for name in OUTPUTS}
                outputs["labels"] = outputs["labels"].astype(np.int64)
                seen = found(outputs, self._canvas, truth.width, truth.height)
                rows.append(matched_row(truth, seen, self._labels))
        reached = at_once(pd.DataFrame(rows))
        return {"val_loss": total / len(self._val)} | {f"val_{name}": value for name, value in reached.items()}

    def _losses(self, pictures: Tensor, masks: Tensor, classes: Tensor) -> Tensor:
        inputs = self._segmenter.scaled(pictures).contiguous(memory_format=self._format)
        boxes = boxes_around(masks)
        real = (classes >= 0) & ((boxes[..., 2:] - boxes[..., :2]) >= LEAST_SIDE).all(-1)
        chosen = [each[mine] for each, mine in zip(boxes, real, strict=True)]
        numbers = [each[mine] for each, mine in zip(classes, real, strict=True)]
        drawn = [each[mine] for each, mine in zip(masks, real, strict=True)]
        return self._segmenter.losses(inputs, chosen, numbers, drawn)
