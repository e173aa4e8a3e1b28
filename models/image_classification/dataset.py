"""Pictures of a manifest as uint8 squares, decoded once; training and evaluation both take them from here."""

import functools
from pathlib import Path

import pandas as pd

from models.common.data.decoded_cache import Decoded, decoded
from models.image_classification.preprocessing import square


def pixels(manifest: pd.DataFrame, batches: Path, home: Path, size: int, max_pixels: int) -> Decoded:
    """The manifest's pictures, (size, size, 3) uint8 RGB each, by position. UserError where one does not decode."""
    convert = functools.partial(square, size=size, max_pixels=max_pixels)
    return decoded(batches, manifest, home, f"rgb{size}", (size, size, 3), convert)
