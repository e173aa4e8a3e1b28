"""Average precision: what pycocotools says of the same detections, and what the gate's resampling relies on."""

import contextlib
import io
import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pycocotools import coco as pycoco
from pycocotools.cocoeval import COCOeval

from models.common.objects.average_precision import (
    COLUMNS,
    GroundTruth,
    Predictions,
    average_precision,
    box_iou,
    mask_iou,
    match,
    precision_recall,
    row_columns,
)
from models.common.objects.masks import encode
from models.common.objects.metrics import MAP, MAP50
from models.common.objects.thresholds import COCO

CLASSES = ("car", "dog", "sky")
SIDE = 64


def scene(random: np.random.Generator, ties: bool, crowds: bool) -> tuple[GroundTruth, Predictions]:
    """A picture with whole-numbered boxes; detections are jittered objects and noise."""
    count = int(random.integers(0, 7))
    boxes = np.hstack([corner := random.integers(0, 40, (count, 2)), corner + random.integers(4, 24, (count, 2))])
    labels = random.choice(CLASSES, count)
    crowd = random.random(count) < (0.25 if crowds else 0)
    again = [index for index in range(count) for _ in range(random.integers(0, 3))]
    found = boxes[again] + random.integers(-2, 3, (len(again), 4))
    noise = int(random.integers(0, 5))
    stray = np.hstack([corner := random.integers(0, 40, (noise, 2)), corner + random.integers(4, 24, (noise, 2))])
    names = np.concatenate([labels[again], random.choice(CLASSES, noise)])
    scores = random.random(len(names))
    return (
        GroundTruth(labels.tolist(), boxes.astype(float), crowd, crowd),
        Predictions(names.tolist(), np.vstack([found, stray]).astype(float), np.round(scores, 1) if ties else scores),
    )


def scenes(count: int, seed: int, ties: bool = False, crowds: bool = False) -> list[tuple[GroundTruth, Predictions]]:
    random = np.random.default_rng(seed)
    return [scene(random, ties, crowds) for _ in range(count)]


def table(found: list[tuple[GroundTruth, Predictions]], iou: Any = box_iou) -> pd.DataFrame:
    return pd.DataFrame([row_columns(truth, seen, match(truth, seen, iou)) for truth, seen in found])


def reference(found: list[tuple[GroundTruth, Predictions]], kind: str, regions: Any) -> np.ndarray[Any, Any]:
    """pycocotools' precision, (10, 101, classes), of boxes or masks; -1 for classes that have no object."""
    ground: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    ground["categories"] = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
    results = []
    for image, (truth, seen) in enumerate(found):
        ground["images"].append({"id": image, "width": SIDE, "height": SIDE})
        for label, region, crowd in zip(truth.labels, truth.regions, truth.crowd, strict=True):
            one: dict[str, Any] = {"id": len(ground["annotations"]) + 1, "image_id": image, "iscrowd": int(crowd)}
            ground["annotations"].append(one | {"category_id": CLASSES.index(label)} | regions(region))
        for label, region, score in zip(seen.labels, seen.regions, seen.scores, strict=True):
            one = {"image_id": image, "category_id": CLASSES.index(label), "score": float(score)}
            results.append(one | {key: value for key, value in regions(region).items() if key != "area"})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = pycoco.COCO()
        coco.dataset = ground
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(results), kind)
        judged.evaluate()
        judged.accumulate()
    return np.asarray(judged.eval["precision"][:, :, :, 0, -1])


def as_box(box: np.ndarray[Any, Any]) -> dict[str, Any]:
    x1, y1, x2, y2 = map(float, box)
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}


def mean(precision: np.ndarray[Any, Any]) -> float:
    return float(precision[precision > -1].mean())


def value(metric: Any, rows: pd.DataFrame) -> float:
    return float(metric.estimate(rows)(np.ones((1, len(rows))))[0])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("ties", "crowds"), [(False, False), (True, False), (False, True), (True, True)])
def test_boxes_are_counted_as_pycocotools_counts_them(seed: int, ties: bool, crowds: bool) -> None:
    found = scenes(40, seed, ties, crowds)
    rows, expected = table(found), reference(found, "bbox", as_box)
    assert value(MAP, rows) == pytest.approx(mean(expected), abs=1e-9)
    assert value(MAP50, rows) == pytest.approx(mean(expected[:1]), abs=1e-9)
    for index, name in enumerate(CLASSES):
        assert value(MAP.of_classes((name,)), rows) == pytest.approx(mean(expected[:, :, index]), abs=1e-9)  # type: ignore[misc]


