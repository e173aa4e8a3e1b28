"""A program's answers to pictures whose masks are known, one row each, and the metrics computed from those rows.

Pictures are judged at the size of their own masks: the program's class map, as large as its input, is stretched to it
(nearest), exactly as the service does.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.common.data.batches import COMMON_COLUMNS, payloads
from models.common.data.class_counts import read_counts
from models.common.errors import UserError
from models.common.program.program import Program
from models.semantic_segmentation import COLUMNS
from models.semantic_segmentation.dataset import photos, places
from models.semantic_segmentation.masks import NO_CLASS, stretched, write_png
from models.semantic_segmentation.metrics import BOTH, EITHER, TRUTH_OF, known_classes, mean_of_ratios, pixels
from models.semantic_segmentation.params import SegmentationData

PIXELS_AT_ONCE = 2**20  # of all pictures that one call of the graph takes
CONFUSIONS = 20  # pairs of classes kept of a picture, the commonest


def score(program: Path, manifest: pd.DataFrame, batches: Path, home: Path) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id, classes (names in the truth), right_pixels, labelled_pixels (void ones left out), trivial_right_pixels (of the
    commonest class everywhere), intersection:, union: and truth:<class> in pixels, picture_iou, confidence, shares (of
    the answer's classes, one per label of the program), mask (the answer, PNG of the program's size), confused ("road
    as pavement", pixels in confused_pixels), width, height, split, group, batch, row and the manifest's slice columns.
    A class that the program does not know is always wrong. UserError when the program cannot be loaded.
    """
    loaded = Program(program)
    data = _data(loaded, program)
    labels = loaded.spec.labels
    classes = (*labels, *_further(manifest, labels, data))
    answers = _answers(loaded, manifest, batches, home, data)
    truths = _truths(manifest, batches, classes, data)
    rows: list[dict[str, Any]] = [{}] * len(manifest)
    matrices = np.zeros((len(manifest), len(classes), len(classes)), np.int64)
    for position, truth in truths:
        answer, confidence = answers[0][position], answers[1][position]
        found = stretched(answer, truth.shape[1], truth.shape[0])
        matrices[position] = _confusion(truth, found, len(classes))
        rows[position] = {
            "confidence": float(confidence),
            "shares": np.bincount(found.ravel(), minlength=len(labels)) / found.size,
            "mask": write_png(answer, len(labels)),
            "width": truth.shape[1],
            "height": truth.shape[0],
        }
    return _table(manifest, classes, matrices, rows)


def _data(loaded: Program, folder: Path) -> SegmentationData:
    given = loaded.spec.input
    try:
        return SegmentationData(
            image_size=(given["width"], given["height"]), max_pixels=given["max_pixels"], void=tuple(given["void"])
        )
    except KeyError as error:
        raise UserError(f"{folder / 'program.json'}: input has no {error}, so it is no segmenter") from None


def _further(manifest: pd.DataFrame, labels: tuple[str, ...], data: SegmentationData) -> list[str]:
    """Classes in the masks that the program does not know."""
    inside = {name for text in manifest["classes"] for name in read_counts(text)}
    return sorted(name for name in inside - set(labels) if not data.is_void(name))


