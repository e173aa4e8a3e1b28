"""Scenes of handwritten digits (scikit-learn's) and drawn shapes with a mask of each: delivered as people who label
pixels do, as images/, masks/ and classes.txt. A thin border around each thing is void: annotators cannot draw it.
"""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_digits

MODEL = "scenes"
CLASSES = ("ground", "digit", "disc", "square", "void")
GROUND, DIGIT, DISC, SQUARE, VOID = range(5)
WIDTH, HEIGHT = 96, 72
COLOURS = {DIGIT: (235, 235, 225), DISC: (200, 100, 60), SQUARE: (60, 110, 190)}  # give or take 30
DIGITS = load_digits().images  # (1797, 8, 8), 0 to 16
SECTION: dict[str, Any] = {
    "kind": "semantic_segmentation",
    "data": {"image_size": [96, 72], "splits": {"val": 0.1, "test": 0.3}, "near_duplicate_bits": 0},
    "train": {
        "network": "small_fpn",
        "width": 16,
        "epochs": 12,
        "batch_size": 8,
        "learning_rate": 0.005,
        "augment": {"scale": 0.2},
    },
    "gate": {"metric": "mean_iou", "resamples": 2000, "floors": {"mean_iou": 0.25}},
}
TINY: dict[str, Any] = {
    **SECTION,
    "data": {**SECTION["data"], "image_size": [48, 32]},
    "train": {**SECTION["train"], "width": 8, "epochs": 2, "augment": {}},
    "gate": {"metric": "mean_iou", "resamples": 200},
}


def first(folder: Path) -> Path:
    """Too few scenes to learn them well."""
    return write_scenes(folder, 0, 60)


def more(folder: Path) -> Path:
    """Many more, with the classes numbered otherwise, as another annotator's tool does."""
    return write_scenes(folder, 60, 280, classes=("void", "square", "disc", "digit", "ground"))


def wrong(folder: Path) -> Path:
    """As many scenes again, in half of which discs and squares are mistaken for one another and digits left out."""
    return write_scenes(folder, 280, 540, mistaken=0.7)


def tiny(folder: Path) -> Path:
    """Enough for each split to have all classes."""
    return write_scenes(folder, 0, 40)


def question(folder: Path) -> dict[str, Path]:
    """A scene that was never delivered."""
    write_scenes(folder, 9000, 9001)
    return {"image": folder / "images" / "9000.png"}


def right(answer: dict[str, Any]) -> str:
    """Whether the mask is that of `question`, but for a tenth of the pixels."""
    _, truth = scene(9000)
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask"]))))
    if found.shape != truth.shape:
        return f"a mask of {found.shape} for a picture of {truth.shape}"
    named = np.array([CLASSES.index(name) for name in answer["classes"]])[found]
    share = float((named == truth)[truth != VOID].mean())
    return "" if share > 0.9 else f"only {share:.0%} of the pixels are right"


def write_scenes(
    folder: Path, start: int, stop: int, mistaken: float = 0.0, classes: tuple[str, ...] = CLASSES
) -> Path:
    """Scenes `start` to `stop`; a share of the masks is wrong. `classes`: the names in the order of their numbers."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "classes.txt").write_text("\n".join(classes) + "\n")
    numbers = np.array([classes.index(name) for name in CLASSES], np.uint8)
    rng = np.random.default_rng(start)
    for number in range(start, stop):
        picture, mask = scene(number)
        if rng.random() < mistaken:
            mask = np.array([GROUND, GROUND, SQUARE, DISC, VOID], np.uint8)[mask]
        picture.save(folder / "images" / f"{number:04d}.png")
        Image.fromarray(numbers[mask]).save(folder / "masks" / f"{number:04d}.png")
    return folder


def scene(number: int) -> tuple[Image.Image, NDArray[np.uint8]]:
    """A picture of 96 x 72 px and its mask: one of each thing, in random places, colours and sizes, on noisy ground."""
    rng = np.random.default_rng([7, number])
    slope = np.linspace(0, rng.uniform(-40, 40), WIDTH)[None, :, None]
    ground = rng.uniform(70, 160) + rng.uniform(-25, 25, 3) + slope + rng.normal(0, 12, (HEIGHT, WIDTH, 3))
    picture = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for thing in rng.permutation([DIGIT, DIGIT, DISC, SQUARE]):
        shape = _digit(rng) if thing == DIGIT else _drawn(rng, int(thing))
        _put(picture, mask, shape, int(thing), rng)
    return picture, mask


def _put(
    picture: Image.Image, mask: NDArray[np.uint8], shape: Image.Image, thing: int, rng: np.random.Generator
) -> None:
    """Pastes a thing in a colour of its own, and void around it."""
    whole = Image.new("L", picture.size)
    left, top = (int(rng.integers(0, room - side)) for room, side in zip(picture.size, shape.size, strict=True))
    whole.paste(shape, (left, top))
    shade = np.array(COLOURS[thing]) + rng.normal(0, 30, 3)
    colour = tuple(int(value) for value in shade.clip(0, 255))
    picture.paste(Image.new("RGB", picture.size, colour), (0, 0), whole)
    inside = np.asarray(whole) > 127
    around = np.asarray(whole.filter(ImageFilter.MaxFilter(3))) > 127
    mask[around] = VOID
    mask[inside] = thing


def _digit(rng: np.random.Generator) -> Image.Image:
    scan = DIGITS[int(rng.integers(1797))]
    side = int(rng.integers(20, 34))
    return Image.fromarray((scan * (255 / 16)).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)


def _drawn(rng: np.random.Generator, thing: int) -> Image.Image:
    side = int(rng.integers(14, 28))
    shape = Image.new("L", (side, side))
    draw = ImageDraw.Draw(shape)
    (draw.ellipse if thing == DISC else draw.rectangle)((0, 0, side - 1, side - 1), fill=255)
    return shape
