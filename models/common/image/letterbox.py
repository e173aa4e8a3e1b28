"""How a photo of any size becomes what a detector takes, and boxes in it become boxes in the photo. Torch-free.

Training cache, evaluation and service all call this, so none can differ.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.image.decoding import decode_resized, open_image, upright_size

FILL = (124, 116, 104)  # of the edge: the mean of ImageNet's pixels, nothing once it is normalised


@dataclass(frozen=True)
class Canvas:
    """The network's input: `width` x `height` px, with the picture at its upper left."""

    width: int
    height: int
    keep_aspect: bool
    max_pixels: int

    @staticmethod
    def of(settings: dict[str, Any]) -> "Canvas":
        """From what program.json says of the input. KeyError where it says nothing of a canvas."""
        return Canvas(
            int(settings["width"]), int(settings["height"]), bool(settings["keep_aspect"]), int(settings["max_pixels"])
        )

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """The size, in px of the canvas, of a picture of `width` x `height` px on it."""
        if not self.keep_aspect:
            return self.width, self.height
        scale = min(self.width / width, self.height / height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def scale(self, width: int, height: int) -> NDArray[np.float32]:
        """(4,): what a box in px of the picture is multiplied with to be in px of the canvas."""
        new_width, new_height = self.resized_size(width, height)
        return np.array([new_width / width, new_height / height] * 2, np.float32)

    def letterbox(self, payload: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """(height, width, 3) uint8 RGB of one file's bytes, and the picture's own width and height as shown.

        Raises BadExampleError where it cannot be decoded.
        """
        image = open_image(payload, self.max_pixels)
        width, height = upright_size(image)
        new_width, new_height = self.resized_size(width, height)
        canvas = np.empty((self.height, self.width, 3), np.uint8)
        canvas[:] = FILL
        canvas[:new_height, :new_width] = decode_resized(image, new_width, new_height)
        return canvas, (width, height)

    def pixels(self, payload: bytes) -> NDArray[np.uint8]:
        """(height, width, 3) uint8 RGB of one file's bytes. BadExampleError where it cannot be decoded."""
        return self.letterbox(payload)[0]

    def to_image_coordinates(self, boxes: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
        """(N, 4) boxes on the canvas as px of the picture, cut off at its edges."""
        limit = np.array([width, height] * 2, np.float32)
        return np.asarray(np.clip(boxes / self.scale(width, height), 0, limit), np.float32)
