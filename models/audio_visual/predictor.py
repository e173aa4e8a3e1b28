"""A program behind its own preprocessing: a picture, a sound or both in, label and probabilities out. No torch."""

from pathlib import Path
from typing import Any

import numpy as np

from models.audio_visual.inputs import Sizes, clip, picture, sound
from models.common.errors import BadExampleError
from models.common.program.program import Program, softmax


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
        """`label`, `confidence`, `probabilities` by label, the most likely first, and `used`: what halves were given.

        Raises BadExampleError saying why the bytes of a half cannot be used, and where neither is given.
        """
        if image is None and audio is None:
            raise BadExampleError("neither a picture nor a sound was sent; send image, audio or both")
        inputs = {
            "images": _told("image", lambda: picture(image, self._sizes))[None],
            "samples": _told("audio", lambda: clip(sound(audio, self._sizes), self._sizes))[None],
            "has_image": np.array([image is not None], np.uint8),
            "has_audio": np.array([audio is not None], np.uint8),
        }
        logits = self._program.run(**inputs)["logits"]
        chances = zip(self.labels, softmax(logits)[0].tolist(), strict=True)
        ranked = {label: round(chance, 6) for label, chance in sorted(chances, key=lambda pair: -pair[1])}
        label = next(iter(ranked))
        used = [name for name, given in (("image", image), ("audio", audio)) if given is not None]
        return {"label": label, "confidence": ranked[label], "probabilities": ranked, "used": used}


def _told(part: str, make: Any) -> Any:
    try:
        return make()
    except BadExampleError as error:
        raise BadExampleError(f"{part}: {error}") from error
