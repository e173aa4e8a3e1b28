"""From the bytes of a photo to what the program takes: the same for training, evaluation and service. No torch."""

import numpy as np
from numpy.typing import NDArray

from models.common.image.decoding import decode, open_image


def square(payload: bytes, size: int, max_pixels: int) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 RGB of one file's bytes. Raises BadExampleError saying why they are no picture."""
    return decode(open_image(payload, max_pixels), size)
