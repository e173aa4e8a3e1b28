"""Average precision of found objects, counted as pycocotools counts it, and resampled in pairs by the gate.

An example's row of the score table keeps what average precision needs of it, as columns of lists:

    detected_label, detected_score                 each detection, the surest first, at most 100 of a class
    detected_matched, detected_ignored             bit t is set where it found an object, or is not counted, at COCO[t]
    truth_label, truth_count                       classes in the picture, and how many objects of each are to be found

Which detection finds which object is settled inside one picture (COCOeval.evaluateImg), so resampling pictures does
not change it: a metric of other pictures is the same rows, counted otherwise often (COCOeval.accumulate).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.common.kind import Estimate
from models.common.objects.thresholds import COCO, known_thresholds

if TYPE_CHECKING:
    import pandas as pd

MAX_DETECTIONS = 100  # detections of one class in one picture that count
RECALLS = np.linspace(0.0, 1.0, 101)  # recalls at which precision is read; the very doubles of pycocotools
MATCH_THRESHOLDS = np.minimum(COCO, 1 - 1e-10)
COLUMNS = (
    "detected_label",
    "detected_score",
    "detected_matched",
    "detected_ignored",
    "truth_label",
    "truth_count",
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# Detections (D), objects (G), which objects are crowds (G,) -> IoU (D, G); with a crowd: the share of the detection.
IoU = Callable[[Any, Any, Bools], Floats]


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The objects of one picture. `regions`: boxes (G, 4) or a list of masks, whatever the IoU takes."""

    labels: Sequence[str]
    regions: Any
    crowd: Bools  # (G,): many objects in one; any number of detections may fall on it
    ignored: Bools  # (G,): not to be found, crowds among them


@dataclass(frozen=True, eq=False)
class Predictions:
    """What was found in one picture."""

    labels: Sequence[str]
    regions: Any
    scores: Floats  # (D,)


@dataclass(frozen=True, eq=False)
class Matches:
    """What became of the detections of one picture. All are of the kept ones, the surest first."""

    order: NDArray[np.int64]  # (K,): their places among the predictions
    matched: Bools  # (10, K): found an object, at each threshold
    ignored: Bools  # (10, K): not counted


def match(truth: GroundTruth, predictions: Predictions, iou: IoU) -> Matches:
    """Which detections find an object at each of COCO's thresholds: each takes the best object left, the surest first.

    After COCOeval.evaluateImg of pycocotools, for areas of all sizes. Objects that are not to be found (crowds, and
    difficult ones of Pascal VOC) are taken only by detections that find no other; those then do not count.
    """
    order = np.argsort(-predictions.scores, kind="stable")
    predicted_labels = np.asarray(predictions.labels, object)[order]
    true_labels = np.asarray(truth.labels, object)
    matched, ignored = np.zeros((2, len(COCO), len(order)), bool)
    kept = np.zeros(len(order), bool)
    for label in dict.fromkeys(predicted_labels.tolist()):
        detections = np.flatnonzero(predicted_labels == label)[:MAX_DETECTIONS]
        objects = np.flatnonzero(true_labels == label)
        kept[detections] = True
        if len(objects):
            crowd = truth.crowd[objects]
            overlaps = iou(_select(predictions.regions, order[detections]), _select(truth.regions, objects), crowd)
            matched[:, detections], ignored[:, detections] = _greedy(overlaps, crowd, truth.ignored[objects])
    return Matches(order[kept], matched[:, kept], ignored[:, kept])


def _select(regions: Any, positions: NDArray[np.int64]) -> Any:
    return regions[positions] if isinstance(regions, np.ndarray) else [regions[index] for index in positions]


