"""A program behind its own preprocessing: a recording in, the command and its probability out. Needs no torch."""

from pathlib import Path
from typing import Any

from models.common.audio.decoding import fitted, read_sound
from models.common.program.program import Program, softmax


class Predictor:
    """One loaded program. `predict` is safe to call from several threads."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        """`program`: folder with program.onnx and program.json; `threads`: cores for one recording, 0 for all.

        Raises UserError where the folder holds no readable program.
        """
        self._program = Program(program, threads)
        given = self._program.spec.input
        self.labels = self._program.spec.labels
        self._sample_rate, self._samples = int(given["sample_rate"]), int(given["samples"])
        self._max_seconds = float(given["max_seconds"])

    def predict(self, audio: bytes) -> dict[str, Any]:
        """`label`, `confidence` (its probability) and `probabilities` by label, the most likely first.

        Raises BadExampleError saying why the bytes cannot be used as a recording.
        """
        clip = fitted(read_sound(audio, self._sample_rate, self._max_seconds), self._samples)
        logits = self._program.run(clips=clip[None])["logits"]
        chances = zip(self.labels, softmax(logits)[0].tolist(), strict=True)
        ranked = {label: round(chance, 6) for label, chance in sorted(chances, key=lambda pair: -pair[1])}
        label = next(iter(ranked))
        return {"label": label, "confidence": ranked[label], "probabilities": ranked}
