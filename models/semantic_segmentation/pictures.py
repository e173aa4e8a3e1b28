"""From the bytes of a photo to what the program takes: stretched to its width and height. Torch-free."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.common.images import decode_whole, open_image

ORIENTATION = 0x0112  # EXIF
ROTATED = (5, 6, 7, 8)  # values of it that swap width and height


def stretched(payload: bytes, width: int, height: int, max_pixels: int) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB of one file's bytes, upright. BadExampleError where it is no picture."""
    return decode_whole(open_image(payload, max_pixels), width, height)


def shown_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after the rotation that its EXIF data ask for."""
    width, height = image.size
    return (height, width) if image.getexif().get(ORIENTATION) in ROTATED else (width, height)
