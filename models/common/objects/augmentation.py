"""Random changes to a batch of pictures and to the boxes or masks in them, on whatever device it is on.

Flip, size and shift are one affine map of each picture, and of its masks, so pixels are resampled once. Randomness is
torch's global generator: training seeds it for each epoch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.common.image.augmentation import color_jitter
from models.common.objects.params import Augment, BoxAugment

MIN_VISIBLE = 0.3  # share of an object that must still be in the picture; less of it is not to be found
MIN_SIDE = 2.0  # px of a box
Boxes = Tensor  # (N, M, 4): x1, y1, x2, y2 in px; M is the most of any picture
Masks = Tensor  # (N, M, H, W) uint8 of 0 and 1
Classes = Tensor  # (N, M) int64; -1 where there is no object


def augment_boxes(
    pictures: Tensor, boxes: Boxes, classes: Classes, augment: BoxAugment, fill: Tensor
) -> tuple[Tensor, Boxes, Classes]:
    """(N, H, W, 3) uint8 pictures -> (N, H, W, 3) float in 0..255, boxes and classes after the change.

    fill: (3,), the colour beyond a picture's edges.
    """
    batch = color_jitter(pictures.permute(0, 3, 1, 2).float(), augment.brightness, augment.contrast)
    batch = batch - fill.view(1, 3, 1, 1)  # so that the zeros beyond the edges are the fill
    if augment.mosaic and torch.rand(()) < augment.mosaic:
        batch, boxes, classes = _mosaic(batch, boxes, classes)
    elif _is_affine(augment):
        batch, boxes = _transform_boxes(batch, boxes, *_draw_affine(batch, augment))
        boxes, classes = _clip(boxes, classes, batch.shape[-1], batch.shape[-2])
    return (batch + fill.view(1, 3, 1, 1)).permute(0, 2, 3, 1), boxes, classes


def _draw_affine(batch: Tensor, augment: Augment) -> tuple[Tensor, Tensor]:
    """(N, 2) each, for x and y: a factor, negative to mirror, and a shift as a share of half the side."""
    count, device = len(batch), batch.device
    size = torch.exp(torch.log1p(torch.tensor(augment.scale)) * _signed_uniform(count, 1, device))
    size = size * torch.exp(0.3 * torch.log1p(torch.tensor(augment.scale)) * _signed_uniform(count, 2, device))
    flips = torch.tensor([augment.horizontal_flip, augment.vertical_flip], device=device)
    mirror = torch.where((torch.rand(count, 2, device=device) < 0.5) & flips, -1.0, 1.0)
    return size * mirror, 2 * augment.shift * _signed_uniform(count, 2, device)


def _transform_boxes(batch: Tensor, boxes: Boxes, factor: Tensor, shift: Tensor) -> tuple[Tensor, Boxes]:
    """Each point p, from -1 to 1 across the picture, goes to factor * p + shift."""
    zero = torch.zeros_like(factor[:, 0])
    inverse, offset = 1 / factor, -shift / factor  # where a new pixel comes from
    matrix = torch.stack([inverse[:, 0], zero, offset[:, 0], zero, inverse[:, 1], offset[:, 1]], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(batch.shape), align_corners=False)
    transformed = F.grid_sample(batch, grid, "bilinear", "zeros", align_corners=False)
    half = torch.tensor([batch.shape[-1], batch.shape[-2]], device=batch.device) / 2
    corners = boxes.view(*boxes.shape[:2], 2, 2) / half - 1  # (N, M, corner, axis)
    corners = (corners * factor[:, None, None] + shift[:, None, None] + 1) * half
    return transformed, torch.cat([corners.amin(2), corners.amax(2)], 2)


def _mosaic(batch: Tensor, boxes: Boxes, classes: Classes) -> tuple[Tensor, Boxes, Classes]:
    """Each picture put together from a corner each of four, meeting at a point of the batch's own (YOLOv4, 2020)."""
    height, width = batch.shape[-2:]
    middle = torch.rand(2) * 0.4 + 0.3
    x, y = round(float(middle[0]) * width), round(float(middle[1]) * height)
    order = [torch.arange(len(batch), device=batch.device)]
    order += [torch.randperm(len(batch), device=batch.device) for _ in range(3)]
    quarters = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
    out, parts = torch.empty_like(batch), []
    for sources, (left, top, right, bottom) in zip(order, quarters, strict=True):
        out[:, :, top:bottom, left:right] = batch[sources, :, top:bottom, left:right]
        parts.append(_clip(boxes[sources], classes[sources], right, bottom, left, top))
    return out, torch.cat([part for part, _ in parts], 1), torch.cat([part for _, part in parts], 1)


