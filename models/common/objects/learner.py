"""What learns to find objects, by boxes or by masks: a detector, augmentation, losses, and validation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.common.image.letterbox import FILL, Canvas
from models.common.objects import backbones
from models.common.objects.annotations import Annotation
from models.common.objects.detections import read_detections
from models.common.objects.detector import Answer, Detector, SinglePicture, Target
from models.common.objects.params import ObjectTrain
from models.common.objects.score_rows import RowOf, map_and_map50
from models.common.training.freezing import layer_groups
from models.common.training.transfer import to_device

Batch = tuple[Tensor, ...]  # pictures (N, H, W, 3) uint8, then what is in them


class AnnotatedPictures(Protocol):
    """Pictures and what is in them, by position."""

    @property
    def annotations(self) -> list[Annotation]: ...

    def __len__(self) -> int: ...

    def take(self, positions: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """Pictures (N, H, W, 3) uint8, and what is in them, in the form that the task takes."""


@dataclass(frozen=True)
class Task:
    """What boxes have otherwise than masks.

    augment: a batch on the device, and the colour beyond the edges -> the batch changed, pictures float in 0..255.
    targets: what is in the pictures of a batch -> the same for each picture, as torchvision's detectors take it.
    row_of: what was found in a picture -> its row of the table that validation counts.
    """

    augment: Callable[[Batch, Tensor], Batch]
    targets: Callable[..., Sequence[Target]]
    row_of: RowOf


class ObjectLearner:
    """A Learner (models/common/training/loop.py) of any detector."""

    def __init__(
        self,
        detector: Detector,
        task: Task,
        pictures: AnnotatedPictures,
        val: AnnotatedPictures,
        train: ObjectTrain,
        canvas: Canvas,
        labels: tuple[str, ...],
    ) -> None:
        self.network = detector.network
        self.groups = layer_groups(self.network, backbones.head(self.network))
        self.examples, self.validation_examples = len(pictures), len(val)
        self._detector, self._task, self._pictures, self._val = detector, task, pictures, val
        self._canvas, self._labels, self._batch_size = canvas, labels, train.batch_size
        self._device = next(self.network.parameters()).device
        self._fill = torch.tensor(FILL, dtype=torch.float32, device=self._device)
        self._memory_format = backbones.set_memory_format(
            self.network, channels_last=train.channels_last, compiled=train.compile
        )

    def fetch(self, positions: NDArray[np.int64]) -> Batch:
        """Training pictures, as they were decoded, and what is in them."""
        return to_device(self._pictures.take(positions), self._device)

    def loss(self, batch: Batch) -> Tensor:
        """The detector's losses on an augmented batch."""
        return self._losses(*self._task.augment(batch, self._fill))

    def evaluate(self) -> dict[str, float]:
        """The losses over the validation split, and mAP and mAP50 as pycocotools counts them."""
        total, rows = 0.0, []
        for part in np.array_split(np.arange(len(self._val)), -(-len(self._val) // self._batch_size)):
            pictures, *objects = to_device(self._val.take(part), self._device)
            with backbones.losses_in_evaluation(self.network):
                total += len(part) * float(self._losses(pictures.float(), *objects))
            rows += [
                self._row(self._val.annotations[index], answer)
                for index, answer in zip(part, self._detector(pictures), strict=True)
            ]
        metrics = map_and_map50(rows)
        return {"val_loss": total / len(self._val)} | {f"val_{name}": value for name, value in metrics.items()}

    def exportable(self, outputs: Sequence[str]) -> SinglePicture:
        """The detector on the CPU, for one picture at a time, its answers in the order of `outputs`."""
        self.network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        return SinglePicture(self._detector.cpu(), outputs).eval()

    def _losses(self, pictures: Tensor, *objects: Tensor) -> Tensor:
        inputs = self._detector.normalise(pictures).contiguous(memory_format=self._memory_format)
        return self._detector.losses(inputs, self._task.targets(*objects))

    def _row(self, truth: Annotation, answer: Answer) -> dict[str, Any]:
        outputs = {name: tensor.float().cpu().numpy() for name, tensor in answer.items()}
        outputs["labels"] = outputs["labels"].astype(np.int64)
        return self._task.row_of(truth, read_detections(outputs, self._canvas, truth.width, truth.height), self._labels)
