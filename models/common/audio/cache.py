"""Sounds of a manifest as int16 samples, decoded once; training and evaluation both take them from here."""

import functools
from pathlib import Path

import pandas as pd

from models.common.audio import decoding
from models.common.data.decoded_cache import Ragged, ragged


def sounds(manifest: pd.DataFrame, batches: Path, home: Path, sample_rate: int, max_seconds: float) -> Ragged:
    """The manifest's sounds, int16 mono at `sample_rate` Hz, by position. UserError where one does not decode."""
    convert = functools.partial(decoding.read_sound, sample_rate=sample_rate, max_seconds=max_seconds)
    return ragged(batches, manifest, home, f"mono{sample_rate}", convert)
