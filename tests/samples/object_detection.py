"""Deliveries of scenes put together from handwritten digits: several of several sizes on a noisy canvas, with boxes."""

import functools
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

NAMES = {0: "zero", 1: "one", 4: "four"}
WIDTH, HEIGHT = 128, 96  # px
SIZES = (20, 36)  # px of a digit, sides
Box = tuple[str, float, float, float, float]  # label, x1, y1, x2, y2

MODEL = "digit_scenes"
_DATA: dict[str, Any] = {
    "image_size": [WIDTH, HEIGHT],
    "splits": {"val": 0.15, "test": 0.3},
    "near_duplicate_bits": 0,
    "score_threshold": 0.4,
}
_LOOK: dict[str, Any] = {"horizontal_flip": False, "scale": 0.2, "shift": 0.1}
SECTION: dict[str, Any] = {
    "kind": "object_detection",
    "data": _DATA,
    "train": {
        "width": 16,
        "anchor": 24,
        "epochs": 20,
        "batch_size": 8,
        "learning_rate": 0.005,
        "ema_decay": 0.95,
        "early_stopping": 0,
        "augment": _LOOK,
    },
    "gate": {"metric": "map50", "floors": {"map50": 0.05}},
}
TINY: dict[str, Any] = {
    "kind": "object_detection",
    "data": {**_DATA, "score_threshold": 0.02, "max_boxes": 20},
    "train": {"width": 16, "epochs": 7, "batch_size": 4, "learning_rate": 0.01, "augment": _LOOK},
    "gate": {"metric": "map50"},
}


def first(folder: Path) -> Path:
    """130 scenes, as Pascal VOC."""
    return write_voc(folder, 0, 130)


def more(folder: Path) -> Path:
    """300 more, as COCO."""
    return write_coco(folder, 130, 430)


def wrong(folder: Path) -> Path:
    """200 whose boxes were drawn on a picture of half the size."""
    return write_voc(folder, 430, 630, scale=0.5)


def tiny(folder: Path) -> Path:
    """80 of them."""
    return write_voc(folder, 0, 80)


def question(folder: Path) -> dict[str, Path]:
    """A scene with one zero, large and in the middle."""
    folder.mkdir(parents=True, exist_ok=True)
    canvas = _canvas(np.random.default_rng(1))
    _put(canvas, _scans(0)[3], 48, 32, 32)
    Image.fromarray(canvas).save(folder / "zero.png")
    return {"image": folder / "zero.png"}


def right(answer: dict[str, Any]) -> str:
    """Whether the zero was found where it is."""
    objects = answer["objects"]
    if not objects or objects[0]["label"] != "zero":
        return f"a zero is found as {[found['label'] for found in objects]}"
    x1, y1, x2, y2 = objects[0]["box"]
    middle = (x1 + x2) / 2, (y1 + y2) / 2
    return "" if abs(middle[0] - 64) < 8 and abs(middle[1] - 48) < 8 else f"the zero at 64, 48 is found at {middle}"


def scenes(start: int, stop: int) -> list[tuple[str, NDArray[np.uint8], list[Box]]]:
    """Scenes number `start` to `stop`: name, (HEIGHT, WIDTH, 3) uint8, what is in it."""
    return [(f"scene-{number:04d}", *_scene(number)) for number in range(start, stop)]


def write_voc(folder: Path, start: int, stop: int, scale: float = 1.0) -> Path:
    """JPEGImages/ and Annotations/; boxes are written times `scale`."""
    for name in ("JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, picture, boxes in scenes(start, stop):
        Image.fromarray(picture).save(folder / "JPEGImages" / f"{name}.png")
        root = ElementTree.Element("annotation")
        ElementTree.SubElement(root, "filename").text = f"{name}.png"
        size = ElementTree.SubElement(root, "size")
        for side, value in (("width", WIDTH), ("height", HEIGHT), ("depth", 3)):
            ElementTree.SubElement(size, side).text = str(value)
        for label, *edges in boxes:
            thing = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(thing, "name").text = label
            box = ElementTree.SubElement(thing, "bndbox")
            x1, y1, x2, y2 = (round(edge * scale) for edge in edges)
            for edge, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):  # VOC counts from 1
                ElementTree.SubElement(box, edge).text = str(value)
        ElementTree.ElementTree(root).write(folder / "Annotations" / f"{name}.xml")
    return folder


def write_coco(folder: Path, start: int, stop: int) -> Path:
    """images/ and instances.json."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    numbers = {label: place for place, label in enumerate(NAMES.values(), 1)}
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    for number, (name, picture, boxes) in enumerate(scenes(start, stop)):
        Image.fromarray(picture).save(folder / "images" / f"{name}.png")
        content["images"].append({"id": number, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT})
        for label, x1, y1, x2, y2 in boxes:
            box = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": numbers[label]}
            content["annotations"].append(
                box | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            )
    content["categories"] = [{"id": number, "name": label} for label, number in numbers.items()]
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def _scene(number: int) -> tuple[NDArray[np.uint8], list[Box]]:
    """One to four digits that do not touch; in every tenth scene none."""
    random = np.random.default_rng([7, number])
    canvas, boxes = _canvas(random), list[Box]()
    wanted = 0 if number % 10 == 9 else int(random.integers(1, 5))
    for _ in range(8 * wanted):
        side = int(random.integers(*SIZES))
        x, y = int(random.integers(0, WIDTH - side)), int(random.integers(0, HEIGHT - side))
        apart = all(x >= x2 or x + side <= x1 or y >= y2 or y + side <= y1 for _, x1, y1, x2, y2 in boxes)
        if apart and len(boxes) < wanted:
            digit = int(random.choice(list(NAMES)))
            scans = _scans(digit)
            left, top, right, bottom = _put(canvas, scans[int(random.integers(len(scans)))], x, y, side)
            boxes.append((NAMES[digit], left, top, right, bottom))
    return canvas, boxes


def _canvas(random: np.random.Generator) -> NDArray[np.uint8]:
    """Noise on a shade that slowly changes."""
    left, right = random.uniform(20, 90, 2)
    slope = np.linspace(left, right, WIDTH)[None, :, None] + random.uniform(-20, 20, 3)
    return np.clip(slope + random.normal(0, 12, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)


def _put(canvas: NDArray[np.uint8], scan: NDArray[np.float64], x: int, y: int, side: int) -> tuple[int, ...]:
    """Draws an 8 x 8 scan (0 to 16) with sides of `side` px at x, y; the edges of its ink."""
    ink = Image.fromarray((scan * (255 / 16)).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    cover = np.asarray(ink)
    part = canvas[y : y + side, x : x + side]
    part[:] = np.maximum(part, cover[:, :, None])
    rows, columns = np.flatnonzero((cover > 96).any(axis=1)), np.flatnonzero((cover > 96).any(axis=0))
    return x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1


@functools.cache
def _scans(digit: int) -> NDArray[np.float64]:
    data = load_digits()
    return np.asarray(data.images[data.target == digit])
