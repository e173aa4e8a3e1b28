"""A program behind its own preprocessing: the bytes of a recording in, its text out. Needs no torch."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.common.audio.batching import program_inputs
from models.common.audio.decoding import ACCEPT, read_sound
from models.common.program.program import Program
from models.common.program.service import Service, one_file
from models.common.transcripts.ctc_decoding import transcribe
from models.speech_recognition.preprocessing import ProgramInput, remove_padding

MIN_MARGIN = 1e-3  # margin of a text; with a smaller one another machine may answer the next best text


class Predictor:
    """One loaded program. `predict` and `beam` are safe to call from several threads."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        """`program`: folder with program.onnx and program.json; `threads`: cores for one recording, 0 for all.

        Raises UserError where the folder holds no readable program.
        """
        self._program = Program(program, threads)
        self.alphabet = self._program.spec.labels
        self._input = ProgramInput.of(self._program.spec.input, program)

    def predict(self, audio: bytes) -> dict[str, Any]:
        """Text of one recording (WAV, FLAC, MP3, OGG, …), its confidence, and its words with their times in seconds.

        Raises BadExampleError saying why the bytes cannot be used as a recording.
        """
        return self._answer(audio, self._input.evaluation_beam_width)

    def beam(self, audio: bytes) -> dict[str, Any]:
        """The same by beam search: slower, and a little better where letters are uncertain."""
        return self._answer(audio, self._input.beam_width)

    def _answer(self, audio: bytes, beam_width: int) -> dict[str, Any]:
        sound = read_sound(audio, self._input.sample_rate, self._input.max_seconds)
        (frames,) = remove_padding(self._program.run(**program_inputs([sound])))
        transcript = transcribe(frames, self.alphabet, self._input.frame_seconds, beam_width)
        words = [asdict(word) for word in transcript.words]
        return {"text": transcript.text, "confidence": round(transcript.confidence, 6), "words": words}


def expected(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:  # noqa: ARG001  # the contract
    """Text and confidence; nothing of an example of which two texts are as good as equal: either may come out."""
    if row["margin"] < MIN_MARGIN:
        return {}
    return {"text": row["prediction"], "confidence": float(row["confidence"])}


SERVICE = Service(
    Predictor, {"audio": ACCEPT}, one_file("audio"), expected=expected, extra_endpoints={"beam": {"audio": ACCEPT}}
)
