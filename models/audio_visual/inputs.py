"""From the parts of an example to what the program takes: all the preprocessing there is outside of the graph.

Travels in Bentos and needs no torch: training, evaluation and service all call these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.audio.decoding import fitted, read_sound
from models.common.errors import UserError
from models.common.image.decoding import decode, open_image

PARTS = ("image", "audio")


@dataclass(frozen=True)
class Sizes:
    """What the program takes and what is refused, as `input` in program.json says it."""

    image_size: int  # px
    max_pixels: int  # of one picture as delivered
    sample_rate: int  # Hz
    max_seconds: float  # of one recording as delivered
    samples: int  # of a clip

    @staticmethod
    def of(given: Mapping[str, Any]) -> "Sizes":
        """UserError where a program's description lacks one of them."""
        try:
            names = ("image_size", "max_pixels", "sample_rate", "samples")
            return Sizes(max_seconds=float(given["max_seconds"]), **{name: int(given[name]) for name in names})
        except KeyError as error:
            raise UserError(f"program.json: input has no {error}, so it is no program of pictures with sound") from None


def picture(payload: bytes | None, sizes: Sizes) -> NDArray[np.uint8]:
    """(S, S, 3) uint8 RGB of one file's bytes; black where there is none. Raises BadExampleError."""
    if payload is None:
        return np.zeros((sizes.image_size, sizes.image_size, 3), np.uint8)
    return decode(open_image(payload, sizes.max_pixels), sizes.image_size)


def sound(payload: bytes | None, sizes: Sizes) -> NDArray[np.int16]:
    """(T,) int16 of one file's bytes, as long as it is; of no samples where there is none. Raises BadExampleError."""
    if payload is None:
        return np.zeros(0, np.int16)
    return read_sound(payload, sizes.sample_rate, sizes.max_seconds)


def clip(samples: NDArray[np.int16], sizes: Sizes) -> NDArray[np.int16]:
    """(samples,) int16: cut to the loudest part, or in the middle of silence."""
    return fitted(samples, sizes.samples)
