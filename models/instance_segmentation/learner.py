"""What is particular to learning masks; models/common/objects/learner.py does the rest."""

from torch import Tensor

from models.common.objects.augmentation import MIN_SIDE, augment_masks, boxes_around
from models.common.objects.detector import Target
from models.common.objects.learner import Batch, Task
from models.common.objects.params import Augment
from models.common.objects.score_rows import mask_row


def mask_task(augment: Augment) -> Task:
    """Learning masks, of pictures changed as `augment` says."""

    def change(batch: Batch, fill: Tensor) -> Batch:
        pictures, masks, classes = batch
        return augment_masks(pictures, masks, classes, augment, fill)

    return Task(change, mask_targets, mask_row)


def mask_targets(masks: Tensor, classes: Tensor) -> list[Target]:
    """Of masks (N, M, H, W) and classes (N, M) those that are there and large enough, with the boxes around them."""
    boxes = boxes_around(masks)
    present = (classes >= 0) & ((boxes[..., 2:] - boxes[..., :2]) >= MIN_SIDE).all(-1)
    return [
        {"boxes": box[is_present], "labels": numbers[is_present], "masks": planes[is_present]}
        for box, numbers, planes, is_present in zip(boxes, classes, masks, present, strict=True)
    ]
