"""What learns to find objects: network, augmentation and losses."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.common.data.decoded_cache import Decoded
from models.common.image.letterbox import FILL, Canvas
from models.common.objects.annotations import Annotation
from models.common.training.freezing import LayerGroup
from models.object_detection.augment import augmented
from models.object_detection.networks import Detector
from models.object_detection.params import DetectionTrain
from models.object_detection.pictures import found
from models.object_detection.scoring import map_and_map50, matched_row

Batch = tuple[Tensor, Tensor, Tensor]  # pictures (N, H, W, 3) uint8; boxes (N, M, 4), px; classes (N, M), -1: none


@dataclass(frozen=True)
class Goals:
    """What is in the pictures, on the canvas: padded to the most objects that one of them has."""

    boxes: Tensor  # (N, M, 4) float32
    classes: Tensor  # (N, M) int64, -1 where there is no object

    @staticmethod
    def of(annotations: list[Annotation], labels: tuple[str, ...], canvas: Canvas) -> "Goals":
        """Of annotated pictures, without the objects that are not to be learnt."""
        number = {label: place for place, label in enumerate(labels)}
        most = max((len(each.labels) for each in annotations), default=0)
        boxes = np.zeros((len(annotations), most, 4), np.float32)
        classes = np.full((len(annotations), most), -1, np.int64)
        for place, each in enumerate(annotations):
            learnt = np.flatnonzero(~each.ignored)
            boxes[place, : len(learnt)] = each.boxes[learnt] * canvas.scale(each.width, each.height)
            classes[place, : len(learnt)] = [number[each.labels[index]] for index in learnt]
        return Goals(torch.from_numpy(boxes), torch.from_numpy(classes))


class Scenes:
    """Pictures and what is in them, by position."""

    def __init__(self, pixels: Decoded, annotations: list[Annotation], goals: Goals, device: torch.device) -> None:
        self.annotations = annotations
        self._pixels, self._goals, self._device = pixels, goals, device

    def __len__(self) -> int:
        return len(self._pixels)

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Those pictures with their boxes, on the device."""
        index = torch.from_numpy(positions)
        pictures = torch.from_numpy(self._pixels.take(positions))
        return self._sent(pictures), self._sent(self._goals.boxes[index]), self._sent(self._goals.classes[index])

    def _sent(self, tensor: Tensor) -> Tensor:
        if self._device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)


class DetectionLearner:
    """A Learner (models/common/training/loop.py) of boxes."""

    def __init__(
        self,
        network: nn.Module,
        groups: list[LayerGroup],
        scenes: Scenes,
        val: Scenes,
        train: DetectionTrain,
        canvas: Canvas,
        labels: tuple[str, ...],
    ) -> None:
        self.network, self.groups = network, groups
        self.examples = len(scenes)
        self._scenes, self._val, self._train, self._canvas, self._labels = scenes, val, train, canvas, labels
        device = next(network.parameters()).device
        self._detector = Detector(network, train).to(device)
        self._fill = torch.tensor(FILL, dtype=torch.float32, device=device)
        self._format = torch.channels_last if train.channels_last else torch.contiguous_format
        network.to(memory_format=self._format)
        if train.compile:
            network.get_submodule("backbone").compile()

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Training pictures, as they were decoded, and what is in them."""
        return self._scenes.fetch(positions)

    def loss(self, batch: Batch) -> Tensor:
        """The detector's losses on an augmented batch."""
        pictures, boxes, classes = augmented(*batch, self._train.augment, self._fill)
        return self._losses(pictures, boxes, classes)

    def evaluate(self) -> dict[str, float]:
        """The losses over the validation split, and mAP and mAP50 as pycocotools counts them."""
        total, rows = 0.0, []
        for part in np.array_split(np.arange(len(self._val)), -(-len(self._val) // self._train.batch_size)):
            pictures, boxes, classes = self._val.fetch(part)
            with _training_outputs(self.network):
                total += len(part) * float(self._losses(pictures.float(), boxes, classes))
            for place, answer in zip(part, self._detector(pictures), strict=True):
                truth = self._val.annotations[place]
                outputs = {name: tensor.float().cpu().numpy() for name, tensor in answer.items()}
                outputs["labels"] = outputs["labels"].astype(np.int64)
                seen = found(outputs, self._canvas, truth.width, truth.height)
                rows.append(matched_row(truth, seen, self._labels))
        found_right = map_and_map50(pd.DataFrame(rows))
        return {"val_loss": total / len(self._val), **{f"val_{name}": value for name, value in found_right.items()}}

    def _losses(self, pictures: Tensor, boxes: Tensor, classes: Tensor) -> Tensor:
        inputs = self._detector.scaled(pictures).contiguous(memory_format=self._format)
        real = classes >= 0
        chosen = [(each[mask], numbers[mask]) for each, numbers, mask in zip(boxes, classes, real, strict=True)]
        return self._detector.losses(inputs, [each for each, _ in chosen], [numbers for _, numbers in chosen])


@contextmanager
def _training_outputs(network: nn.Module) -> Iterator[None]:
    """A detector in evaluation mode that gives losses all the same: its norms stay as they are."""
    deciding = [part for name, part in network.named_modules() if name in ("", "rpn", "roi_heads")]
    for part in deciding:
        part.training = True
    try:
        yield
    finally:
        for part in deciding:
            part.training = False
