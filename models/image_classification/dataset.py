"""Pictures of a manifest as uint8 squares, decoded once; training and evaluation both take them from here."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.data.decoded_cache import Decoded, decoded
from models.common.image import decoding


def pixels(manifest: pd.DataFrame, batches: Path, home: Path, size: int, max_pixels: int) -> Decoded:
    """The manifest's pictures, (size, size, 3) uint8 RGB each, by position. UserError where one does not decode."""
    convert = functools.partial(square, size=size, max_pixels=max_pixels)
    return decoded(batches, manifest, home, f"rgb{size}", (size, size, 3), convert)


def square(payload: bytes, size: int, max_pixels: int) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 RGB of one file's bytes: exactly what the service makes of them."""
    return decoding.decode(decoding.open_image(payload, max_pixels), size)
