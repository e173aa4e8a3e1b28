"""Random changes to a batch of pictures and to the masks of the objects in them, on whatever device it is on.

Flip, size and shift are one affine map of each picture and of its masks, so pixels are resampled once. Boxes are those
around what is left of the masks. Randomness is torch's global generator: training seeds it for each epoch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.common.image.augmentation import color_jitter
from models.instance_segmentation.params import Augment

LEAST_SEEN = 0.3  # share of a mask that must still be in the picture; less of an object is not to be found
LEAST_SIDE = 2  # px of a box


def augmented(pictures: Tensor, masks: Tensor, classes: Tensor, augment: Augment, fill: Tensor) -> tuple[Tensor, ...]:
    """Pictures (N, H, W, 3) uint8, masks (N, M, H, W) uint8, classes (N, M), -1 where there is no object.

    Gives pictures (N, H, W, 3) float in 0..255, masks and classes after the change. fill: (3,), beyond the edges.
    """
    batch = color_jitter(pictures.permute(0, 3, 1, 2).float(), augment.brightness, augment.contrast)
    if augment.horizontal_flip or augment.vertical_flip or augment.scale or augment.shift:
        grid, size = _grid(len(batch), batch.shape[-2:], augment, batch.device)
        edge = fill.view(1, 3, 1, 1)  # taken off, so that the zeros beyond the edges become the fill
        batch = F.grid_sample(batch - edge, grid, "bilinear", "zeros", align_corners=False) + edge
        masks, classes = _moved(masks, classes, grid, size)
    return batch.permute(0, 2, 3, 1), masks, classes


def _moved(masks: Tensor, classes: Tensor, grid: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """size: (N,), by how much an area grows."""
    if not masks.shape[1]:
        return masks, classes
    moved = (F.grid_sample(masks.float(), grid, "bilinear", "zeros", align_corners=False) >= 0.5).to(masks.dtype)
    before = masks.flatten(2).sum(2, dtype=torch.float32) * size[:, None]
    seen = moved.flatten(2).sum(2, dtype=torch.float32) >= LEAST_SEEN * before
    return moved, torch.where(seen, classes, -1)


def _grid(count: int, shape: torch.Size, augment: Augment, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each new pixel comes from, (N, H, W, 2), and by how much areas grow, (N,)."""
    factor = torch.exp(torch.log1p(torch.tensor(augment.scale)) * _either_way(count, 1, device))
    flips = torch.tensor([augment.horizontal_flip, augment.vertical_flip], device=device)
    mirror = torch.where((torch.rand(count, 2, device=device) < 0.5) & flips, -1.0, 1.0)
    shift = 2 * augment.shift * _either_way(count, 2, device)
    back = mirror / factor  # a point p, from -1 to 1 across the picture, goes to p / back + shift
    start = -shift * back
    zero = torch.zeros_like(back[:, 0])
    matrix = torch.stack([back[:, 0], zero, start[:, 0], zero, back[:, 1], start[:, 1]], 1).view(-1, 2, 3)
    return F.affine_grid(matrix, [count, 3, *shape], align_corners=False), (factor**2)[:, 0]


def boxes_around(masks: Tensor) -> Tensor:
    """(…, H, W) masks -> (…, 4) x1, y1, x2, y2 in px around all that is 1; x2 below x1 where nothing is."""
    if not masks.numel():
        return masks.new_zeros((*masks.shape[:-2], 4), dtype=torch.float32)
    edges = []
    for axis in (-2, -1):
        there = masks.amax(axis)  # along the other axis
        length = there.shape[-1]
        first = there.argmax(-1)
        last = length - there.flip(-1).argmax(-1)
        empty = there.amax(-1) == 0
        edges.append((torch.where(empty, length, first), torch.where(empty, 0, last)))
    (x1, x2), (y1, y2) = edges
    return torch.stack([x1, y1, x2, y2], -1).float()


def _either_way(count: int, width: int, device: torch.device) -> Tensor:
    return 2 * torch.rand(count, width, device=device) - 1
