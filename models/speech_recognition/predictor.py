"""A program behind its own preprocessing: the bytes of a recording in, its text out. Needs no torch."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.audio.decoding import read_sound
from models.common.program.program import Program
from models.speech_recognition import decoding


@dataclass(frozen=True)
class Answer:
    """What was heard in one recording."""

    text: str
    words: list[decoding.Word]
    confidence: float  # probability of the text, taken to one word
    margin: float  # to the next best text; see decoding.Found


def heard(frames: decoding.Frames, settings: dict[str, Any], alphabet: tuple[str, ...], decoder: str = "") -> Answer:
    """The answer in a recording's frames; `decoder`: greedy or beam, else the program's own."""
    if (decoder or settings["decoder"]) == "beam":
        found = decoding.beam(frames, int(settings["beam_width"]))
    else:
        found = decoding.greedy(frames)
    text = decoding.spelt(found, alphabet)
    words = decoding.words(frames, found, alphabet, float(settings["frame_seconds"]))
    return Answer(text, words, decoding.confidence(frames, found, len(words)), found.margin)


def run(program: Program, sounds: list[NDArray[np.int16]]) -> list[decoding.Frames]:
    """Log probabilities of each sound's own frames, of sounds that go through the graph together."""
    samples = np.zeros((len(sounds), max(map(len, sounds))), np.int16)
    for place, sound in enumerate(sounds):
        samples[place, : len(sound)] = sound
    answer = program.run(samples=samples, lengths=np.array([len(sound) for sound in sounds], np.int64))
    return [frames[:count] for frames, count in zip(answer["logits"], answer["frames"].tolist(), strict=True)]


class Predictor:
    """One loaded program. `predict` is safe to call from several threads."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        """`program`: folder with program.onnx and program.json; `threads`: cores for one recording, 0 for all.

        Raises UserError where the folder holds no readable program.
        """
        self._program = Program(program, threads)
        self.alphabet = self._program.spec.labels
        self._settings = self._program.spec.input

    def answer(self, audio: bytes = b"", searched: bytes = b"") -> dict[str, Any]:
        """What `predict` says of `audio`, or where `searched` is given, what `search` says of that."""
        return self.search(searched) if searched else self.predict(audio)

    def predict(self, audio: bytes) -> dict[str, Any]:
        """`text`, `confidence` and `words`, each with start, end (seconds) and confidence, by the program's decoder.

        Raises BadExampleError saying why the bytes cannot be used as a recording.
        """
        return self._answer(audio, "")

    def search(self, audio: bytes) -> dict[str, Any]:
        """The same by beam search: slower, and a little better where letters are uncertain."""
        return self._answer(audio, "beam")

    def _answer(self, audio: bytes, decoder: str) -> dict[str, Any]:
        sound = read_sound(audio, int(self._settings["sample_rate"]), float(self._settings["max_seconds"]))
        (frames,) = run(self._program, [sound])
        answer = heard(frames, self._settings, self.alphabet, decoder)
        words = [asdict(word) for word in answer.words]
        return {"text": answer.text, "confidence": round(answer.confidence, 6), "words": words}
