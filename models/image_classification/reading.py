"""Photos as data: which files are examples, what is recorded of each, and what is checked over all of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from models.common.data.sources import Source, labelled_files
from models.common.image.checks import inspect_image, photo_expectations
from models.common.image.decoding import EXTENSIONS
from models.common.kind import Example, Expectation
from models.image_classification.params import ImageData

if TYPE_CHECKING:
    import pandas as pd


def examples(source: Source, data: ImageData) -> Iterator[Example]:
    """Class folders, or files beside a metadata file."""
    return labelled_files(source, EXTENSIONS, data.columns)


def inspect(example: Example, data: ImageData) -> dict[str, Any]:
    """width and height in px as shown (after EXIF rotation) and the perceptual hash, from decoding it whole.

    Raises BadExampleError with the reason.
    """
    return inspect_image(example.payload, data)


def expectations(data: ImageData, manifest: "pd.DataFrame") -> list[Expectation]:
    """Sizes, near-duplicates across splits, drift of sizes. Adds the columns that they look at to `manifest`."""
    return photo_expectations(data, manifest)
