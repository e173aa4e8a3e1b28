"""From the bytes of a photo to what the program takes: stretched to its width and height. Torch-free."""

import numpy as np
from numpy.typing import NDArray

from models.common.image.decoding import decode_whole, open_image


def stretched(payload: bytes, width: int, height: int, max_pixels: int) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB of one file's bytes, upright. BadExampleError where it is no picture."""
    return decode_whole(open_image(payload, max_pixels), width, height)
