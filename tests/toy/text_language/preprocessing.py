"""From the bytes of a text to what the program takes: the same for training, evaluation and service. No torch."""

import numpy as np
from numpy.typing import NDArray

from models.common.errors import BadExampleError

ALPHABET = "abcdefghijklmnopqrstuvwxyzäöüßéèàñ"


def letter_shares(payload: bytes) -> NDArray[np.uint8]:
    """(34,) how often each letter occurs, of 255. BadExampleError where there is none."""
    text = payload.decode(errors="replace").lower()
    counts = np.array([text.count(letter) for letter in ALPHABET])
    if not counts.any() or "\0" in text or "\N{REPLACEMENT CHARACTER}" in text:
        raise BadExampleError("no text in it; give a text with letters, as UTF-8")
    shares: NDArray[np.uint8] = np.round(255 * counts / counts.sum()).astype(np.uint8)
    return shares
