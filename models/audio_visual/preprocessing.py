"""From the parts of an example to what the program takes: the same for training, evaluation and service. No torch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.audio.decoding import read_sound
from models.common.errors import BadExampleError, UserError
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
    def of(settings: Mapping[str, Any]) -> "Sizes":
        """UserError where a program's description lacks one of them."""
        try:
            names = ("image_size", "max_pixels", "sample_rate", "samples")
            return Sizes(max_seconds=float(settings["max_seconds"]), **{name: int(settings[name]) for name in names})
        except KeyError as error:
            raise UserError(f"program.json: input has no {error}, so it is no program of pictures with sound") from None


def picture(payload: bytes | None, size: int, max_pixels: int) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 RGB of one file's bytes; black where there is none. Raises BadExampleError."""
    if payload is None:
        return np.zeros((size, size, 3), np.uint8)
    return decode(open_image(payload, max_pixels), size)


def sound(payload: bytes | None, sample_rate: int, max_seconds: float) -> NDArray[np.int16]:
    """(T,) int16 of one file's bytes, as long as it is; of no samples where there is none. Raises BadExampleError."""
    if payload is None:
        return np.zeros(0, np.int16)
    return read_sound(payload, sample_rate, max_seconds)


@contextmanager
def naming_part(part: str) -> Iterator[None]:
    """A BadExampleError from inside says which half it is about."""
    try:
        yield
    except BadExampleError as error:
        raise BadExampleError(f"{part}: {error}") from error
