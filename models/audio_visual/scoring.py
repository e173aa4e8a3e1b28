"""A program's answers to examples whose label is known, with all that each has and with either half of it alone."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.audio_visual import COLUMNS
from models.audio_visual.dataset import Media
from models.audio_visual.preprocessing import PARTS, Sizes
from models.common.classification.metrics import class_table
from models.common.kind import ScoreJob
from models.common.program.program import Program, softmax

MAX_BATCH_VALUES = 2**22  # pixels and samples of all examples that one call of the graph takes
MAX_BATCH_SIZE = 128


def score(job: ScoreJob) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id, label, prediction, correct, loss (negative log likelihood, nats), confidence, probabilities; parts: what there
    is; has_image, has_audio, correct_image, correct_audio (0 or 1), prediction_image, prediction_audio: the answer to
    the picture alone and to the sound alone, 0 and empty where the example has none; then split, group, batch, row and
    the manifest's slice columns. UserError when the program cannot be loaded.
    """
    loaded, manifest = Program(job.program), job.manifest
    sizes = Sizes.of(loaded.spec.input)
    media = Media(manifest, job.batches, job.home, sizes)
    step = max(1, min(MAX_BATCH_SIZE, MAX_BATCH_VALUES // (sizes.image_size**2 + sizes.samples)))
    parts = [
        loaded.run(**vars(media.take(np.arange(start, min(start + step, len(manifest))))))
        for start in range(0, len(manifest), step)
    ]
    logits = {
        name: np.concatenate([part[name] for part in parts]) for name in ("logits", "logits_image", "logits_audio")
    }
    return _table(manifest, media, logits, loaded.spec.labels)


def _table(
    manifest: pd.DataFrame, media: Media, logits: dict[str, NDArray[np.float32]], labels: tuple[str, ...]
) -> pd.DataFrame:
    table = class_table(manifest, softmax(logits["logits"]), labels, COLUMNS)
    names, truth = np.asarray(labels, dtype=object), manifest["label"].to_numpy(object)
    scored = {"parts": manifest["parts"].to_numpy()}
    for part, has in zip(PARTS, (media.has_image, media.has_audio), strict=True):
        alone = names[logits[f"logits_{part}"].argmax(axis=1)]
        scored[f"has_{part}"] = has.astype(np.int8)
        scored[f"correct_{part}"] = ((alone == truth) & (has == 1)).astype(np.int8)
        scored[f"prediction_{part}"] = np.where(has == 1, alone, "")
    return table.assign(**scored)


def summary(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, float]:  # noqa: ARG001  # the contract
    """Metrics of a score table. One about a half that no example has, or both where none has both, is left out."""
    metrics = {"accuracy": float(table["correct"].mean())}
    both = table[(table["has_image"] == 1) & (table["has_audio"] == 1)]
    if len(both):
        metrics["accuracy_both"] = float(both["correct"].mean())
    for part in PARTS:
        rows = table[table[f"has_{part}"] == 1]
        if len(rows):
            metrics[f"accuracy_{part}_only"] = float(rows[f"correct_{part}"].mean())
    metrics["balanced_accuracy"] = float(table.groupby("label")["correct"].mean().mean())
    return metrics | {"log_loss": float(table["loss"].mean())}
