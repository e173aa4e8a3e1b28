"""A program behind its own preprocessing: a voice in, its speaker and embedding out; two voices compared. No torch."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.audio.decoding import read_sound
from models.common.errors import BadExampleError
from models.common.program.program import Program, softmax
from models.speaker_identification.inputs import padded


class Predictor:
    """One loaded program. All of it is safe to call from several threads."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        """`program`: folder with program.onnx and program.json; `threads`: cores for one recording, 0 for all.

        Raises UserError where the folder holds no readable program.
        """
        self._program = Program(program, threads)
        given = self._program.spec.input
        self.labels = self._program.spec.labels
        self.threshold = float(given["threshold"])
        self._sample_rate, self._max_seconds = int(given["sample_rate"]), float(given["max_seconds"])

    def answer(self, **form: bytes) -> dict[str, Any]:
        """To one recording (audio) as `predict`, to two (first, second) as `verify`."""
        return self.predict(form["audio"]) if "audio" in form else self.verify(form["first"], form["second"])

    def predict(self, audio: bytes) -> dict[str, Any]:
        """`label` (the speaker), `confidence`, `probabilities` by speaker, the most likely first, and `embedding`.

        Raises BadExampleError saying why the bytes cannot be used as a recording.
        """
        found = self._run(audio)
        chances = zip(self.labels, softmax(found["logits"])[0].tolist(), strict=True)
        ranked = {label: round(chance, 6) for label, chance in sorted(chances, key=lambda pair: -pair[1])}
        label = next(iter(ranked))
        embedding = [round(value, 6) for value in found["embedding"][0].tolist()]
        return {"label": label, "confidence": ranked[label], "probabilities": ranked, "embedding": embedding}

    def verify(self, first: bytes, second: bytes) -> dict[str, Any]:
        """`similarity` of two voices (the cosine of their embeddings), `same`: whether it reaches `threshold`.

        Raises BadExampleError saying why which of the two cannot be used.
        """
        one, other = (self._embedding(name, each) for name, each in (("first", first), ("second", second)))
        similarity = float(one @ other)
        return {
            "similarity": round(similarity, 6),
            "same": similarity >= self.threshold,
            "threshold": round(self.threshold, 6),
        }

    def _embedding(self, name: str, audio: bytes) -> NDArray[np.float64]:
        try:
            return np.asarray(self._run(audio)["embedding"][0], float)
        except BadExampleError as error:
            raise BadExampleError(f"{name}: {error}") from error

    def _run(self, audio: bytes) -> dict[str, NDArray[np.float32]]:
        samples, lengths = padded([read_sound(audio, self._sample_rate, self._max_seconds)])
        return self._program.run(samples=samples, lengths=lengths)
