"""Random changes to a batch of pictures and to the boxes in them, on whatever device it is on.

Flip, size and shift are one affine map of each picture, so its pixels are resampled once. Randomness is torch's global
generator: training seeds it for each epoch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.common.image.augmentation import color_jitter
from models.object_detection.params import Augment

LEAST_SEEN = 0.3  # share of a box that must still be in the picture; less of an object is not to be found
LEAST_SIDE = 2.0  # px
Boxes = Tensor  # (N, M, 4): x1, y1, x2, y2 in px; M is the most of any picture
Classes = Tensor  # (N, M) int64; -1 where there is no box


def augmented(pictures: Tensor, boxes: Boxes, classes: Classes, augment: Augment, fill: Tensor) -> tuple[Tensor, ...]:
    """(N, H, W, 3) uint8 pictures -> (N, H, W, 3) float in 0..255, boxes and classes after the change.

    fill: (3,), the colour beyond a picture's edges.
    """
    batch = color_jitter(pictures.permute(0, 3, 1, 2).float(), augment.brightness, augment.contrast)
    batch = batch - fill.view(1, 3, 1, 1)  # so that the zeros beyond the edges are the fill
    if augment.mosaic and torch.rand(()) < augment.mosaic:
        batch, boxes, classes = _mosaic(batch, boxes, classes)
    elif augment.horizontal_flip or augment.vertical_flip or augment.scale or augment.shift:
        batch, boxes = _moved(batch, boxes, *_draw(batch, augment))
        boxes, classes = _cut(boxes, classes, batch.shape[-1], batch.shape[-2])
    return (batch + fill.view(1, 3, 1, 1)).permute(0, 2, 3, 1), boxes, classes


def _draw(batch: Tensor, augment: Augment) -> tuple[Tensor, Tensor]:
    """(N, 2) each, for x and y: a factor, negative to mirror, and a shift as a share of half the side."""
    count, device = len(batch), batch.device
    size = torch.exp(torch.log1p(torch.tensor(augment.scale)) * _either_way(count, 1, device))
    size = size * torch.exp(0.3 * torch.log1p(torch.tensor(augment.scale)) * _either_way(count, 2, device))
    flips = torch.tensor([augment.horizontal_flip, augment.vertical_flip], device=device)
    mirror = torch.where((torch.rand(count, 2, device=device) < 0.5) & flips, -1.0, 1.0)
    return size * mirror, 2 * augment.shift * _either_way(count, 2, device)


def _moved(batch: Tensor, boxes: Boxes, factor: Tensor, shift: Tensor) -> tuple[Tensor, Boxes]:
    """Each point p, from -1 to 1 across the picture, goes to factor * p + shift."""
    zero = torch.zeros_like(factor[:, 0])
    back, start = 1 / factor, -shift / factor  # where a new pixel comes from
    matrix = torch.stack([back[:, 0], zero, start[:, 0], zero, back[:, 1], start[:, 1]], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(batch.shape), align_corners=False)
    moved = F.grid_sample(batch, grid, "bilinear", "zeros", align_corners=False)
    half = torch.tensor([batch.shape[-1], batch.shape[-2]], device=batch.device) / 2
    corners = boxes.view(*boxes.shape[:2], 2, 2) / half - 1  # (N, M, corner, axis)
    corners = (corners * factor[:, None, None] + shift[:, None, None] + 1) * half
    return moved, torch.cat([corners.amin(2), corners.amax(2)], 2)


def _mosaic(batch: Tensor, boxes: Boxes, classes: Classes) -> tuple[Tensor, Boxes, Classes]:
    """Each picture put together from a corner each of four, meeting at a point of the batch's own (YOLOv4, 2020)."""
    height, width = batch.shape[-2:]
    middle = torch.rand(2) * 0.4 + 0.3
    x, y = round(float(middle[0]) * width), round(float(middle[1]) * height)
    order = [torch.arange(len(batch), device=batch.device)]
    order += [torch.randperm(len(batch), device=batch.device) for _ in range(3)]
    quarters = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
    out, kept = torch.empty_like(batch), []
    for chosen, (left, top, right, bottom) in zip(order, quarters, strict=True):
        out[:, :, top:bottom, left:right] = batch[chosen, :, top:bottom, left:right]
        kept.append(_cut(boxes[chosen], classes[chosen], right, bottom, left, top))
    return out, torch.cat([each for each, _ in kept], 1), torch.cat([each for _, each in kept], 1)


def _cut(
    boxes: Boxes, classes: Classes, right: float, bottom: float, left: float = 0, top: float = 0
) -> tuple[Boxes, Classes]:
    """Boxes cut off at these edges; those of which too little is left are no more."""
    low = torch.tensor([left, top] * 2, device=boxes.device, dtype=boxes.dtype)
    high = torch.tensor([right, bottom] * 2, device=boxes.device, dtype=boxes.dtype)
    inside = torch.minimum(torch.maximum(boxes, low), high)
    sides = inside[..., 2:] - inside[..., :2]
    seen = sides.prod(-1) >= LEAST_SEEN * (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    real = seen & (sides.amin(-1) >= LEAST_SIDE)
    return inside, torch.where(real, classes, -1)


def _either_way(count: int, width: int, device: torch.device) -> Tensor:
    return 2 * torch.rand(count, width, device=device) - 1
