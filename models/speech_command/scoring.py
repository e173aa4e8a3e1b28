"""A program's answers to recordings whose command is known, one row each."""

from pathlib import Path

import numpy as np
import pandas as pd

from models.common.audio.cache import sounds
from models.common.audio.decoding import fitted
from models.common.classification.metrics import class_table
from models.common.errors import UserError
from models.common.program.program import Program, softmax
from models.speech_command import COLUMNS

SAMPLES_AT_ONCE = 2**19  # of all clips that one call of the graph takes: 32 of 1 s at 16 kHz


def score(program: Path, manifest: pd.DataFrame, batches: Path, home: Path) -> pd.DataFrame:
    """A score table (models/common/classification/metrics.py). UserError when the program cannot be loaded."""
    loaded = Program(program)
    given = loaded.spec.input
    if not {"sample_rate", "samples", "max_seconds"} <= set(given):
        raise UserError(f"{program / 'program.json'}: input has no samples, so it is no program of commands")
    heard = sounds(manifest, batches, home, int(given["sample_rate"]), float(given["max_seconds"]))
    step = max(1, SAMPLES_AT_ONCE // int(given["samples"]))
    parts = []
    for start in range(0, len(manifest), step):
        positions = np.arange(start, min(start + step, len(manifest)))
        clips = np.stack([fitted(sound, int(given["samples"])) for sound in heard.take(positions)])
        parts.append(softmax(loaded.run(clips=clips)["logits"]))
    return class_table(manifest, np.concatenate(parts), loaded.spec.labels, COLUMNS)
