"""Deliveries of handwritten digits, scanned: what `make demo` tells its story with."""

from pathlib import Path
from typing import Any

from tests.digits import write_digits

MODEL = "digits"
SECTION: dict[str, Any] = {
    "kind": "image_classification",
    "data": {"image_size": 16, "min_side": 8, "near_duplicate_bits": 0, "splits": {"val": 0.1, "test": 0.3}},
    "train": {"network": "small_cnn", "width": 16, "epochs": 15, "batch_size": 32, "learning_rate": 0.003},
    "gate": {"metric": "accuracy", "floors": {"accuracy": 0.8}},
}
TINY: dict[str, Any] = {
    "kind": "image_classification",
    "data": {"image_size": 8, "splits": {"val": 0.1, "test": 0.3}},
    "train": {"network": "small_cnn", "width": 8, "epochs": 3, "batch_size": 32, "learning_rate": 0.01},
    "gate": {},
}


def first(folder: Path) -> Path:
    """120 scans in class folders."""
    return write_digits(folder, 0, 120)


def more(folder: Path) -> Path:
    """900 more."""
    return write_digits(folder, 120, 1020)


def wrong(folder: Path) -> Path:
    """The rest, most of them in another digit's folder."""
    return write_digits(folder, 1020, 1797, shuffled=0.7)


def tiny(folder: Path) -> Path:
    """200 of them."""
    return write_digits(folder, 0, 200)


def question(folder: Path) -> dict[str, Path]:
    """A scan of a five."""
    return {"image": sorted((write_digits(folder, 120, 200) / "five").glob("*.png"))[0]}


def right(answer: dict[str, Any]) -> str:
    """Whether it was read as one."""
    return "" if answer["label"] == "five" else f"a five is read as {answer['label']}"
