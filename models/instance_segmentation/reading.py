"""Photos with masks as data: which files are examples, what is recorded of each, and what is checked over all."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from models.common.data.class_counts import write_counts
from models.common.data.sources import Source
from models.common.errors import BadExampleError
from models.common.image.decoding import EXTENSIONS
from models.common.kind import Example, Expectation
from models.common.objects.annotations import Annotation
from models.common.objects.checks import inspect_annotated, object_expectations
from models.common.objects.masks import Rle
from models.common.objects.reading import annotated_pictures
from models.instance_segmentation.params import InstanceData

if TYPE_CHECKING:
    import pandas as pd


def examples(source: Source, data: InstanceData) -> Iterator[Example]:  # noqa: ARG001
    """Pictures that a COCO JSON annotates, with the masks of their objects."""
    return annotated_pictures(source, EXTENSIONS, masks=True)


def inspect(example: Example, data: InstanceData) -> dict[str, Any]:
    """What is recorded of a picture that decodes whole and of the masks in it.

    width and height in px as shown, perceptual hash; objects, how many are to be found; classes, how many of each;
    smallest_object, in px of the network's input, the square root of the area of the smallest one (None: none).
    Raises BadExampleError.
    """
    columns, annotation, scale = inspect_annotated(example, data)
    areas = check_masks(annotation, (columns["width"], columns["height"]), data.outside)
    counted_areas = areas[~annotation.ignored]
    return columns | {
        "objects": len(counted_areas),
        "classes": write_counts(annotation.counts),
        "smallest_object": float(np.sqrt(counted_areas.min()) * scale) if len(counted_areas) else None,
    }


def check_masks(annotation: Annotation, size: tuple[int, int], outside: float) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Pixels of each mask. BadExampleError where one is missing, of another size, empty, or leaves its box."""
    areas = []
    for number, (label, box, mask) in enumerate(
        zip(annotation.labels, annotation.boxes, annotation.masks, strict=True), 1
    ):
        try:
            areas.append(_checked_area(mask, box.tolist(), size, outside))
        except BadExampleError as error:
            raise BadExampleError(f"object {number} ('{label}') {error}") from None
    return np.array(areas, np.int64)


def _checked_area(mask: Rle | None, box: list[float], size: tuple[int, int], outside: float) -> int:
    if mask is None:
        raise BadExampleError("has no mask; give each annotation a segmentation, polygons or run lengths")
    if (mask.width, mask.height) != size:
        raise BadExampleError(
            f"has a mask of {mask.width} x {mask.height} px, but the picture has {size[0]} x {size[1]}"
        )
    area = mask.area
    if not area:
        raise BadExampleError("has an empty mask: not one pixel")
    mask_box = mask.box
    beyond = max(box[0] - mask_box[0], box[1] - mask_box[1], mask_box[2] - box[2], mask_box[3] - box[3])
    if beyond > outside:
        raise BadExampleError(f"has a mask that leaves its box by {beyond:.1f} px (allowed: {outside:g}, data.outside)")
    return area


def expectations(data: InstanceData, manifest: "pd.DataFrame") -> list[Expectation]:
    """Sizes, near-duplicates, objects a picture, classes in every split, drift of object sizes.

    Adds the columns that they look at to `manifest`.
    """
    return object_expectations(data, manifest, "object", "objects", data.max_objects)
