"""A program's answers to recordings whose speaker is known, one row each, and the metrics computed from those rows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.audio.cache import sounds
from models.common.classification.metrics import class_table
from models.common.data.decoded_cache import Ragged
from models.common.errors import UserError
from models.common.program.program import Program, softmax
from models.speaker_identification import COLUMNS
from models.speaker_identification.inputs import padded
from models.speaker_identification.verification import equal_error_rate

SAMPLES_AT_ONCE = 2**20  # of all recordings, with their padding, that one call of the graph takes: 65 s of 16 kHz


def score(program: Path, manifest: pd.DataFrame, batches: Path, home: Path) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id, label (the speaker), prediction, correct (0 or 1), loss (negative log likelihood, nats), confidence,
    probabilities, embedding (dim numbers, of length 1), split, group, batch, row and the manifest's slice columns.
    A speaker that the program does not know is a wrong answer. UserError when the program cannot be loaded.
    """
    loaded = Program(program)
    given = loaded.spec.input
    if not {"sample_rate", "max_seconds", "threshold"} <= set(given):
        raise UserError(f"{program / 'program.json'}: input has no threshold, so it is no program of voices")
    voices = sounds(manifest, batches, home, int(given["sample_rate"]), float(given["max_seconds"]))
    logits, embeddings = answers(loaded, voices)
    table = class_table(manifest, softmax(logits), loaded.spec.labels, COLUMNS)
    return table.assign(embedding=list(embeddings))


def answers(program: Program, voices: Ragged) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, speakers) logits and (N, dim) embeddings, recordings of about one length together."""
    found: dict[str, list[NDArray[np.float32]]] = {"logits": [], "embedding": []}
    order = np.argsort(voices.lengths, kind="stable")
    for part in _parts(order, voices.lengths):
        samples, lengths = padded(voices.take(part))
        for name, values in program.run(samples=samples, lengths=lengths).items():
            found[name].append(values)
    back = np.argsort(order)
    return np.concatenate(found["logits"])[back], np.concatenate(found["embedding"])[back]


def _parts(order: NDArray[np.int64], lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """`order`, by rising length, cut so that no part has over SAMPLES_AT_ONCE with its padding."""
    start = 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end - start + 1) * lengths[order[end]] > SAMPLES_AT_ONCE:
            yield order[start:end]
            start = end


def summary(table: pd.DataFrame) -> dict[str, float]:
    """Metrics of a score table; without the equal error rate where no two recordings are of one speaker, or of two."""
    found = {
        "accuracy": float(table["correct"].mean()),
        "equal_error_rate": float(equal_error_rate(table)(np.ones((1, len(table))))[0]),
        "balanced_accuracy": float(table.groupby("label")["correct"].mean().mean()),
        "log_loss": float(table["loss"].mean()),
    }
    return {name: value for name, value in found.items() if np.isfinite(value)}
