"""From the bytes of a photo to the uint8 canvas that a program takes, and from its boxes back. Needs no torch.

The training cache, evaluation and the service all call these functions, so none can differ.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.images import decode_whole, open_image

FILL = (124, 116, 104)  # of the edge: the mean of ImageNet's pixels, nothing once it is normalised
ROTATED = (5, 6, 7, 8)  # values of the EXIF tag Orientation that swap width and height
ORIENTATION = 0x0112
Boxes = NDArray[np.float32]


@dataclass(frozen=True)
class Canvas:
    """How pictures are laid on the network's input: `width` x `height` px, the upper left corner theirs."""

    width: int
    height: int
    keep_aspect: bool
    max_pixels: int

    @staticmethod
    def of(given: dict[str, Any]) -> "Canvas":
        """From what program.json says of the input. KeyError where it says nothing of a canvas."""
        return Canvas(int(given["width"]), int(given["height"]), bool(given["keep_aspect"]), int(given["max_pixels"]))

    def inner(self, width: int, height: int) -> tuple[int, int]:
        """The size, in px of the canvas, of a picture of `width` x `height` px on it."""
        if not self.keep_aspect:
            return self.width, self.height
        scale = min(self.width / width, self.height / height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def scale(self, width: int, height: int) -> NDArray[np.float32]:
        """(4,): what a box in px of the picture is multiplied with to be in px of the canvas."""
        across, down = self.inner(width, height)
        return np.array([across / width, down / height] * 2, np.float32)

    def laid(self, payload: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """(height, width, 3) uint8 RGB of one file's bytes, and the picture's own width and height as shown.

        Raises BadExampleError where it cannot be decoded.
        """
        image = open_image(payload, self.max_pixels)
        width, height = image.size
        if image.getexif().get(ORIENTATION) in ROTATED:
            width, height = height, width
        across, down = self.inner(width, height)
        canvas = np.empty((self.height, self.width, 3), np.uint8)
        canvas[:] = FILL
        canvas[:down, :across] = decode_whole(image, across, down)
        return canvas, (width, height)

    def lifted(self, boxes: Boxes, width: int, height: int) -> Boxes:
        """(N, 4) boxes on the canvas as px of the picture, cut off at its edges."""
        limit = np.array([width, height] * 2, np.float32)
        return np.asarray(np.clip(boxes / self.scale(width, height), 0, limit))


@dataclass(frozen=True)
class Found:
    """What a program found in one picture, the highest score first: boxes in px of the picture as x1, y1, x2, y2."""

    boxes: Boxes  # (N, 4)
    scores: NDArray[np.float32]  # (N,)
    classes: NDArray[np.int64]  # (N,): places among the program's labels


def found(outputs: dict[str, NDArray[Any]], canvas: Canvas, width: int, height: int) -> Found:
    """A program's outputs for one picture of that size. Boxes that lie in the grey edge alone are dropped."""
    boxes = canvas.lifted(outputs["boxes"], width, height)
    real = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    order = np.argsort(-outputs["scores"][real], kind="stable")
    return Found(boxes[real][order], outputs["scores"][real][order], outputs["labels"][real][order])
