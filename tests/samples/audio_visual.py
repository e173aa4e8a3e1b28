"""Deliveries of digits that are seen and heard: scikit-learn's scans beside spoken digits, in one metadata file."""

import csv
import functools
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from tests.digits import NAMES
from tests.samples.speech import noisy, say, write_wav

MODEL = "seen_and_heard"
VOICES = ("en-us", "en-gb-scotland", "en-us+f2", "en-us+m3", "en-gb-x-rp+f3", "en-us+f4")
SECTION: dict[str, Any] = {
    "kind": "audio_visual",
    "data": {"image_size": 16, "min_side": 8, "near_duplicate_bits": 0, "sample_rate": 8000, "clip_seconds": 0.8},
    "train": {"audio_network": "crnn", "epochs": 10, "batch_size": 20, "learning_rate": 0.003, "early_stopping": 0},
    "gate": {"metric": "accuracy"},
}
TINY: dict[str, Any] = {
    "kind": "audio_visual",
    "data": {"image_size": 8, "sample_rate": 8000, "clip_seconds": 0.5, "near_duplicate_bits": 0},
    "train": {"image_width": 8, "audio_width": 0.5, "mels": 20, "fusion": 16, "epochs": 2, "batch_size": 32},
    "gate": {},
}


def first(folder: Path) -> Path:
    """60 digits to learn from, far too few, and the whole exam."""
    _write(folder, 0, 60, "train")
    _write(folder, 60, 80, "val")
    return _write(folder, 80, 380, "test")


def more(folder: Path) -> Path:
    """600 more to learn from."""
    _write(folder, 380, 900, "train")
    return _write(folder, 900, 980, "val")


def wrong(folder: Path) -> Path:
    """As many again, most of them called another digit."""
    return _write(folder, 980, 1700, "train", shuffled=0.8)


def tiny(folder: Path) -> Path:
    """96 of them, some without their picture, some without their sound."""
    _write(folder, 0, 50, "train")
    _write(folder, 50, 66, "val")
    return _write(folder, 66, 96, "test")


def question(folder: Path) -> dict[str, Path]:
    """A scan and a recording of a five."""
    number = next(number for number in range(1700, 1797) if _label(number) == "five")
    return {"image": _scan(folder, number), "audio": _recording(folder, number)}


def right(answer: dict[str, Any]) -> str:
    """Whether it was understood as one."""
    return "" if answer["label"] == "five" else f"a five is understood as {answer['label']}"


def _write(folder: Path, start: int, stop: int, split: str, shuffled: float = 0.0) -> Path:
    """Digits `start` to `stop`; every tenth lacks its picture, every tenth its sound."""
    rng = np.random.default_rng(start)
    rows = []
    for number in range(start, stop):
        image = "" if number % 10 == 3 else _scan(folder, number).name
        audio = "" if number % 10 == 7 else _recording(folder, number).name
        label = NAMES[rng.integers(10)] if rng.random() < shuffled else _label(number)
        rows.append({"image": image, "audio": audio, "label": label, "split": split})
    path = folder / "metadata.csv"
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image", "audio", "label", "split"])
        if new:
            writer.writeheader()
        writer.writerows(rows)
    return folder


@functools.cache
def _digits() -> Any:
    return load_digits()


def _label(number: int) -> str:
    return NAMES[_digits().target[number]]


def _scan(folder: Path, number: int) -> Path:
    """Half as dark as it was and with noise, so that it takes the sound to be sure."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:04d}.png"
    noise = np.random.default_rng(number).normal(0, 40, (8, 8))
    Image.fromarray(np.clip(_digits().images[number] * 8 + 60 + noise, 0, 255).astype(np.uint8)).save(path)
    return path


def _recording(folder: Path, number: int) -> Path:
    rng = np.random.default_rng(number)
    voice, speed, pitch = VOICES[rng.integers(len(VOICES))], int(rng.integers(140, 220)), int(rng.integers(30, 70))
    samples, rate = say(_label(number), voice, speed, pitch)
    path = folder / f"{number:04d}.wav"
    write_wav(path, noisy(samples, float(rng.uniform(0, 15)), number), rate)
    return path
