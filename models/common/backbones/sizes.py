"""How large pictures are given to a network, where the user does not say."""

import numpy as np
from numpy.typing import NDArray

from models.common.backbones.classifiers import Backbone, own_size
from models.common.errors import UserError
from models.common.image.params import BUILTIN_NETWORKS

OWN_SIZES = (16, 64, 8)  # px of our own small networks: smallest, largest, in steps of
LIBRARY_SIZES = (96, 224, 32)  # of a library's, which halve a picture five times
ENLARGED = 4  # times that a library's network sees a small photo: 32 px, halved five times, would be one


def picture_size(name: str, shorter_sides: NDArray[np.int64]) -> int:
    """px, square, for photos of such shorter sides, px.

    Our own networks take photos as they are, up to 64 px; a library's take them four times as large, from 96 to
    224 px, or at the size that it was made for where it takes no other.
    """
    median = float(np.median(shorter_sides)) if len(shorter_sides) else 0.0
    if name in BUILTIN_NETWORKS:
        return _in_steps(median, *OWN_SIZES)
    size = _in_steps(ENLARGED * median, *LIBRARY_SIZES)
    try:
        Backbone(name, size).check_size()
    except UserError:
        return own_size(name)
    return size


def _in_steps(side: float, smallest: int, largest: int, step: int) -> int:
    return int(np.clip(round(side / step) * step, smallest, largest))
