"""Photos with boxes as data: which files are examples, what is recorded of each, and what is checked over all."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from models.common.data.class_counts import write_counts
from models.common.data.sources import Source
from models.common.image.decoding import EXTENSIONS
from models.common.kind import Example, Expectation
from models.common.objects.checks import inspect_annotated, object_expectations
from models.common.objects.reading import annotated_pictures
from models.object_detection.params import DetectionData

if TYPE_CHECKING:
    import pandas as pd


def examples(source: Source, data: DetectionData) -> Iterator[Example]:  # noqa: ARG001
    """Pictures that Pascal VOC's XML files or a COCO JSON annotate."""
    return annotated_pictures(source, EXTENSIONS)


def inspect(example: Example, data: DetectionData) -> dict[str, Any]:
    """What is recorded of a picture that decodes whole and of its boxes.

    width and height in px as shown, perceptual hash; boxes, how many are to be found; classes, how many of each;
    smallest_box, in px of the network's input, the shorter side of the smallest one (None: none).
    Raises BadExampleError with the reason.
    """
    columns, annotation, scale = inspect_annotated(example, data)
    boxes = annotation.boxes[~annotation.ignored]
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) * scale
    return columns | {
        "boxes": len(boxes),
        "classes": write_counts(annotation.counts),
        "smallest_box": float(sides.min()) if len(boxes) else None,
    }


def expectations(data: DetectionData, manifest: "pd.DataFrame") -> list[Expectation]:
    """Sizes, near-duplicates, boxes a picture, classes in every split, drift of box sizes.

    Adds the columns that they look at to `manifest`.
    """
    return object_expectations(data, manifest, "box", "boxes", data.max_boxes)
