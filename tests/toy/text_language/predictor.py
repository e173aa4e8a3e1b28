"""From the bytes of a text to its language: the same lines for training, evaluation and service. Needs no torch."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.errors import BadExampleError
from models.common.program.program import Program, softmax

ALPHABET = "abcdefghijklmnopqrstuvwxyzäöüßéèàñ"


def letters(payload: bytes) -> str:
    """The known letters of a UTF-8 text, in lower case. BadExampleError where there are none."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise BadExampleError("not UTF-8 text; save it as UTF-8") from None
    found = "".join(letter for letter in text.lower() if letter in ALPHABET)
    if not found or "\0" in text:
        raise BadExampleError("no letter in it; give a text")
    return found


def counts(payload: bytes) -> NDArray[np.uint8]:
    """(34,) how often each letter occurs, of 255."""
    found = np.array([letters(payload).count(letter) for letter in ALPHABET], float)
    return np.round(255 * found / found.sum()).astype(np.uint8)


class Predictor:
    """One loaded program."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        self._program = Program(program, threads)
        self.labels = self._program.spec.labels

    def predict(self, text: bytes) -> dict[str, Any]:
        """`label` and `probabilities` by label."""
        chances = softmax(self._program.run(counts=counts(text)[None])["logits"])[0]
        return {
            "label": self.labels[int(chances.argmax())],
            "confidence": float(chances.max()),
            "probabilities": dict(zip(self.labels, map(float, chances), strict=True)),
        }