@pytest.mark.parametrize("crowds", [False, True])
def test_masks_are_counted_as_pycocotools_counts_them(crowds: bool) -> None:
    def disc(box: np.ndarray[Any, Any]) -> Any:
        y, x = np.mgrid[:SIDE, :SIDE] + 0.5
        x1, y1, x2, y2 = box
        return encode(((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1)

    found = [
        (
            GroundTruth(truth.labels, [disc(box) for box in truth.regions], truth.crowd, truth.ignored),
            Predictions(seen.labels, [disc(box) for box in seen.regions], seen.scores),
        )
        for truth, seen in scenes(30, 7, crowds=crowds)
    ]
    expected = reference(
        found, "segm", lambda mask: {"segmentation": mask.coco, "area": mask.area, "bbox": [0, 0, 1, 1]}
    )
    assert value(MAP, table(found, mask_iou)) == pytest.approx(mean(expected), abs=1e-9)


def test_only_the_surest_hundred_of_a_class_count() -> None:
    random = np.random.default_rng(0)
    box = np.array([[5.0, 5, 25, 25]])
    many = np.vstack([np.tile([40.0, 40, 50, 50], (120, 1)), box])
    scores = np.append(random.uniform(0.5, 1, 120), 0.1)
    none = np.zeros(1, bool)
    found = [(GroundTruth(["car"], box, none, none), Predictions(["car"] * 121, many, scores))]
    rows = table(found)
    assert len(rows["detected_label"][0]) == 100
    assert value(MAP, rows) == mean(reference(found, "bbox", as_box)) == 0


def test_a_picture_that_weighs_two_counts_as_two_pictures() -> None:
    rows = table(scenes(30, 3, crowds=True))
    drawn = np.random.default_rng(1).integers(0, 4, (20, 30))
    got = average_precision()(rows)(drawn.astype(float))
    for weights, found in zip(drawn, got, strict=True):
        repeated = rows.loc[np.repeat(np.arange(30), weights)].reset_index(drop=True)
        assert found == pytest.approx(value(MAP, repeated), abs=1e-12)


def test_classes_without_objects_in_a_resample_do_not_count() -> None:
    rows = table(scenes(60, 5))
    only = np.array([[float("car" in labels and len(labels) == 1) for labels in rows["truth_label"]]])
    assert only.sum()
    of_cars = MAP.of_classes(("car",))  # type: ignore[misc]
    assert average_precision()(rows)(only) == pytest.approx(of_cars.estimate(rows)(only))  # type: ignore[misc]
    nothing = average_precision()(rows)(np.zeros((2, 60)))
    assert np.isnan(nothing).all()
    assert np.isnan(value(MAP.of_classes(("unheard of",)), rows))  # type: ignore[misc]


def test_a_class_that_is_never_found_counts_as_zero() -> None:
    flags = np.zeros(2, bool)
    truth = GroundTruth(["car", "dog"], np.array([[0.0, 0, 9, 9], [20, 20, 30, 30]]), flags, flags)
    seen = Predictions(["car"], np.array([[0.0, 0, 9, 9]]), np.array([0.9]))
    assert value(MAP, table([(truth, seen)])) == pytest.approx(0.5)


def test_a_difficult_object_is_neither_right_nor_wrong() -> None:
    boxes = np.array([[0.0, 0, 9, 9], [20, 20, 30, 30]])
    truth = GroundTruth(["car", "car"], boxes, np.zeros(2, bool), np.array([False, True]))
    both = Predictions(["car", "car"], boxes, np.array([0.5, 0.9]))
    assert value(MAP, table([(truth, both)])) == pytest.approx(1.0)
    one = Predictions(["car"], boxes[:1], np.array([0.5]))
    assert value(MAP, table([(truth, one)])) == pytest.approx(1.0)


def test_a_table_read_from_parquet_says_the_same(tmp_path: Any) -> None:
    rows = table(scenes(12, 2))
    rows.to_parquet(tmp_path / "table.parquet")
    assert value(MAP, pd.read_parquet(tmp_path / "table.parquet")) == value(MAP, rows)
    assert tuple(rows.columns) == COLUMNS


def test_precision_and_recall_of_one_class() -> None:
    found = scenes(40, 1, crowds=True)
    rows = table(found)
    curve = precision_recall(rows, "dog", 0.75)
    assert (np.diff(curve.score) <= 0).all()
    assert (np.diff(curve.recall) >= 0).all()
    peak = [curve.precision[curve.recall >= recall].max(initial=0) for recall in np.linspace(0, 1, 101)]
    expected = reference(found, "bbox", as_box)[COCO.index(0.75), :, CLASSES.index("dog")]
    assert peak == pytest.approx(expected.tolist(), abs=1e-9)
    assert not len(precision_recall(rows, "unheard of").score)


def test_two_thousand_resamples_of_three_hundred_pictures_take_seconds() -> None:
    base = table(scenes(300, 9))
    drawn = np.random.default_rng(0).multinomial(300, np.full(300, 1 / 300), 2000).astype(float)
    start = time.process_time()
    spread = average_precision()(base)(drawn)
    assert time.process_time() - start < 10
    assert 0 < spread.std() < 0.05
