"""Photos with masks as data: which files are examples, what is recorded of each, and what is checked over all."""

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
from models.common.objects.annotations import Annotation, check_objects, parse_target
from models.common.objects.masks import Rle
from models.common.objects.reading import annotated_pictures
from models.instance_segmentation.params import InstanceData

if TYPE_CHECKING:
    import pandas as pd

SMALLEST = 4.0  # px


def examples(source: Source, data: InstanceData) -> Iterator[Example]:  # noqa: ARG001
    """Pictures that a COCO JSON annotates, with the masks of their objects."""
    return annotated_pictures(source, EXTENSIONS, masks=True)


def inspect(example: Example, data: InstanceData) -> dict[str, Any]:
    """What is recorded of a picture that decodes whole and of the masks in it.

    width and height in px as shown, perceptual hash; objects, how many are to be found; classes, how many of each;
    smallest_object, in px of the network's input, the square root of the area of the smallest one (None: none).
    Raises BadExampleError.
    """
    if example.target is None:
        raise BadExampleError("it has no annotation")
    seen = inspect_image(example.payload, data)
    annotation = parse_target(example.target)
    size = (seen["width"], seen["height"])
    check_objects(annotation, size, data.labels)
    areas = check_masks(annotation, size, data.outside)
    scale = min(data.size[0] / size[0], data.size[1] / size[1])
    wanted = areas[~annotation.ignored]
    return seen | {
        "objects": len(wanted),
        "classes": write_counts(annotation.counts),
        "smallest_object": float(np.sqrt(wanted.min()) * scale) if len(wanted) else None,
    }


def check_masks(annotation: Annotation, size: tuple[int, int], outside: float) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Pixels of each mask. BadExampleError where one is missing, of another size, empty, or leaves its box."""
    areas = []
    for number, (label, box, mask) in enumerate(
        zip(annotation.labels, annotation.boxes, annotation.masks, strict=True), 1
    ):
        try:
            areas.append(_checked(mask, box.tolist(), size, outside))
        except BadExampleError as error:
            raise BadExampleError(f"object {number} ('{label}') {error}") from None
    return np.array(areas, np.int64)


def _checked(mask: Rle | None, box: list[float], size: tuple[int, int], outside: float) -> int:
    if mask is None:
        raise BadExampleError("has no mask; give each annotation a segmentation, polygons or run lengths")
    if (mask.width, mask.height) != size:
        raise BadExampleError(
            f"has a mask of {mask.width} x {mask.height} px, but the picture has {size[0]} x {size[1]}"
        )
    area = mask.area
    if not area:
        raise BadExampleError("has an empty mask: not one pixel")
    found = mask.box
    beyond = max(box[0] - found[0], box[1] - found[1], found[2] - box[2], found[3] - box[3])
    if beyond > outside:
        raise BadExampleError(f"has a mask that leaves its box by {beyond:.1f} px (allowed: {outside:g}, data.outside)")
    return area


def expectations(data: InstanceData, manifest: "pd.DataFrame") -> list[Expectation]:
    """Sizes, near-duplicates, objects a picture, classes in every split, drift of object sizes.

    Adds the columns that they look at to `manifest`.
    """
    sizes: pd.Series[float] = np.log2(manifest["smallest_object"].astype(float).clip(lower=1)).round()  # type: ignore[assignment]
    manifest["object_drift"] = batch_drift(manifest["batch"], sizes)
    manifest["lacks_no_class"] = _lacks_no_class(manifest)
    between = "ExpectColumnValuesToBeBetween"
    return [
        *photo_expectations(data, manifest),
        Expectation(
            name="no more objects than are answered",
            expectation=between,
            kwargs={"column": "objects", "max_value": data.max_objects},
            severity="warn",
            means=f"a picture has more objects than the {data.max_objects} that one answer holds; raise max_objects",
        ),
        Expectation(
            name="objects are large enough to be seen",
            expectation=between,
            kwargs={"column": "smallest_object", "min_value": SMALLEST},
            severity="warn",
            means=f"an object is under {SMALLEST:g} px in the network's input, too little to find; raise image_size",
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
            name="object sizes as before",
            expectation=between,
            kwargs={"column": "object_drift", "max_value": data.max_drift},
            severity="warn",
            means=f"no batch moves the spread of object sizes by over max_drift (PSI {data.max_drift}) from the data"
            " version without it; see whether it comes from another camera or another annotator",
        ),
    ]


def _lacks_no_class(manifest: "pd.DataFrame") -> list[bool]:
    classes = [set(read_counts(text)) for text in manifest["classes"]]
    training = manifest["split"] == "train"
    learnt = set[str]().union(*(found for found, mine in zip(classes, training, strict=True) if mine))
    return [found <= learnt for found in classes]
