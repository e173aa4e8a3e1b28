"""A program behind its preprocessing: a text in, its language out. No torch."""

from pathlib import Path
from typing import Any

from models.common.classification.answers import class_answer
from models.common.program.program import Program
from models.common.program.service import Service, one_file
from models.text_language.preprocessing import letter_shares


class Predictor:
    """One loaded program."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        self._program = Program(program, threads)

    def predict(self, text: bytes) -> dict[str, Any]:
        """Label, confidence and probabilities of one UTF-8 text."""
        logits = self._program.run(images=letter_shares(text)[None])["logits"]
        return class_answer(self._program.spec.labels, logits[0])


SERVICE = Service(Predictor, {"text": ".txt"}, one_file("text"))
