"""Photos with boxes as data: which files are examples, what is recorded of each, and what is checked over all."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from models.common.data.class_counts import read_counts, write_counts
from models.common.data.drift import batch_drift
from models.common.data.sources import Source
from models.common.errors import BadExampleError
from models.common.image.checks import inspect_image, photo_expectations
from models.common.image.decoding import EXTENSIONS
from models.common.kind import Example, Expectation
from models.common.objects.annotations import check_objects, parse_target
from models.common.objects.reading import annotated_pictures
from models.object_detection.params import DetectionData

if TYPE_CHECKING:
    import pandas as pd

SMALLEST = 4.0  # px


def examples(source: Source) -> Iterator[Example]:
    """Pictures that Pascal VOC's XML files or a COCO JSON annotate."""
    return annotated_pictures(source, EXTENSIONS)


def inspect(example: Example, data: DetectionData) -> dict[str, Any]:
    """What is recorded of a picture that decodes whole and of its boxes.

    width and height in px as shown, perceptual hash; boxes, how many are to be found; classes, how many of each;
    smallest_box, in px of the network's input, the shorter side of the smallest one (None: none).
    Raises BadExampleError with the reason.
    """
    if example.target is None:
        raise BadExampleError("it has no annotation")
    seen = inspect_image(example.payload, data)
    annotation = parse_target(example.target)
    check_objects(annotation, (seen["width"], seen["height"]), data.labels)
    boxes = annotation.boxes[~annotation.ignored]
    scale = min(data.size[0] / seen["width"], data.size[1] / seen["height"])
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) * scale
    return seen | {
        "boxes": len(boxes),
        "classes": write_counts(annotation.counts),
        "smallest_box": float(sides.min()) if len(boxes) else None,
    }


def expectations(data: DetectionData, manifest: "pd.DataFrame") -> list[Expectation]:
    """Sizes, near-duplicates, boxes a picture, classes in every split, drift of box sizes.

    Adds the columns that they look at to `manifest`.
    """
    manifest["lacks_no_class"] = _lacks_no_class(manifest)
    manifest["box_drift"] = batch_drift(manifest["batch"], manifest["smallest_box"].map(_octave))
    between = "ExpectColumnValuesToBeBetween"
    return [
        *photo_expectations(data, manifest),
        Expectation(
            name="no more objects than are answered",
            expectation=between,
            kwargs={"column": "boxes", "max_value": data.max_boxes},
            severity="warn",
            means=f"a picture has more objects than the {data.max_boxes} that one answer holds; raise max_boxes",
        ),
        Expectation(
            name="objects are large enough to be seen",
            expectation=between,
            kwargs={"column": "smallest_box", "min_value": SMALLEST},
            severity="warn",
            means=f"an object is under {SMALLEST:g} px in the network's input, too little to be found;"
            " raise image_size",
        ),
        Expectation(
            name="test and val hold classes that are learnt",
            expectation="ExpectColumnValuesToBeInSet",
            kwargs={"column": "lacks_no_class", "value_set": [True]},
            severity="block",
            means="a test or val picture holds a class of which no training picture has an object;"
            " add training pictures of it, or remove it",
        ),
        Expectation(
            name="box sizes as before",
            expectation=between,
            kwargs={"column": "box_drift", "max_value": data.max_drift},
            severity="warn",
            means=f"no batch moves the spread of box sizes by over max_drift (PSI {data.max_drift}) from the data"
            " version without it; see whether it comes from another camera or another annotator",
        ),
    ]


def _lacks_no_class(manifest: "pd.DataFrame") -> list[bool]:
    classes = [set(read_counts(text)) for text in manifest["classes"]]
    learnt = set[str]().union(
        *(found for found, split in zip(classes, manifest["split"], strict=True) if split == "train")
    )
    return [found <= learnt for found in classes]


def _octave(side: float) -> float:
    """Box sizes count as alike within a factor of two; NaN where there is no box."""
    return float(np.round(np.log2(max(side, 1.0)))) if side > 0 else math.nan
