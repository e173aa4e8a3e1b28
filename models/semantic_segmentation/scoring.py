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

from models.common.data.batches import COMMON_COLUMNS, iter_payloads
from models.common.data.class_counts import read_counts
from models.common.errors import UserError
from models.common.kind import ScoreJob
from models.common.program.program import Program
from models.common.segmentation.class_maps import IGNORE_INDEX, ClassMap, encode_png, resize_class_map
from models.common.segmentation.metrics import (
    GROUND_TRUTH,
    INTERSECTION,
    UNION,
    class_ious,
    mean_of_ratios,
    pixel_counts,
)
from models.semantic_segmentation import COLUMNS, METRICS
from models.semantic_segmentation.dataset import class_map, photos
from models.semantic_segmentation.params import SegmentationData

MAX_BATCH_PIXELS = 2**20  # of all pictures that one call of the graph takes
MAX_CONFUSIONS = 20  # pairs of classes kept of a picture, the commonest


def score(job: ScoreJob) -> pd.DataFrame:
    """One row per row of the manifest, in its order.

    id, classes (names in the truth), right_pixels, labelled_pixels (void ones left out), trivial_right_pixels (of the
    commonest class everywhere), intersection:, union: and truth:<class> in pixels, picture_iou, confidence, shares (of
    the answer's classes, one per label of the program), mask (the answer, PNG of the program's size), confused ("road
    as pavement", pixels in confused_pixels), width, height, split, group, batch, row and the manifest's slice columns.
    A class that the program does not know is always wrong. UserError when the program cannot be loaded.
    """
    program, manifest = Program(job.program), job.manifest
    data = _data(program, job.program)
    labels = program.spec.labels
    classes = (*labels, *_unknown_classes(manifest, labels, data))
    answers, confidences = _answers(program, job, data)
    rows: list[dict[str, Any]] = [{}] * len(manifest)
    matrices = np.zeros((len(manifest), len(classes), len(classes)), np.int64)
    for position, truth in _truths(job, classes, data):
        height, width = truth.shape
        predicted = resize_class_map(answers[position], width, height)
        matrices[position] = confusion_matrix(truth, predicted, len(classes))
        rows[position] = {
            "confidence": float(confidences[position]),
            "shares": np.bincount(predicted.ravel(), minlength=len(labels)) / predicted.size,
            "mask": encode_png(answers[position], len(labels)),
            "width": width,
            "height": height,
        }
    return score_table(manifest, classes, matrices, rows)


def _data(program: Program, folder: Path) -> SegmentationData:
    settings = program.spec.input
    try:
        return SegmentationData(
            image_size=(settings["width"], settings["height"]),
            max_pixels=settings["max_pixels"],
            void=tuple(settings["void"]),
        )
    except KeyError as error:
        raise UserError(f"{folder / 'program.json'}: input has no {error}, so it is no segmenter") from None


def _unknown_classes(manifest: pd.DataFrame, labels: tuple[str, ...], data: SegmentationData) -> list[str]:
    """Classes in the masks that the program does not know."""
    in_masks = {name for text in manifest["classes"] for name in read_counts(text)}
    return sorted(name for name in in_masks - set(labels) if not data.is_void(name))


def _answers(program: Program, job: ScoreJob, data: SegmentationData) -> tuple[ClassMap, NDArray[np.float32]]:
    """Class maps (N, height, width) and mean confidences (N,)."""
    width, height = data.size
    pictures = photos(job.manifest, job.batches, job.home, data.size, data.max_pixels)
    step = max(1, MAX_BATCH_PIXELS // (width * height))
    answers = np.empty((len(pictures), height, width), np.uint8)
    confidences = np.empty(len(pictures), np.float32)
    for start in range(0, len(pictures), step):
        part = slice(start, min(start + step, len(pictures)))
        outputs = program.run(images=pictures.take(np.arange(part.start, part.stop)))
        answers[part], confidences[part] = outputs["classes"], outputs["confidence"]
    return answers, confidences


def _truths(job: ScoreJob, classes: tuple[str, ...], data: SegmentationData) -> Iterator[tuple[int, ClassMap]]:
    """(position in the manifest, class map of indices in `classes`) of every mask, batch by batch."""
    manifest = job.manifest
    position_of = {key: position for position, key in enumerate(zip(manifest["batch"], manifest["row"], strict=True))}
    for batch in sorted(set(manifest["batch"])):
        for row, target in enumerate(iter_payloads(job.batches, batch, "target")):
            if (batch, row) in position_of:
                yield position_of[batch, row], class_map(target, classes, data)


def confusion_matrix(truth: ClassMap, predicted: ClassMap, classes: int) -> NDArray[np.int64]:
    """(classes, classes) pixels by true class (rows) and predicted class; void left out."""
    counted = truth != IGNORE_INDEX
    pairs = truth[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def score_table(
    manifest: pd.DataFrame, classes: tuple[str, ...], matrices: NDArray[np.int64], rows: list[dict[str, Any]]
) -> pd.DataFrame:
    """See score. matrices: (pictures, classes, classes); rows: further columns of each picture."""
    intersection = np.diagonal(matrices, axis1=1, axis2=2)
    truth, predicted = matrices.sum(axis=2), matrices.sum(axis=1)
    union = truth + predicted - intersection
    commonest = int(truth.sum(axis=0).argmax())
    confused = [_confused(matrix, classes) for matrix in matrices]
    columns: dict[str, Any] = {
        "id": manifest["id"].to_numpy(),
        "classes": [[classes[index] for index in np.flatnonzero(counts)] for counts in truth],
        "right_pixels": intersection.sum(axis=1),
        "labelled_pixels": truth.sum(axis=1),
        "trivial_right_pixels": truth[:, commonest],
        "picture_iou": mean_of_ratios(intersection, union),
        "confused": [names for names, _ in confused],
        "confused_pixels": [counts for _, counts in confused],
    }
    for prefix, counts in ((INTERSECTION, intersection), (UNION, union), (GROUND_TRUTH, truth)):
        columns |= {f"{prefix}{label}": counts[:, index] for index, label in enumerate(classes)}
    columns |= {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    excluded = {*COMMON_COLUMNS, *COLUMNS, "target_id"}
    manifest_columns = [name for name in manifest if name in {"split", "group", "batch", "row"} or name not in excluded]
    return pd.DataFrame(columns).assign(**{str(name): manifest[name].to_numpy() for name in manifest_columns})


def _confused(matrix: NDArray[np.int64], classes: tuple[str, ...]) -> tuple[list[str], list[int]]:
    """The commonest confusions of a picture: "road as pavement", and of how many pixels."""
    wrong = matrix - np.diag(np.diagonal(matrix))
    order = [cell for cell in np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS] if wrong.flat[cell]]
    names = [f"{classes[cell // len(classes)]} as {classes[cell % len(classes)]}" for cell in order]
    return names, [int(wrong.flat[cell]) for cell in order]


def summary(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, float]:
    """METRICS, mean_class_accuracy (mean recall over the classes that occur), and the IoU of each class.

    `labels`: those of the program come first.
    """
    intersection, truth = (
        pixel_counts(table, prefix).sum(axis=0, keepdims=True) for prefix in (INTERSECTION, GROUND_TRUTH)
    )
    ious = class_ious(table)
    return {
        **{metric.name: metric.value(table) for metric in METRICS},
        "mean_class_accuracy": float(mean_of_ratios(intersection, truth)[0]),
        **{f"iou_{name}": ious[name] for name in sorted(ious, key=lambda name: name not in labels)},
    }
