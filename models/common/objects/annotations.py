"""Objects in pictures: the one form in which every kind that finds objects keeps what is in a picture.

A target is JSON, always the same bytes for the same objects:

    {"width": 640, "height": 480, "objects": [{"label": "cat", "box": [x1, y1, x2, y2], "crowd": false,
     "difficult": false, "mask": {"size": [480, 640], "counts": "…"}}]}

Boxes are in px of the picture as it is shown, edges and not pixel numbers: x from 0 to the width, x2 - x1 is the width
of the box. `crowd`: many objects in one region (COCO); `difficult`: not to be counted (Pascal VOC). Neither is learnt,
and a detection that falls on one is neither right nor wrong. `mask` (COCO's run lengths) is there where they are read.

Pascal VOC counts pixels from 1 and includes the last one: its xmin 1, xmax 640 is 0 to 640 here (voc.py).
COCO's x, y, width, height are edges already (coco.py).
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.common.errors import BadExampleError
from models.common.objects.masks import Rle, read_rle

MAX_OVERHANG = 2.0  # px by which a box may leave the picture and is clipped; tools round in different ways
DIGITS = 3  # of a coordinate


@dataclass(frozen=True)
class Object:
    """One object as delivered."""

    label: str
    box: tuple[float, float, float, float]  # x1, y1, x2, y2
    crowd: bool = False
    difficult: bool = False
    mask: Rle | None = None


@dataclass(frozen=True, eq=False)
class Annotation:
    """What is in one picture of width x height px. All but the sizes have one item per object."""

    width: int
    height: int
    labels: tuple[str, ...]
    boxes: NDArray[np.float64]  # (N, 4): x1, y1, x2, y2
    crowd: NDArray[np.bool_]  # (N,)
    difficult: NDArray[np.bool_]  # (N,)
    masks: tuple[Rle | None, ...]

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """(N,): objects that are neither learnt nor counted."""
        return self.crowd | self.difficult

    @property
    def counts(self) -> dict[str, int]:
        """How many objects of each class, those that are ignored left out."""
        return dict(Counter(label for label, ignored in zip(self.labels, self.ignored, strict=True) if not ignored))


def write_target(width: int, height: int, objects: Sequence[Object]) -> bytes:
    """The target's JSON: the same bytes for the same objects in the same order."""
    content = {"width": width, "height": height, "objects": [_to_json(one) for one in objects]}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def parse_target(target: bytes) -> Annotation:
    """What `write_target` wrote, with boxes clipped that leave the picture by up to MAX_OVERHANG px.

    BadExampleError where it is nothing of the kind.
    """
    try:
        content = json.loads(target)
        objects = [_from_json(one) for one in content["objects"]]
        width, height = int(content["width"]), int(content["height"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadExampleError(f"not a target with width, height and objects: {error}") from None
    boxes = np.array([one.box for one in objects], np.float64).reshape(-1, 4)
    return Annotation(
        width,
        height,
        tuple(one.label for one in objects),
        _clipped(boxes, width, height),
        np.array([one.crowd for one in objects], bool),
        np.array([one.difficult for one in objects], bool),
        tuple(one.mask for one in objects),
    )


def check_objects(annotation: Annotation, image_size: tuple[int, int], data_labels: Sequence[str] | None) -> None:
    """BadExampleError where the annotation is not one of a picture of that (width, height) and of those labels."""
    if (annotation.width, annotation.height) != image_size:
        raise BadExampleError(
            f"annotated as {annotation.width} x {annotation.height} px, but the picture has"
            f" {image_size[0]} x {image_size[1]}"
        )
    for number, (label, box) in enumerate(zip(annotation.labels, annotation.boxes, strict=True), 1):
        if data_labels is not None and label not in data_labels:
            raise BadExampleError(
                f"object {number} is a '{label}', which is not one of data.labels ({', '.join(data_labels)})"
            )
        problem = _box_problem(box, image_size)
        if problem:
            raise BadExampleError(f"object {number} ('{label}'): its box {_format_box(box)} {problem}")


def _box_problem(box: NDArray[np.float64], image_size: tuple[int, int]) -> str:
    x1, y1, x2, y2 = box.tolist()
    if not np.isfinite(box).all():
        return "is not of finite numbers"
    if x1 > x2 or y1 > y2:
        return "is inverted; x1 must be below x2, and y1 below y2"
    if x1 == x2 or y1 == y2:
        return "has no area"
    if x1 < 0 or y1 < 0 or x2 > image_size[0] or y2 > image_size[1]:
        return f"leaves the picture of {image_size[0]} x {image_size[1]} px by more than {MAX_OVERHANG:g} px"
    return ""


def parse_number(value: Any, name: str) -> float:
    """A finite number found in a file. BadExampleError, naming `name`, where it is none."""
    try:
        parsed = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        parsed = math.nan
    if not math.isfinite(parsed):
        raise BadExampleError(f"{name} is {str(value)[:40]!r}, not a number")
    return parsed


def _clipped(boxes: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Edges that are outside by up to MAX_OVERHANG px, onto the edge of the picture; those further out stay."""
    inside = np.clip(boxes, 0, [width, height, width, height])
    return np.where(np.abs(boxes - inside) <= MAX_OVERHANG, inside, boxes)


def _to_json(one: Object) -> dict[str, Any]:
    content: dict[str, Any] = {"label": one.label, "box": [_rounded(edge) for edge in one.box]}
    content |= {"crowd": one.crowd, "difficult": one.difficult}
    return content | ({"mask": one.mask.coco} if one.mask else {})


def _from_json(content: Mapping[str, Any]) -> Object:
    x1, y1, x2, y2 = (float(edge) for edge in content["box"])
    mask = read_rle(content["mask"]) if "mask" in content else None
    return Object(str(content["label"]), (x1, y1, x2, y2), bool(content["crowd"]), bool(content["difficult"]), mask)


def _rounded(value: float) -> float | int:
    rounded = round(value, DIGITS)
    return int(rounded) if rounded == int(rounded) else rounded


def _format_box(box: NDArray[np.float64]) -> str:
    return f"({', '.join(f'{edge:g}' for edge in box)})"
