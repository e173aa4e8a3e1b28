"""What the program takes of decoded recordings, and gives for each: the same in training, evaluation and service.

Needs no torch. The bytes of a recording become samples in models/common/audio/decoding.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from models.common.errors import UserError
from models.common.transcripts.ctc_decoding import Frames

RENAMED = {"together": "batch_size"}  # as programs of before call it -> as it is called now


@dataclass(frozen=True)
class ProgramInput:
    """What the program takes, and how its answer is read, as `input` in program.json says it."""

    sample_rate: int  # Hz
    max_seconds: float  # of one recording
    frame_seconds: float  # of one frame of the answer
    batch_size: int  # recordings in one call of the program when it is evaluated
    decoder: str  # greedy or beam
    beam_width: int
    lower_case: bool  # of the spelling, as the next one
    ignored: str

    @staticmethod
    def of(settings: Mapping[str, Any], program: Path) -> "ProgramInput":
        """UserError where a program's description lacks one of them."""
        settings = {RENAMED.get(name, name): value for name, value in settings.items()}
        names = [field.name for field in fields(ProgramInput)]
        missing = [name for name in names if name not in settings]
        if missing:
            raise UserError(
                f"{program / 'program.json'}: input has no '{missing[0]}', so it is no program of speech recognition"
            )
        return ProgramInput(**{name: settings[name] for name in names})

    @property
    def evaluation_beam_width(self) -> int:
        """Of the beam search that the evaluation and /predict do; 0: greedy."""
        return self.beam_width if self.decoder == "beam" else 0


def remove_padding(outputs: Mapping[str, NDArray[Any]]) -> list[Frames]:
    """Log probabilities of each sound's own frames, from what the program gives."""
    counts = outputs["frames"].tolist()
    return [frames[:count] for frames, count in zip(outputs["logits"], counts, strict=True)]
