"""Recordings of a manifest as clips of one length, decoded once; training and evaluation both take them from here."""

import functools
from pathlib import Path

import pandas as pd

from models.common.data.decoded_cache import Ragged, ragged
from models.speech_command.preprocessing import clip


def clips(
    manifest: pd.DataFrame, batches: Path, home: Path, sample_rate: int, max_seconds: float, samples: int
) -> Ragged:
    """The manifest's recordings, (samples,) int16 each, by position. UserError where one does not decode."""
    convert = functools.partial(clip, sample_rate=sample_rate, max_seconds=max_seconds, samples=samples)
    return ragged(batches, manifest, home, f"clip{sample_rate}-{samples}", convert)
