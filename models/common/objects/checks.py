"""What is recorded of annotated pictures and checked over all of them, whatever form their objects have."""

from typing import TYPE_CHECKING, Any

import numpy as np

from models.common.data.class_counts import read_counts
from models.common.data.drift import batch_drift, drift_expectation
from models.common.errors import BadExampleError
from models.common.image.checks import inspect_image, photo_expectations
from models.common.kind import Example, Expectation
from models.common.objects.annotations import Annotation, check_objects, parse_target
from models.common.objects.params import ObjectData

if TYPE_CHECKING:
    import pandas as pd

SMALLEST = 4.0  # px


def inspect_annotated(example: Example, data: ObjectData) -> tuple[dict[str, Any], Annotation, float]:
    """A picture's own columns, what is in it, and by what its sides are scaled for the network.

    Raises BadExampleError where it does not decode whole or its annotation is not one of it.
    """
    if example.target is None:
        raise BadExampleError("it has no annotation")
    columns = inspect_image(example.payload, data)
    width, height = columns["width"], columns["height"]
    annotation = parse_target(example.target)
    check_objects(annotation, (width, height), data.labels)
    return columns, annotation, min(data.size[0] / width, data.size[1] / height)


def object_expectations(
    data: ObjectData, manifest: "pd.DataFrame", thing: str, things: str, most: int
) -> list[Expectation]:
    """Sizes, near-duplicates, objects a picture, classes in every split, drift of the objects' sizes.

    thing: what an object is called, "box". Columns `things` and smallest_`thing` of the manifest are looked at: how
    many there are in a picture, and how large the smallest one is, in px of the network's input; others are added.
    most: how many one answer holds, data.max_`things`.
    """
    smallest, drift = f"smallest_{thing}", f"{thing}_drift"
    octaves: pd.Series[float] = np.log2(manifest[smallest].astype(float).clip(lower=1)).round()  # type: ignore[assignment]
    manifest[drift] = batch_drift(manifest["batch"], octaves)  # alike within a factor of two
    manifest["has_known_classes"] = _has_known_classes(manifest)
    between = "ExpectColumnValuesToBeBetween"
    return [
        *photo_expectations(data, manifest),
        Expectation(
            name="no more objects than are answered",
            expectation=between,
            kwargs={"column": things, "max_value": most},
            severity="warn",
            remedy=f"a picture has more objects than the {most} that one answer holds; raise max_{things}",
        ),
        Expectation(
            name="objects are large enough to be seen",
            expectation=between,
            kwargs={"column": smallest, "min_value": SMALLEST},
            severity="warn",
            remedy=f"an object is under {SMALLEST:g} px in the network's input, too little to find; raise image_size",
        ),
        Expectation(
            name="test and val hold classes that are learnt",
            expectation="ExpectColumnValuesToBeInSet",
            kwargs={"column": "has_known_classes", "value_set": [True]},
            severity="block",
            remedy="a test or val picture holds a class of which no training picture has an object;"
            " add training pictures of it, or remove it",
        ),
        drift_expectation(
            f"{thing} sizes as before",
            drift,
            data.max_drift,
            f"the spread of {thing} sizes",
            "see whether it comes from another camera or another annotator",
        ),
    ]


def _has_known_classes(manifest: "pd.DataFrame") -> list[bool]:
    classes = [set(read_counts(text)) for text in manifest["classes"]]
    training = manifest["split"] == "train"
    learnt = set[str]().union(*(each for each, is_training in zip(classes, training, strict=True) if is_training))
    return [each <= learnt for each in classes]
