"""Random changes to a batch of pictures and their masks alike, on whatever device it is on, each with its own draw.

Randomness is torch's global generator: training seeds it for each epoch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from models.common.image.augmentation import recoloured
from models.semantic_segmentation.masks import NO_CLASS
from models.semantic_segmentation.params import Augment


def augmented(pictures: Tensor, masks: Tensor, augment: Augment) -> tuple[Tensor, Tensor]:
    """(N, H, W, 3) and (N, H, W) uint8 -> (N, h, w, 3) float in 0..255 and (N, h, w) int64; h and w of the crop."""
    moved, classes = together(pictures, masks, augment)
    moved = recoloured(moved, augment.brightness, augment.contrast)
    if augment.tint:
        shares = 1 + augment.tint * _either_way(len(moved) * 3, moved.device)
        moved = (moved * shares.view(-1, 3, 1, 1)).clamp(0, 255)
    return moved.permute(0, 2, 3, 1), classes


def together(pictures: Tensor, masks: Tensor, augment: Augment) -> tuple[Tensor, Tensor]:
    """A window of each picture, as (N, 3, h, w) float, bilinear, and of its mask, (N, h, w) int64, nearest.

    Beyond the edge the picture goes on with its last pixels, and the mask is void.
    """
    count, height, width = masks.shape
    crop = augment.crop or (width, height)
    grid = _windows(count, (crop[0] / width, crop[1] / height), augment, pictures.device)
    points = F.affine_grid(grid, [count, 3, crop[1], crop[0]], align_corners=False)
    seen = F.grid_sample(pictures.permute(0, 3, 1, 2).float(), points, "bilinear", "border", align_corners=False)
    labelled = masks[:, None].float() - NO_CLASS  # so that the zeros beyond the edge become void
    classes = F.grid_sample(labelled, points, "nearest", "zeros", align_corners=False)[:, 0] + NO_CLASS
    return seen, classes.long()


def _windows(count: int, share: tuple[float, float], augment: Augment, device: torch.device) -> Tensor:
    """(N, 2, 3) affine matrices: where in the picture, both of whose axes go from -1 to 1, a window lies."""
    zoom = 1 + augment.scale * _either_way(count, device)
    across, along = zoom * share[0], zoom * share[1]
    right, down = ((1 - size).abs() * _either_way(count, device) for size in (across, along))
    if augment.horizontal_flip:
        across = torch.where(torch.rand(count, device=device) < 0.5, -across, across)
    zero = torch.zeros_like(zoom)
    return torch.stack([across, zero, right, zero, along, down], 1).view(count, 2, 3)


def _either_way(count: int, device: torch.device) -> Tensor:
    return 2 * torch.rand(count, device=device) - 1
