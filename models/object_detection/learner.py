"""What is particular to learning boxes; models/common/objects/learner.py does the rest."""

from torch import Tensor

from models.common.objects.augmentation import augment_boxes
from models.common.objects.detector import Target
from models.common.objects.learner import Batch, Task
from models.common.objects.params import BoxAugment
from models.common.objects.score_rows import box_row


def box_task(augment: BoxAugment) -> Task:
    """Learning boxes, of pictures changed as `augment` says."""

    def change(batch: Batch, fill: Tensor) -> Batch:
        pictures, boxes, classes = batch
        return augment_boxes(pictures, boxes, classes, augment, fill)

    return Task(change, box_targets, box_row)


def box_targets(boxes: Tensor, classes: Tensor) -> list[Target]:
    """Of boxes (N, M, 4) and classes (N, M) those that are there, for each picture."""
    present = classes >= 0
    return [
        {"boxes": each[mask], "labels": numbers[mask]}
        for each, numbers, mask in zip(boxes, classes, present, strict=True)
    ]
