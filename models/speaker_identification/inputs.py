"""From recordings to what the program takes: padded with zeros to one length. Travels in Bentos, needs no torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def padded(sounds: Sequence[NDArray[np.int16]]) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """(N, T) int16, T the longest, and (N,) how many of each are no padding."""
    lengths = np.array([len(sound) for sound in sounds], np.int64)
    samples = np.zeros((len(sounds), int(lengths.max())), np.int16)
    for row, sound in zip(samples, sounds, strict=True):
        row[: len(sound)] = sound
    return samples, lengths
