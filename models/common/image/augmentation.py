"""Random changes to a whole batch of pictures at once, on whatever device it is on, each picture with its own draw.

Shift and flip only move whole pixels, so they are one gather on uint8; zoom and rotation resample in the same pass.
Randomness is torch's global generator: training seeds it for each epoch.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from models.common.image.params import ImageAugment


def augment_pictures(pictures: Tensor, augment: ImageAugment, normalise: Callable[[Tensor], Tensor]) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float: all changes that the params ask for; rectangles are erased last, which
    makes them the mean that `normalise` (see Normalised.scaled) leaves at 0."""
    batch = random_shift_flip(pictures, augment.crop, augment.horizontal_flip).permute(0, 3, 1, 2).float()
    batch = random_affine(batch, augment.scale, augment.rotate)
    batch = color_jitter(batch, augment.brightness, augment.contrast)
    return random_erasing(normalise(batch.permute(0, 2, 3, 1)), augment.erase)


def random_shift_flip(pictures: Tensor, shift: float, flip: bool) -> Tensor:
    """(N, H, W, C) shifted by up to `shift` of the side, edges reflected; half of them mirrored where `flip`."""
    if not shift and not flip:
        return pictures
    count, height, width, channels = pictures.shape
    rows = _reflect(torch.arange(height, device=pictures.device) + _random_offset(pictures, height, shift), height)
    columns = _reflect(torch.arange(width, device=pictures.device) + _random_offset(pictures, width, shift), width)
    if flip:
        mirrored = torch.rand(count, 1, device=pictures.device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    first = torch.arange(count, device=pictures.device)[:, None] * height
    index = ((first + rows) * width)[:, :, None] + columns[:, None, :]
    return pictures.reshape(-1, channels).index_select(0, index.flatten()).view(pictures.shape)


def random_affine(pictures: Tensor, scale: float, degrees: float) -> Tensor:
    """(N, C, H, W) float, zoomed in by up to `scale` of the side and turned by up to `degrees` either way; bilinear."""
    if not scale and not degrees:
        return pictures
    count = len(pictures)
    zoom = 1 - scale * torch.rand(count, device=pictures.device)
    angle = math.radians(degrees) * _signed_uniform(count, pictures.device)
    across, along = zoom * angle.cos(), zoom * angle.sin()
    zero = torch.zeros_like(zoom)
    matrix = torch.stack([across, -along, zero, along, across, zero], 1).view(count, 2, 3)
    grid = F.affine_grid(matrix, list(pictures.shape), align_corners=False).to(pictures.dtype)
    return F.grid_sample(pictures, grid, "bilinear", "reflection", align_corners=False)


def color_jitter(pictures: Tensor, brightness: float, contrast: float) -> Tensor:
    """(N, C, H, W) float in 0..255, lightened or darkened and stretched about its mean by up to those shares."""
    count = len(pictures)
    if contrast:
        mean = pictures.mean(dim=(1, 2, 3), keepdim=True)
        share = 1 + contrast * _signed_uniform(count, pictures.device)
        pictures = torch.lerp(mean, pictures, share.view(-1, 1, 1, 1))
    if brightness:
        share = 1 + brightness * _signed_uniform(count, pictures.device)
        pictures = pictures * share.view(-1, 1, 1, 1)
    return pictures.clamp(0, 255) if brightness or contrast else pictures


def random_tint(pictures: Tensor, share: float) -> Tensor:
    """(N, C, H, W) float in 0..255, each colour lightened or darkened by itself by up to `share`."""
    if not share:
        return pictures
    count, colours = pictures.shape[:2]
    shares = 1 + share * _signed_uniform(count * colours, pictures.device)
    return (pictures * shares.view(count, colours, 1, 1)).clamp(0, 255)


def random_resized_crop(
    pictures: Tensor, class_maps: Tensor, size: tuple[int, int], scale: float, flip: bool, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """A window of each picture (N, H, W, 3), as (N, 3, h, w) float, bilinear, and of its class map, (N, h, w) int64.

    `size`: width and height of the window, which is then larger or smaller by up to `scale`, and half of them mirrored
    where `flip`. Beyond the edge the picture goes on with its last pixels, and the class is `ignore_index`.
    """
    count, height, width = class_maps.shape
    windows = _window_matrices(count, (size[0] / width, size[1] / height), scale, flip, pictures.device)
    points = F.affine_grid(windows, [count, 3, size[1], size[0]], align_corners=False)
    cropped = F.grid_sample(pictures.permute(0, 3, 1, 2).float(), points, "bilinear", "border", align_corners=False)
    shifted = class_maps[:, None].float() - ignore_index  # so that the zeros beyond the edge become ignore_index
    classes = F.grid_sample(shifted, points, "nearest", "zeros", align_corners=False)[:, 0] + ignore_index
    return cropped, classes.long()


def random_erasing(pictures: Tensor, share: float, fill: float = 0.0) -> Tensor:
    """(N, C, H, W): `share` of the pictures lose a rectangle with sides of 1/8 to 1/2 (Zhong et al. 2020)."""
    if not share:
        return pictures
    count, _, height, width = pictures.shape
    rows = _random_interval(count, height, pictures.device)
    columns = _random_interval(count, width, pictures.device)
    erased = torch.rand(count, 1, 1, device=pictures.device) < share
    mask = rows[:, :, None] & columns[:, None, :] & erased
    return pictures.masked_fill(mask[:, None], fill)


def _window_matrices(count: int, share: tuple[float, float], scale: float, flip: bool, device: torch.device) -> Tensor:
    """(N, 2, 3) affine matrices: where in the picture, both of whose axes go from -1 to 1, a window lies."""
    zoom = 1 + scale * _signed_uniform(count, device)
    across, along = zoom * share[0], zoom * share[1]
    right, down = ((1 - size).abs() * _signed_uniform(count, device) for size in (across, along))
    if flip:
        across = torch.where(torch.rand(count, device=device) < 0.5, -across, across)
    zero = torch.zeros_like(zoom)
    return torch.stack([across, zero, right, zero, along, down], 1).view(count, 2, 3)


def _random_offset(pictures: Tensor, side: int, share: float) -> Tensor:
    limit = int(side * share)
    return torch.randint(-limit, limit + 1, (len(pictures), 1), device=pictures.device)


def _reflect(index: Tensor, side: int) -> Tensor:
    """Indices beyond an edge come back from it, the edge itself not repeated: -1 is 1, side is side - 2."""
    last = side - 1
    return last - (last - index.abs()).abs()


def _signed_uniform(count: int, device: torch.device) -> Tensor:
    return 2 * torch.rand(count, device=device) - 1


def _random_interval(count: int, side: int, device: torch.device) -> Tensor:
    """(count, side) bool: a random stretch of each row."""
    length = side * (0.125 + 0.375 * torch.rand(count, 1, device=device))
    start = (side - length) * torch.rand(count, 1, device=device)
    centre = torch.arange(side, device=device) + 0.5
    return (centre >= start) & (centre < start + length)
