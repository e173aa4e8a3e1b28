"""A program's answers to recordings whose speaker is known, one row each, and the metrics computed from those rows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.batches import COMMON_COLUMNS
from models.common.decoded import Ragged
from models.common.errors import UserError
from models.common.program import Program, softmax
from models.common.sounds import sounds
from models.speaker_identification import COLUMNS
from models.speaker_identification.inputs import padded
from models.speaker_identification.verification import equal_error_rate

SAMPLES_AT_ONCE = 2**20  # of all recordings, with their padding, that one call of the graph takes: 65 s of 16 kHz
LEAST = 1e-12  # probabilities are clipped here in the log loss; a speaker that the program does not know costs 27.6


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
    return _table(manifest, logits, embeddings, loaded.spec.labels)


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


def _table(
    manifest: pd.DataFrame,
    logits: NDArray[np.float32],
    embeddings: NDArray[np.float32],
    labels: tuple[str, ...],
) -> pd.DataFrame:
    probabilities = softmax(logits)
    best = probabilities.argmax(axis=1)
    truth = pd.Index(labels).get_indexer(pd.Index(manifest["label"]))  # -1: a speaker that the program does not know
    rows = np.arange(len(truth))
    of_truth = np.where(truth >= 0, probabilities[rows, truth], 0.0).astype(float)
    scored = {
        "id": manifest["id"].to_numpy(),
        "label": manifest["label"].to_numpy(),
        "prediction": np.asarray(labels, dtype=object)[best],
        "correct": (best == truth).astype(np.int8),
        "loss": -np.log(np.clip(of_truth, LEAST, 1.0)),
        "confidence": probabilities[rows, best],
        "probabilities": list(probabilities),
        "embedding": list(embeddings),
    }
    own = {*COMMON_COLUMNS, *COLUMNS}
    kept = [name for name in manifest if name in {"split", "group", "batch", "row"} or name not in own]
    return pd.DataFrame(scored).assign(**{str(name): manifest[name].to_numpy() for name in kept})


def summary(table: pd.DataFrame) -> dict[str, float]:
    """Metrics of a score table; without the equal error rate where no two recordings are of one speaker, or of two."""
    found = {
        "accuracy": float(table["correct"].mean()),
        "equal_error_rate": float(equal_error_rate(table)(np.ones((1, len(table))))[0]),
        "balanced_accuracy": float(table.groupby("label")["correct"].mean().mean()),
        "log_loss": float(table["loss"].mean()),
    }
    return {name: value for name, value in found.items() if np.isfinite(value)}