def _greedy(overlaps: Floats, crowd: Bools, ignored: Bools) -> tuple[Bools, Bools]:
    """IoU (D, G) of one class, the surest detection first -> matched and ignored, (10, D) each."""
    matched, ignored_matches = np.zeros((2, len(MATCH_THRESHOLDS), len(overlaps)), bool)
    unmatched = np.ones((len(MATCH_THRESHOLDS), len(crowd)), bool)
    row = np.arange(len(MATCH_THRESHOLDS))
    for index, overlap in enumerate(overlaps):
        if overlap.max() < MATCH_THRESHOLDS[0]:
            continue
        candidates = unmatched & (overlap >= MATCH_THRESHOLDS[:, None])
        counted = candidates & ~ignored
        candidates = np.where(counted.any(axis=1)[:, None], counted, candidates)
        best = _last_argmax(np.where(candidates, overlap, -1.0))
        hit = candidates.any(axis=1)
        matched[:, index] = hit
        ignored_matches[:, index] = hit & ignored[best]
        unmatched[row[hit], best[hit]] = crowd[best[hit]]
    return matched, ignored_matches


def _last_argmax(values: Floats) -> NDArray[np.int64]:
    """Place of the largest value of each row; of equal ones the last, as pycocotools takes it."""
    return np.asarray(values.shape[1] - 1 - values[:, ::-1].argmax(axis=1))


def row_columns(truth: GroundTruth, predictions: Predictions, matched: Matches) -> dict[str, list[Any]]:
    """COLUMNS of one row of the score table."""
    counted = [label for label, ignored in zip(truth.labels, truth.ignored, strict=True) if not ignored]
    classes = sorted(set(counted))
    bits = 1 << np.arange(len(COCO))
    return {
        "detected_label": [str(predictions.labels[index]) for index in matched.order],
        "detected_score": [float(predictions.scores[index]) for index in matched.order],
        "detected_matched": (bits @ matched.matched).tolist(),
        "detected_ignored": (bits @ matched.ignored).tolist(),
        "truth_label": classes,
        "truth_count": [counted.count(label) for label in classes],
    }


@dataclass(frozen=True, eq=False)
class _ClassDetections:
    """One class in all pictures, detections by falling score; of equal ones in the order of the table."""

    score: Floats  # (D,)
    picture: NDArray[np.int64]  # (D,): row of the table
    matched: NDArray[np.int64]  # (D,): bits
    ignored: NDArray[np.int64]  # (D,): bits
    objects: Floats  # (N,): objects to be found in each picture


def average_precision(
    thresholds: tuple[float, ...] = COCO, classes: tuple[str, ...] | None = None
) -> Callable[["pd.DataFrame"], Estimate]:
    """Of a score table: weights (R, N) -> mean average precision (R,), over the thresholds and over the classes.

    `classes` None: all. In each resample those count that have an object in it; NaN where none has. With weights of
    one exactly what pycocotools gives for pictures in the table's order. Weights are how often a picture counts;
    a picture drawn twice counts as two pictures that lie side by side.
    """
    bits = known_thresholds(thresholds)

    def of_table(table: "pd.DataFrame") -> Estimate:
        counted_classes = [one for one in _classes(table, classes) if one.objects.any()]

        def estimate(weights: Floats) -> Floats:
            total, present = np.zeros(len(weights)), np.zeros(len(weights))
            for one in counted_classes:
                objects = weights @ one.objects
                value = _class_precision(one, weights, objects, bits)
                total += np.where(objects > 0, value, 0)
                present += objects > 0
            return np.asarray(np.divide(total, present, out=np.full(len(total), np.nan), where=present > 0))

        return estimate

    return of_table


def _class_precision(one: _ClassDetections, weights: Floats, objects: Floats, bits: list[int]) -> Floats:
    """(R,): mean over thresholds of the average precision of a class.

    Only where an object is found can recall rise and precision have a peak, so precision is taken there alone; what
    lies between two such places is summed once for all thresholds, unless a threshold ignores some of it.
    """
    true_positives = [(one.matched >> bit & 1 & ~(one.ignored >> bit)).astype(bool) for bit in bits]
    positions = np.flatnonzero(np.any(true_positives, axis=0))
    if not len(positions):
        return np.zeros(len(weights))
    drawn = weights[:, one.picture[: positions[-1] + 1]]
    counted = np.add.reduceat(drawn, np.concatenate([[0], positions[:-1] + 1]), axis=1).cumsum(axis=1)
    values = np.zeros(len(weights))
    for bit, hit in zip(bits, true_positives, strict=True):
        here = hit[positions]
        ignored = (one.ignored[: positions[-1] + 1] >> bit & 1).astype(bool)
        detections = counted[:, here]
        if ignored.any():
            detections = (drawn * ~ignored).cumsum(axis=1)[:, positions[here]]
        values += _interpolated_precision(drawn[:, positions[here]].cumsum(axis=1), detections, objects)
    return values / len(bits)


