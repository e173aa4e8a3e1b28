"""Score tables of classifiers, whatever they look at or listen to, and the metrics computed from such a table."""

from collections.abc import Collection

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.data.batches import COMMON_COLUMNS

MIN_PROBABILITY = 1e-12  # clipped here in the log loss; a label that the program does not know costs 27.6
BINS = 15  # of confidence, in the calibration error (Guo et al., ICML 2017)
MIN_TOP5_CLASSES = 10  # classes


def class_table(
    manifest: pd.DataFrame, probabilities: NDArray[np.float32], labels: tuple[str, ...], kind_columns: Collection[str]
) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id, label, prediction, correct (0 or 1), loss (negative log likelihood, nats), confidence, probabilities (N, one per
    label of the program), split, group, batch, row and the manifest's slice columns: all but the kind's `kind_columns`.
    A label that the program does not know is a wrong answer.
    """
    predicted = probabilities.argmax(axis=1)
    truth = pd.Index(labels).get_indexer(pd.Index(manifest["label"]))  # -1: a label that the program does not know
    true_probability = np.where(truth >= 0, probabilities[np.arange(len(truth)), truth], 0.0).astype(float)
    scored = {
        "id": manifest["id"].to_numpy(),
        "label": manifest["label"].to_numpy(),
        "prediction": np.asarray(labels, dtype=object)[predicted],
        "correct": (predicted == truth).astype(np.int8),
        "loss": -np.log(np.clip(true_probability, MIN_PROBABILITY, 1.0)),
        "confidence": probabilities[np.arange(len(predicted)), predicted],
        "probabilities": list(probabilities),
    }
    excluded = {*COMMON_COLUMNS, *kind_columns}
    manifest_columns = [name for name in manifest if name in {"split", "group", "batch", "row"} or name not in excluded]
    return pd.DataFrame(scored).assign(**{str(name): manifest[name].to_numpy() for name in manifest_columns})


def class_summary(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, float]:
    """Metrics of a score table. Averages over classes take those that occur, in the macro F1 also as a prediction."""
    metrics = {
        "accuracy": float(table["correct"].mean()),
        "balanced_accuracy": float(table.groupby("label")["correct"].mean().mean()),
        "macro_f1": macro_f1(table),
        "log_loss": float(table["loss"].mean()),
        "calibration_error": calibration_error(table),
    }
    return metrics | ({"top5_accuracy": _top_k_accuracy(table, labels, 5)} if len(labels) >= MIN_TOP5_CLASSES else {})


def macro_f1(table: pd.DataFrame) -> float:
    """Mean over classes of 2 hits / (examples + predictions)."""
    examples, predictions = table["label"].value_counts(), table["prediction"].value_counts()
    hits = table.loc[table["correct"] == 1, "label"].value_counts()
    return float((2 * hits).div(examples.add(predictions, fill_value=0), fill_value=0).mean())


def reliability(table: pd.DataFrame) -> pd.DataFrame:
    """Per bin of confidence that holds any example: mean confidence, accuracy, examples; indexed by bin, 0 to 14."""
    confidence = np.nan_to_num(table["confidence"].to_numpy())
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    grouped = table.groupby(bins)
    columns = {"confidence": grouped["confidence"].mean(), "accuracy": grouped["correct"].mean()}
    return pd.DataFrame(columns).assign(examples=grouped.size())


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error: mean over examples of |accuracy - confidence| of their bin."""
    bins = reliability(table)
    gaps = (bins["accuracy"] - bins["confidence"]).abs()
    return float((gaps * bins["examples"]).sum() / len(table))


def _top_k_accuracy(table: pd.DataFrame, labels: tuple[str, ...], count: int) -> float:
    probabilities = np.stack(table["probabilities"].to_list())
    truth = pd.Index(labels).get_indexer(pd.Index(table["label"]))
    higher = (probabilities > probabilities[np.arange(len(truth)), truth][:, None]).sum(axis=1)
    return float(((truth >= 0) & (higher < count)).mean())
