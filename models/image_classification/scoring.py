"""A program's answers to pictures whose label is known, one row each."""

from pathlib import Path

import numpy as np
import pandas as pd

from models.common.classification.metrics import class_summary as summary
from models.common.classification.metrics import class_table
from models.common.errors import UserError
from models.common.kind import ScoreJob
from models.common.program.program import Program, softmax
from models.image_classification import COLUMNS
from models.image_classification.dataset import pixels

__all__ = ["score", "summary"]

MAX_BATCH_PIXELS = 2**21  # of all pictures that one call of the graph takes: 128 of 128 px, 41 of 224 px
MAX_BATCH_SIZE = 256


def score(job: ScoreJob) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id, label, prediction, correct (0 or 1), loss (negative log likelihood, nats), confidence, probabilities (one per
    label of the program), split, group, batch, row and the manifest's slice columns. A label that the program does not
    know is a wrong answer. UserError when the program cannot be loaded.
    """
    loaded, manifest = Program(job.program), job.manifest
    size, max_pixels = _input(loaded, job.program)
    decoded = pixels(manifest, job.batches, job.home, size, max_pixels)
    step = max(1, min(MAX_BATCH_SIZE, MAX_BATCH_PIXELS // size**2))
    parts = [
        softmax(loaded.run(images=decoded.take(np.arange(start, min(start + step, len(manifest)))))["logits"])
        for start in range(0, len(manifest), step)
    ]
    return class_table(manifest, np.concatenate(parts), loaded.spec.labels, COLUMNS)


def _input(loaded: Program, folder: Path) -> tuple[int, int]:
    try:
        return int(loaded.spec.input["size"]), int(loaded.spec.input["max_pixels"])
    except KeyError as error:
        raise UserError(f"{folder / 'program.json'}: input has no {error}, so it is no image program") from None
