"""Scenes of handwritten digits that overlap, annotated as COCO JSON: polygons where a digit has no hole, else run
lengths, as a list or as text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from models.common.objects.masks import encode, outlines

MODEL = "overlapping_digits"
SECTION: dict[str, Any] = {
    "kind": "instance_segmentation",
    "data": {"image_size": 96, "near_duplicate_bits": 0, "splits": {"val": 0.1, "test": 0.3}},
    "train": {
        "width": 16,
        "anchor": 16,
        "epochs": 12,
        "batch_size": 4,
        "learning_rate": 0.002,
        "early_stopping": 0,
        "augment": {"horizontal_flip": False},
    },
    "gate": {"metric": "map", "floors": {"map50": 0.2}, "resamples": 2000},
}
TINY: dict[str, Any] = {
    "kind": "instance_segmentation",
    "data": {"image_size": 64, "near_duplicate_bits": 0, "splits": {"val": 0.15, "test": 0.3}, "score_threshold": 0.06},
    "train": {"width": 8, "anchor": 16, "epochs": 2, "batch_size": 4, "learning_rate": 0.003, "warmup_epochs": 0.5},
    "gate": {"resamples": 500},
}
CLASSES = {0: "zero", 1: "one", 4: "four"}
SIZE = (112, 84)  # px of a scene
Pixels = NDArray[np.uint8]


def first(folder: Path) -> Path:
    """40 scenes."""
    return write_scenes(folder, 0, 40)


def more(folder: Path) -> Path:
    """160 more."""
    return write_scenes(folder, 40, 200)


def wrong(folder: Path) -> Path:
    """80 in which a digit is called by any name."""
    return write_scenes(folder, 1000, 1080, mistaken=True)


def tiny(folder: Path) -> Path:
    """36 scenes."""
    return write_scenes(folder, 0, 36)


def question(folder: Path) -> dict[str, Path]:
    """One scene with a single large four."""
    path = folder / "four.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture, _ = scene(5000, (4,))
    Image.fromarray(picture).save(path)
    return {"image": path}


def right(answer: dict[str, Any]) -> str:
    """Whether the four was found."""
    found = [one["label"] for one in answer["objects"]]
    return "" if found[:1] == ["four"] else f"a four is read as {found}"


def write_scenes(folder: Path, start: int, end: int, mistaken: bool = False) -> Path:
    """Scenes `start` to `end` as images/*.png and annotations.json."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names, chance = list(CLASSES.values()), np.random.default_rng(0)
    for number in range(start, end):
        picture, objects = scene(number)
        name = f"{number:05d}.png"
        Image.fromarray(picture).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for digit, mask in objects:
            category = int(chance.integers(len(names))) if mistaken else names.index(CLASSES[digit])
            annotations.append(
                annotation(len(annotations) + 1, number, mask) | {"category_id": 1 + (category + mistaken) % len(names)}
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def annotation(number: int, image: int, mask: NDArray[np.bool_]) -> dict[str, Any]:
    """As COCO has it; what has several outlines (holes, parts) cannot be polygons."""
    rle, lines = encode(mask), outlines(mask)
    x1, y1, x2, y2 = rle.box
    segmentation: Any = rle.coco
    if len(lines) == 1:
        segmentation = [[edge for corner in lines[0] for edge in corner]]
    elif number % 2:
        segmentation = {"size": list(mask.shape), "counts": rle.runs.tolist()}
    box = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": rle.area}
    return {"id": number, "image_id": image, "iscrowd": 0, "segmentation": segmentation} | box


def scene(number: int, digits: tuple[int, ...] = ()) -> tuple[Pixels, list[tuple[int, NDArray[np.bool_]]]]:
    """Picture number `number`, always the same: (84, 112, 3), and of each digit in it what can be seen of it."""
    random = np.random.default_rng(number)
    data = load_digits()
    wanted = digits or tuple(random.choice(list(CLASSES), random.integers(2, 5)))
    width, height = SIZE
    picture = random.normal(random.uniform(20, 80, 3), 8, (height, width, 3))
    objects: list[tuple[int, NDArray[np.bool_]]] = []
    for digit in wanted:
        side = int(random.integers(30, 50))
        scan = data.images[random.choice(np.flatnonzero(data.target == digit))]
        drawn = Image.fromarray((scan * 15.9).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        left, top = int(random.integers(0, width - side)), int(random.integers(0, height - side))
        mask = np.zeros((height, width), bool)
        mask[top : top + side, left : left + side] = np.asarray(drawn) > 100
        picture[mask] = random.uniform(120, 255, 3) + random.normal(0, 8, (mask.sum(), 3))
        objects = [(before, seen & ~mask) for before, seen in objects] + [(digit, mask)]
    seen = [(digit, mask) for digit, mask in objects if mask.sum() > 60]
    return np.clip(picture, 0, 255).astype(np.uint8), seen