def _interpolated_precision(hits: Floats, detections: Floats, objects: Floats) -> Floats:
    """(R,): precision at the 101 recalls. hits, seen (R, K): right and all detections up to each right one."""
    if not hits.shape[1]:
        return np.zeros(len(hits))
    precision = hits / (detections + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = hits / objects[:, None]
    reached = np.searchsorted(RECALLS, recall, side="right")  # how many of the 101 are at or below it
    new_recalls = np.diff(reached, axis=1, prepend=0)
    return np.asarray(np.einsum("rk,rk->r", precision, new_recalls) / len(RECALLS))


def _classes(table: "pd.DataFrame", selected: tuple[str, ...] | None) -> list[_ClassDetections]:
    lengths = [len(labels) for labels in table["detected_label"]]
    picture = np.repeat(np.arange(len(table)), lengths)
    label = _concatenate(table["detected_label"], object)
    score = _concatenate(table["detected_score"], np.float64)
    matched, ignored = (_concatenate(table[f"detected_{name}"], np.int64) for name in ("matched", "ignored"))
    counts = _counts(table)
    names = sorted(counts) if selected is None else [name for name in selected if name in counts]
    result = []
    for name in names:
        rows = np.flatnonzero(label == name)
        rows = rows[np.argsort(-score[rows], kind="stable")]
        result.append(_ClassDetections(score[rows], picture[rows], matched[rows], ignored[rows], counts[name]))
    return result


def _concatenate(lists: Any, kind: Any) -> NDArray[Any]:
    parts = [np.asarray(part, kind) for part in lists]
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def _counts(table: "pd.DataFrame") -> dict[str, Floats]:
    """Class: how many objects of it are to be found in each picture, (N,)."""
    counts: dict[str, Floats] = {}
    for row, (labels, numbers) in enumerate(zip(table["truth_label"], table["truth_count"], strict=True)):
        for label, count in zip(labels, numbers, strict=True):
            counts.setdefault(str(label), np.zeros(len(table)))[row] = count
    return counts


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision against recall as the threshold of the score falls; one point for each detection that counts."""

    recall: Floats  # (K,)
    precision: Floats  # (K,)
    score: Floats  # (K,)


def precision_recall(table: "pd.DataFrame", label: str, threshold: float = 0.5) -> Curve:
    """The curve of one class at one of COCO's thresholds, not smoothed; without points where it has no object."""
    (bit,) = known_thresholds((threshold,))
    (one,) = _classes(table, (label,)) or (None,)
    if one is None or not one.objects.any():
        return Curve(*np.zeros((3, 0)))
    counts = ~(one.ignored >> bit & 1).astype(bool)
    hits = (one.matched >> bit & 1)[counts].cumsum()
    detections = np.arange(1, len(hits) + 1)
    return Curve(hits / one.objects.sum(), hits / detections, one.score[counts])


def box_iou(detections: Floats, objects: Floats, crowd: Bools) -> Floats:
    """IoU (D, G) of boxes (…, 4) x1, y1, x2, y2; with a crowd: the share of the detection that lies in it."""
    low = np.maximum(detections[:, None, :2], objects[None, :, :2])
    high = np.minimum(detections[:, None, 2:], objects[None, :, 2:])
    intersection = np.clip(high - low, 0, None).prod(axis=2)
    areas, object_areas = (
        np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1) for boxes in (detections, objects)
    )
    union = np.where(crowd, areas[:, None], areas[:, None] + object_areas - intersection)
    return np.asarray(np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0))


def mask_iou(detections: Sequence[Any], objects: Sequence[Any], crowd: Bools) -> Floats:
    """The same of masks (models.common.objects.masks.Rle)."""
    from pycocotools import mask

    if not len(detections) or not len(objects):
        return np.zeros((len(detections), len(objects)))
    return np.asarray(
        mask.iou([one.coco for one in detections], [one.coco for one in objects], crowd.astype(np.uint8).tolist())
    )
