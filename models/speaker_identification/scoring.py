"""A program's answers to recordings whose speaker is known, one row each, and the metrics computed from those rows."""

from pathlib import Path

import numpy as np
import pandas as pd

from models.common.audio.batching import run_batched
from models.common.audio.cache import sounds
from models.common.audio.verification import equal_error_rate
from models.common.classification.metrics import class_table
from models.common.errors import UserError
from models.common.kind import ScoreJob
from models.common.program.program import Program, softmax
from models.speaker_identification import COLUMNS


def score(job: ScoreJob) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id, label (the speaker), prediction, correct (0 or 1), loss (negative log likelihood, nats), confidence,
    probabilities, embedding (dim numbers, of length 1), split, group, batch, row and the manifest's slice columns.
    A speaker that the program does not know is a wrong answer. UserError when the program cannot be loaded.
    """
    loaded, manifest = Program(job.program), job.manifest
    sample_rate, max_seconds = _input(loaded, job.program)
    outputs = run_batched(loaded, sounds(manifest, job.batches, job.home, sample_rate, max_seconds))
    table = class_table(manifest, softmax(outputs["logits"]), loaded.spec.labels, COLUMNS)
    return table.assign(embedding=list(outputs["embedding"]))


def _input(loaded: Program, folder: Path) -> tuple[int, float]:
    settings = loaded.spec.input
    try:
        float(settings["threshold"])  # for the service alone, but what other programs on sound do not have
        return int(settings["sample_rate"]), float(settings["max_seconds"])
    except KeyError as error:
        raise UserError(f"{folder / 'program.json'}: input has no {error}, so it is no program of voices") from None


def summary(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, float]:  # noqa: ARG001  # the contract
    """Metrics of a score table; without the equal error rate where no two recordings are of one speaker, or of two."""
    metrics = {
        "accuracy": float(table["correct"].mean()),
        "equal_error_rate": float(equal_error_rate(table)(np.ones((1, len(table))))[0]),
        "balanced_accuracy": float(table.groupby("label")["correct"].mean().mean()),
        "log_loss": float(table["loss"].mean()),
    }
    return {name: value for name, value in metrics.items() if np.isfinite(value)}
