"""Annotated pictures of a manifest, for training and scoring detectors: canvases, truth, classes."""

from collections import Counter
from pathlib import Path

import pandas as pd

from models.common.data.batches import iter_payloads
from models.common.data.class_counts import read_counts
from models.common.data.decoded_cache import Decoded, decoded
from models.common.errors import UserError
from models.common.image.letterbox import Canvas
from models.common.objects.annotations import Annotation, parse_target
from models.common.objects.params import ObjectData
from models.common.params import DataParams


def canvas_of(data: ObjectData) -> Canvas:
    """The network's input, as the `data` section says."""
    return Canvas(*data.size, data.keep_aspect, data.max_pixels)


def canvases(manifest: pd.DataFrame, batches: Path, home: Path, canvas: Canvas) -> Decoded:
    """The manifest's pictures, (height, width, 3) uint8 RGB each, by position. UserError where one does not decode."""
    mode = "letterbox" if canvas.keep_aspect else "resized"
    name = f"{mode}{canvas.width}x{canvas.height}"
    return decoded(batches, manifest, home, name, (canvas.height, canvas.width, 3), canvas.pixels)


def annotations(manifest: pd.DataFrame, batches: Path) -> list[Annotation]:
    """What is in the manifest's pictures, in its order."""
    annotation_of: dict[tuple[str, int], Annotation] = {}
    for name, rows in manifest.groupby("batch")["row"]:
        rows_in_batch = set(rows)
        for row, target in enumerate(iter_payloads(batches, str(name), "target")):
            if row in rows_in_batch:
                annotation_of[str(name), row] = parse_target(target)
    return [annotation_of[batch, row] for batch, row in zip(manifest["batch"], manifest["row"], strict=True)]


def object_labels(manifest: pd.DataFrame, data: DataParams) -> tuple[str, ...]:
    """The classes, in the order of the network's: `data.labels`, or all that the training split holds, sorted.

    Raises UserError where there is none, where one has too few objects, where val holds another one, and where nothing
    is left to validate with.
    """
    splits = {name: _counts(rows) for name, rows in manifest.groupby("split")}
    trained, validated = splits.get("train", Counter()), splits.get("val", Counter())
    labels = data.labels or tuple(sorted(trained))
    if not labels:
        raise UserError("Training needs objects; no training picture has any. Add annotated pictures")
    too_few = [f"'{label}' has {trained[label]}" for label in labels if trained[label] < data.min_per_class]
    if too_few:
        raise UserError(
            f"Too few training objects: {', '.join(too_few[:5])}; data.min_per_class is {data.min_per_class}."
            " Add more, or remove the class"
        )
    unknown = (set(trained) | set(validated)) - set(labels)
    if unknown:
        raise UserError(
            f"Class '{min(unknown)}' is in the data but has no training object or is not in data.labels"
            f" ({', '.join(labels)}). Add training pictures of it, or remove it"
        )
    if not validated:
        raise UserError(
            "No picture of the validation split has an object, so the best epoch cannot be selected."
            " Raise data.splits.val before adding data, or add some with --split val"
        )
    return labels


def _counts(rows: pd.DataFrame) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in rows["classes"]:
        counts.update(read_counts(text))
    return counts
