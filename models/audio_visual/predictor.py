"""A program behind its own preprocessing: a picture, a sound or both in, label and probabilities out. No torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.audio_visual.preprocessing import Sizes, naming_part, picture, sound
from models.common.audio.decoding import ACCEPT, pad_or_trim
from models.common.classification.answers import class_answer
from models.common.data.packed_files import unpack
from models.common.errors import BadExampleError
from models.common.program.program import Program
from models.common.program.service import Service, class_probabilities


class Predictor:
    """One loaded program. `predict` is safe to call from several threads."""

    def __init__(self, program: Path, threads: int = 1) -> None:
        """`program`: folder with program.onnx and program.json; `threads`: cores for one example, 0 for all.

        Raises UserError where the folder holds no readable program.
        """
        self._program = Program(program, threads)
        self.labels = self._program.spec.labels
        self._sizes = Sizes.of(self._program.spec.input)

    def predict(self, image: bytes | None = None, audio: bytes | None = None) -> dict[str, Any]:
        """Label, confidence and probabilities of a picture (JPEG, PNG, WebP, …), a sound (WAV, FLAC, MP3, OGG, …), or
        both, the likeliest label first, and which halves were used.

        Raises BadExampleError saying why the bytes of a half cannot be used, and where neither is given.
        """
        if image is None and audio is None:
            raise BadExampleError("neither a picture nor a sound was sent; send image, audio or both")
        with naming_part("image"):
            pixels = picture(image, self._sizes.image_size, self._sizes.max_pixels)
        with naming_part("audio"):
            samples = sound(audio, self._sizes.sample_rate, self._sizes.max_seconds)
        inputs: dict[str, NDArray[Any]] = {
            "images": pixels[None],
            "samples": pad_or_trim(samples, self._sizes.samples)[None],
            "has_image": np.array([image is not None], np.uint8),
            "has_audio": np.array([audio is not None], np.uint8),
        }
        used = [part for part, given in (("image", image), ("audio", audio)) if given is not None]
        return class_answer(self.labels, self._program.run(**inputs)["logits"][0]) | {"used": used}


def expected(row: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """The probability of every label, from the halves that the example has."""
    return class_probabilities(row, labels) | {"used": str(row["parts"]).split("+")}


SERVICE = Service(
    Predictor, {"image": "image/*", "audio": ACCEPT}, form=unpack, expected=expected, fields_optional=True
)