def _answers(
    loaded: Program, manifest: pd.DataFrame, batches: Path, home: Path, data: SegmentationData
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Class maps (N, height, width) and mean confidences (N,)."""
    width, height = data.size
    pictures = photos(manifest, batches, home, data.size, data.max_pixels)
    step = max(1, PIXELS_AT_ONCE // (width * height))
    maps = np.empty((len(manifest), height, width), np.uint8)
    confidence = np.empty(len(manifest), np.float32)
    for start in range(0, len(manifest), step):
        part = slice(start, min(start + step, len(manifest)))
        found = loaded.run(images=pictures.take(np.arange(part.start, part.stop)))
        maps[part], confidence[part] = found["classes"], found["confidence"]
    return maps, confidence


def _truths(
    manifest: pd.DataFrame, batches: Path, classes: tuple[str, ...], data: SegmentationData
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """(position in the manifest, places among `classes`) of every mask, batch by batch."""
    wanted = {key: place for place, key in enumerate(zip(manifest["batch"], manifest["row"], strict=True))}
    for batch in sorted(set(manifest["batch"])):
        for row, target in enumerate(payloads(batches, batch, "target")):
            if (batch, row) in wanted:
                yield wanted[batch, row], places(target, classes, data)


def _confusion(truth: NDArray[np.uint8], found: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """(classes, classes) pixels by true class (rows) and found class; void left out."""
    counted = truth != NO_CLASS
    pairs = truth[counted].astype(np.int64) * classes + found[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _table(
    manifest: pd.DataFrame, classes: tuple[str, ...], matrices: NDArray[np.int64], rows: list[dict[str, Any]]
) -> pd.DataFrame:
    both = np.diagonal(matrices, axis1=1, axis2=2)
    truth, found = matrices.sum(axis=2), matrices.sum(axis=1)
    either = truth + found - both
    commonest = int(truth.sum(axis=0).argmax())
    confused = [_confused(matrix, classes) for matrix in matrices]
    columns: dict[str, Any] = {
        "id": manifest["id"].to_numpy(),
        "classes": [[classes[place] for place in np.flatnonzero(counts)] for counts in truth],
        "right_pixels": both.sum(axis=1),
        "labelled_pixels": truth.sum(axis=1),
        "trivial_right_pixels": truth[:, commonest],
        "picture_iou": mean_of_ratios(both, either),
        "confused": [names for names, _ in confused],
        "confused_pixels": [counts for _, counts in confused],
    }
    for name, counts in ((BOTH, both), (EITHER, either), (TRUTH_OF, truth)):
        columns |= {f"{name}{label}": counts[:, place] for place, label in enumerate(classes)}
    columns |= {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    own = {*COMMON_COLUMNS, *COLUMNS, "target_id"}
    kept = [name for name in manifest if name in {"split", "group", "batch", "row"} or name not in own]
    return pd.DataFrame(columns).assign(**{str(name): manifest[name].to_numpy() for name in kept})


def _confused(matrix: NDArray[np.int64], classes: tuple[str, ...]) -> tuple[list[str], list[int]]:
    """The commonest confusions of a picture: "road as pavement", and of how many pixels."""
    wrong = matrix - np.diag(np.diagonal(matrix))
    order = [place for place in np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS] if wrong.flat[place]]
    names = [f"{classes[place // len(classes)]} as {classes[place % len(classes)]}" for place in order]
    return names, [int(wrong.flat[place]) for place in order]


def summary(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, float]:
    """mean_iou, pixel_accuracy, mean_class_accuracy (mean recall over the classes that occur), and the IoU of each.

    `labels`: those of the program come first.
    """
    totals = {name: pixels(table, name).sum(axis=0, keepdims=True) for name in (BOTH, EITHER, TRUTH_OF)}
    found = {
        "mean_iou": float(mean_of_ratios(totals[BOTH], totals[EITHER])[0]),
        "pixel_accuracy": float(table["right_pixels"].sum() / table["labelled_pixels"].sum()),
        "mean_class_accuracy": float(mean_of_ratios(totals[BOTH], totals[TRUTH_OF])[0]),
    }
    ious = class_ious(table)
    return found | {f"iou_{name}": ious[name] for name in sorted(ious, key=lambda name: name not in labels)}


def class_ious(table: pd.DataFrame) -> dict[str, float]:
    """Class -> IoU over all pictures' pixels, of the classes that occur."""
    both, either = (pixels(table, name).sum(axis=0) for name in (BOTH, EITHER))
    return {
        name: float(above / below)
        for name, above, below in zip(known_classes(table), both, either, strict=True)
        if below > 0
    }
