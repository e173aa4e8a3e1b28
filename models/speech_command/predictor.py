"""A program behind its own preprocessing: a recording in, the command and its probability out. Needs no torch."""

from pathlib import Path
from typing import Any

from models.common.audio.decoding import ACCEPT
from models.common.classification.answers import class_answer
from models.common.program.program import Program
from models.common.program.service import Service, one_file
from models.speech_command.preprocessing import clip


class Predictor:
    """One loaded program. `predict` is safe to call from several threads."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        """`program`: folder with program.onnx and program.json; `threads`: cores for one recording, 0 for all.

        Raises UserError where the folder holds no readable program.
        """
        self._program = Program(program, threads)
        settings = self._program.spec.input
        self.labels = self._program.spec.labels
        self._sample_rate, self._samples = int(settings["sample_rate"]), int(settings["samples"])
        self._max_seconds = float(settings["max_seconds"])

    def predict(self, audio: bytes) -> dict[str, Any]:
        """Label, confidence and probabilities of one recording (WAV, FLAC, MP3, OGG, Opus, …), the likeliest first.

        Raises BadExampleError saying why the bytes cannot be used as a recording.
        """
        samples = clip(audio, self._sample_rate, self._max_seconds, self._samples)
        return class_answer(self.labels, self._program.run(clips=samples[None])["logits"][0])


SERVICE = Service(Predictor, {"audio": ACCEPT}, one_file("audio"))
