"""Masks of single objects: run lengths, drawing into boxes, outlines, and moving with their pictures."""

from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as drawn

from models.common.objects.augmentation import augment_masks, boxes_around
from models.common.objects.masks import encode, from_crop, outlines, paste, read_rle
from models.common.objects.params import Augment


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_run_lengths_are_those_of_pycocotools(share: float) -> None:
    for seed in range(20):
        mask = np.random.default_rng(seed).random((seed + 1, 300)) < share
        ours, theirs = encode(mask), drawn.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert ours.counts == theirs["counts"].decode()
        assert read_rle(ours.coco) == ours
        assert np.array_equal(ours.array(), mask)
        assert ours.area == mask.sum()
        x, y, width, height = drawn.toBbox(theirs).tolist()
        assert ours.box == (x, y, x + width, y + height)


def test_a_mask_is_pasted_into_its_box() -> None:
    ramp = np.tile(np.linspace(0, 1, 28, dtype=np.float32), (28, 1))
    crop, left, top = paste(ramp, np.array([10, 5, 38, 33], np.float32), 100, 100)
    assert (crop.shape, left, top) == ((28, 28), 10, 5)
    assert np.array_equal(crop, ramp >= 0.5)
    large, left, top = paste(ramp, np.array([-28, 0, 28, 56], np.float32), 20, 200)
    assert (large.shape, left, top) == ((56, 20), 0, 0)
    assert large.all()
    nothing, _, _ = paste(ramp, np.array([10.6, 5, 10.9, 33], np.float32), 100, 100)
    assert nothing.size == 0


@pytest.mark.parametrize("seed", range(5))
def test_masks_of_parts_are_masks_of_wholes_and_outlines_hold_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(30):
        height, width = random.integers(1, 14, 2)
        crop = random.random((height, width)) < random.choice([0.0, 0.3, 0.6, 1.0])
        whole = np.zeros((height + random.integers(0, 4), width + random.integers(0, 4)), bool)
        top, left = (int(random.integers(0, many - few + 1)) for many, few in zip(whole.shape, crop.shape, strict=True))
        whole[top : top + height, left : left + width] = crop
        assert from_crop(crop, left, top, *whole.shape) == encode(whole)
        assert np.array_equal(filled(outlines(crop, left, top), whole.shape), whole)


def filled(lines: list[list[tuple[int, int]]], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Even-odd rule: a pixel is inside where a ray from its centre to the left crosses an odd number of edges."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, bool)
    for line in lines:
        for (x1, y1), (x2, y2) in zip(line, [*line[1:], line[0]], strict=True):
            if x1 == x2:
                inside ^= (y > min(y1, y2)) & (y < max(y1, y2)) & (x > x1)
    return inside


def test_an_outline_with_one_line_is_the_polygon_that_coco_draws() -> None:
    y, x = np.mgrid[:60, :80]
    disc = (x - 40) ** 2 + (y - 30) ** 2 < 400
    (line,) = outlines(disc)
    polygon = [float(edge) for corner in line for edge in corner]
    (again,) = drawn.frPyObjects([polygon], 60, 80)
    assert again["counts"].decode() == encode(disc).counts


def test_masks_move_with_their_pictures() -> None:
    torch.manual_seed(0)
    masks = torch.zeros(8, 1, 64, 64, dtype=torch.uint8)
    masks[:, :, 20:44, 16:40] = 1
    pictures = (masks[:, 0, :, :, None] * 255).expand(-1, -1, -1, 3)
    augment = Augment(horizontal_flip=True, vertical_flip=True, scale=0.4, shift=0.1, brightness=0, contrast=0)
    seen, moved, classes = augment_masks(pictures, masks, torch.zeros(8, 1, dtype=torch.int64), augment, torch.zeros(3))
    assert (classes == 0).all()
    assert len({tuple(box) for box in boxes_around(moved)[:, 0].tolist()}) > 4
    bright = seen[..., 0] >= 127.5
    agreement = (bright == moved[:, 0].bool()).float().mean()
    assert agreement > 0.999


def test_objects_of_which_too_little_is_left_are_not_to_be_found() -> None:
    torch.manual_seed(0)
    masks = torch.zeros(16, 2, 32, 32, dtype=torch.uint8)
    masks[:, 0, :, :2] = 1
    masks[:, 1, 12:20, 12:20] = 1
    augment = Augment(horizontal_flip=False, scale=0, shift=0.2, brightness=0, contrast=0)
    pictures = torch.zeros(16, 32, 32, 3, dtype=torch.uint8)
    _, moved, classes = augment_masks(pictures, masks, torch.zeros(16, 2, dtype=torch.int64), augment, torch.zeros(3))
    area = moved.flatten(2).sum(2)
    assert (classes[:, 1] == 0).all()
    assert ((classes[:, 0] == -1) == (area[:, 0] < 0.3 * 64)).all()
    assert (classes[:, 0] == -1).any()


def test_boxes_are_around_masks() -> None:
    masks = torch.zeros(1, 3, 10, 12, dtype=torch.uint8)
    masks[0, 0, 2:5, 3:9] = 1
    masks[0, 1, 9, 11] = 1
    around = boxes_around(masks)[0]
    assert around[:2].tolist() == [[3, 2, 9, 5], [11, 9, 12, 10]]
    assert (around[2, 2:] < around[2, :2]).all()
    assert boxes_around(masks[:, :0]).shape == (1, 0, 4)
