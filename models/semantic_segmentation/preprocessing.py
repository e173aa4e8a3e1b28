"""From the bytes of a photo to what the program takes: the same for training, evaluation and service. No torch."""

import numpy as np
from numpy.typing import NDArray

from models.common.image.decoding import decode_resized, open_image, upright_size


def resized(payload: bytes, width: int, height: int, max_pixels: int) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB of one file's bytes, upright. BadExampleError where it is no picture."""
    return resized_with_size(payload, width, height, max_pixels)[0]


def resized_with_size(
    payload: bytes, width: int, height: int, max_pixels: int
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The same, and the width and height of the photo as it is shown, px."""
    image = open_image(payload, max_pixels)
    size = upright_size(image)
    return decode_resized(image, width, height), size
