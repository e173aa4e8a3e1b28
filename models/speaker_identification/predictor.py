"""A program behind its own preprocessing: a voice in, its speaker and embedding out; two voices compared. No torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.audio.decoding import ACCEPT
from models.common.classification.answers import class_answer
from models.common.errors import BadExampleError
from models.common.program.program import Program
from models.common.program.service import Service, class_probabilities, one_file
from models.speaker_identification.preprocessing import recording


class Predictor:
    """One loaded program. All of it is safe to call from several threads."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        """`program`: folder with program.onnx and program.json; `threads`: cores for one recording, 0 for all.

        Raises UserError where the folder holds no readable program.
        """
        self._program = Program(program, threads)
        settings = self._program.spec.input
        self.labels = self._program.spec.labels
        self.threshold = float(settings["threshold"])
        self._sample_rate, self._max_seconds = int(settings["sample_rate"]), float(settings["max_seconds"])

    def predict(self, audio: bytes) -> dict[str, Any]:
        """Speaker, confidence, probabilities, the likeliest first, and embedding of one recording (WAV, FLAC, MP3, …).

        Raises BadExampleError saying why the bytes cannot be used as a recording.
        """
        outputs = self._run(audio)
        embedding = [round(value, 6) for value in outputs["embedding"][0].tolist()]
        return class_answer(self.labels, outputs["logits"][0]) | {"embedding": embedding}

    def verify(self, first: bytes, second: bytes) -> dict[str, Any]:
        """How similar two voices are (the cosine of their embeddings), from which threshold on they are called the
        same, and whether these are.

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
        return self._program.run(**recording(audio, self._sample_rate, self._max_seconds))


def expected(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """What must be answered to the example of this row: the probability of every speaker, and the embedding."""
    return class_probabilities(row, labels) | {"embedding": [float(value) for value in row["embedding"]]}


SERVICE = Service(
    predictor=Predictor,
    fields={"audio": ACCEPT},
    form=one_file("audio"),
    expected=expected,
    extra_endpoints={"verify": {"first": ACCEPT, "second": ACCEPT}},
)
