"""A program's answers to recordings whose command is known, one row each."""

from pathlib import Path

import numpy as np
import pandas as pd

from models.common.classification.metrics import class_summary as summary
from models.common.classification.metrics import class_table
from models.common.errors import UserError
from models.common.kind import ScoreJob
from models.common.program.program import Program, softmax
from models.speech_command import COLUMNS
from models.speech_command.dataset import clips

__all__ = ["score", "summary"]

MAX_BATCH_SAMPLES = 2**19  # of all clips that one call of the graph takes: 32 of 1 s at 16 kHz


def score(job: ScoreJob) -> pd.DataFrame:
    """A score table (models/common/classification/metrics.py). UserError when the program cannot be loaded."""
    loaded, manifest = Program(job.program), job.manifest
    sample_rate, max_seconds, samples = _input(loaded, job.program)
    recordings = clips(manifest, job.batches, job.home, sample_rate, max_seconds, samples)
    step = max(1, MAX_BATCH_SAMPLES // samples)
    parts = []
    for start in range(0, len(manifest), step):
        batch = np.stack(recordings.take(np.arange(start, min(start + step, len(manifest)))))
        parts.append(softmax(loaded.run(clips=batch)["logits"]))
    return class_table(manifest, np.concatenate(parts), loaded.spec.labels, COLUMNS)


def _input(loaded: Program, folder: Path) -> tuple[int, float, int]:
    settings = loaded.spec.input
    try:
        return int(settings["sample_rate"]), float(settings["max_seconds"]), int(settings["samples"])
    except KeyError as error:
        raise UserError(f"{folder / 'program.json'}: input has no {error}, so it is no program of commands") from None
