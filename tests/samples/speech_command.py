"""Deliveries of spoken orders: espeak-ng's voices saying one word each, in one metadata file."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.samples.speech import VOICES, noisy, say, write_wav

MODEL = "orders"
WORDS = ("yes", "no", "stop", "go", "left", "right")
SECTION: dict[str, Any] = {
    "kind": "speech_command",
    "data": {"sample_rate": 8000},
    "train": {"width": 0.5, "epochs": 12, "batch_size": 32, "learning_rate": 0.004, "early_stopping": 0},
    "gate": {"metric": "accuracy", "slices": ["accent"]},
}
TINY: dict[str, Any] = {
    "kind": "speech_command",
    "data": {"sample_rate": 8000},
    "train": {"width": 0.25, "mels": 20, "epochs": 3, "batch_size": 32, "learning_rate": 0.004},
    "gate": {},
}


def first(folder: Path) -> Path:
    """A few orders by five voices in a quiet room, and the whole exam: all voices, with noise."""
    write_orders(folder, "office", 16, "train", VOICES[:5], (30, 40))
    write_orders(folder, "office-check", 4, "val", VOICES[:5], (30, 40))
    return write_orders(folder, "exam", 30, "test")


def more(folder: Path) -> Path:
    """Many more by all voices."""
    write_orders(folder, "street", 50, "train")
    return write_orders(folder, "street-check", 10, "val")


def wrong(folder: Path) -> Path:
    """As many again, most of them with the label of the order before: two columns of a table were sorted apart."""
    return write_orders(folder, "mislabelled", 90, "train", mistaken=0.9)


def tiny(folder: Path) -> Path:
    """Three orders."""
    for number, (count, split) in enumerate(((16, "train"), (4, "val"), (8, "test"))):
        write_orders(folder, f"tiny-{number}", count, split, words=WORDS[:3])
    return folder


def question(folder: Path) -> dict[str, Path]:
    """Somebody says stop."""
    samples, rate = say("stop", VOICES[7], 160, 55)
    write_wav(folder / "question.wav", noisy(samples, 25, 1), rate)
    return {"audio": folder / "question.wav"}


def right(answer: dict[str, Any]) -> str:
    """Whether that was heard."""
    return "" if answer["label"] == "stop" else f"stop is heard as {answer['label']}"


def write_orders(
    folder: Path, name: str, count: int, split: str, voices: list[str] = VOICES,
    snr_db: tuple[float, float] = (5, 30), mistaken: float = 0.0, words: tuple[str, ...] = WORDS,
) -> Path:  # fmt: skip
    """`count` recordings of each word beside those that are there; a share under the name of the word before."""
    rng = np.random.default_rng(sum(name.encode()))
    rows = []
    for word in words:
        for number in range(count):
            voice = voices[int(rng.integers(len(voices)))]
            samples, rate = _said(word, voice, snr_db, rng)
            write_wav(folder / f"{name}-{word}-{number}.wav", samples, rate)
            told = words[words.index(word) - 1] if rng.random() < mistaken else word
            row = {"file_name": f"{name}-{word}-{number}.wav", "label": told, "split": split}
            rows.append(row | {"speaker": voice, "accent": voice.split("+")[0]})
    path = folder / "metadata.csv"
    begun = path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if not begun:
            writer.writeheader()
        writer.writerows(rows)
    return folder


def _said(
    word: str, voice: str, snr_db: tuple[float, float], rng: np.random.Generator
) -> tuple[NDArray[np.int16], int]:
    speed, pitch = int(rng.integers(130, 220)), int(rng.integers(20, 80))
    samples, rate = say(word, voice, speed, pitch)
    return noisy(samples, float(rng.uniform(*snr_db)), int(rng.integers(2**31))), rate
