"""From the bytes of a recording to what the program takes: the same for training, evaluation and service. No torch."""

from typing import Any

from numpy.typing import NDArray

from models.common.audio.batching import program_inputs
from models.common.audio.decoding import read_sound


def recording(payload: bytes, sample_rate: int, max_seconds: float) -> dict[str, NDArray[Any]]:
    """samples (1, T) int16 mono of one file's bytes, lengths (1,). BadExampleError saying why they cannot be used."""
    return program_inputs([read_sound(payload, sample_rate, max_seconds)])
