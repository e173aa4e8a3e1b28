"""From the bytes of a recording to what the program takes: the same for training, evaluation and service. No torch."""

import numpy as np
from numpy.typing import NDArray

from models.common.audio.decoding import pad_or_trim, read_sound


def clip(payload: bytes, sample_rate: int, max_seconds: float, samples: int) -> NDArray[np.int16]:
    """(samples,) int16 mono of one file's bytes. Raises BadExampleError saying why they cannot be used."""
    return pad_or_trim(read_sound(payload, sample_rate, max_seconds), samples)