def _clip(
    boxes: Boxes, classes: Classes, right: float, bottom: float, left: float = 0, top: float = 0
) -> tuple[Boxes, Classes]:
    """Boxes cut off at these edges; those of which too little is left are no more."""
    low = torch.tensor([left, top] * 2, device=boxes.device, dtype=boxes.dtype)
    high = torch.tensor([right, bottom] * 2, device=boxes.device, dtype=boxes.dtype)
    inside = torch.minimum(torch.maximum(boxes, low), high)
    sides = inside[..., 2:] - inside[..., :2]
    visible = sides.prod(-1) >= MIN_VISIBLE * (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    valid = visible & (sides.amin(-1) >= MIN_SIDE)
    return inside, torch.where(valid, classes, -1)


def augment_masks(
    pictures: Tensor, masks: Masks, classes: Classes, augment: Augment, fill: Tensor
) -> tuple[Tensor, Masks, Classes]:
    """(N, H, W, 3) uint8 pictures -> (N, H, W, 3) float in 0..255, masks and classes after the change.

    Boxes are those around what is left of the masks. fill: (3,), the colour beyond a picture's edges.
    """
    batch = color_jitter(pictures.permute(0, 3, 1, 2).float(), augment.brightness, augment.contrast)
    if _is_affine(augment):
        grid, size = _sampling_grid(len(batch), batch.shape[-2:], augment, batch.device)
        edge = fill.view(1, 3, 1, 1)  # taken off, so that the zeros beyond the edges become the fill
        batch = F.grid_sample(batch - edge, grid, "bilinear", "zeros", align_corners=False) + edge
        masks, classes = _transform_masks(masks, classes, grid, size)
    return batch.permute(0, 2, 3, 1), masks, classes


def _transform_masks(masks: Masks, classes: Classes, grid: Tensor, size: Tensor) -> tuple[Masks, Classes]:
    """size: (N,), by how much an area grows."""
    if not masks.shape[1]:
        return masks, classes
    transformed = (F.grid_sample(masks.float(), grid, "bilinear", "zeros", align_corners=False) >= 0.5).to(masks.dtype)
    before = masks.flatten(2).sum(2, dtype=torch.float32) * size[:, None]
    visible = transformed.flatten(2).sum(2, dtype=torch.float32) >= MIN_VISIBLE * before
    return transformed, torch.where(visible, classes, -1)


def _sampling_grid(count: int, shape: torch.Size, augment: Augment, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each new pixel comes from, (N, H, W, 2), and by how much areas grow, (N,)."""
    factor = torch.exp(torch.log1p(torch.tensor(augment.scale)) * _signed_uniform(count, 1, device))
    flips = torch.tensor([augment.horizontal_flip, augment.vertical_flip], device=device)
    mirror = torch.where((torch.rand(count, 2, device=device) < 0.5) & flips, -1.0, 1.0)
    shift = 2 * augment.shift * _signed_uniform(count, 2, device)
    inverse = mirror / factor  # a point p, from -1 to 1 across the picture, goes to p / inverse + shift
    offset = -shift * inverse
    zero = torch.zeros_like(inverse[:, 0])
    matrix = torch.stack([inverse[:, 0], zero, offset[:, 0], zero, inverse[:, 1], offset[:, 1]], 1).view(-1, 2, 3)
    return F.affine_grid(matrix, [count, 3, *shape], align_corners=False), (factor**2)[:, 0]


def boxes_around(masks: Masks) -> Boxes:
    """(…, H, W) masks -> (…, 4) x1, y1, x2, y2 in px around all that is 1; x2 below x1 where nothing is."""
    if not masks.numel():
        return masks.new_zeros((*masks.shape[:-2], 4), dtype=torch.float32)
    edges = []
    for axis in (-2, -1):
        occupied = masks.amax(axis)  # along the other axis
        length = occupied.shape[-1]
        first = occupied.argmax(-1)
        last = length - occupied.flip(-1).argmax(-1)
        empty = occupied.amax(-1) == 0
        edges.append((torch.where(empty, length, first), torch.where(empty, 0, last)))
    (x1, x2), (y1, y2) = edges
    return torch.stack([x1, y1, x2, y2], -1).float()


def _is_affine(augment: Augment) -> bool:
    return bool(augment.horizontal_flip or augment.vertical_flip or augment.scale or augment.shift)


def _signed_uniform(count: int, width: int, device: torch.device) -> Tensor:
    return 2 * torch.rand(count, width, device=device) - 1
