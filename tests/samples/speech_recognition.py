"""Spoken orders ("blue circle, four"), by voices of espeak-ng: what `make demo KIND=speech_recognition` learns.

The first delivery has two voices to learn from, and all six to be tested on; the second brings the other four.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.samples.speech import noisy, say, write_wav

MODEL = "spoken_orders"
SECTION: dict[str, Any] = {
    "kind": "speech_recognition",
    "data": {"sample_rate": 8000, "max_seconds": 10},
    "train": {
        "network": "cnn_bilstm", "width": 64, "layers": 1, "channels": 12, "mels": 32, "epochs": 24, "batch_size": 16,
        "learning_rate": 0.006, "warmup_epochs": 2, "dropout": 0.1, "early_stopping": 0,
        "augment": {"noise": 0.2, "time_masks": 0},
    },
    "gate": {"metric": "word_error_rate", "slices": ["voice"]},
}  # fmt: skip
TINY: dict[str, Any] = {
    "kind": "speech_recognition",
    "data": {"sample_rate": 8000, "max_seconds": 10},
    "train": {
        "network": "cnn_bigru", "width": 16, "layers": 1, "channels": 4, "mels": 24, "epochs": 2, "batch_size": 8,
        "learning_rate": 0.01, "warmup_epochs": 0.5,
    },
    "gate": {"metric": "word_error_rate"},
}  # fmt: skip
COLOURS = ("red", "blue", "green", "white")
SHAPES = ("circle", "square", "star", "line")
NUMBERS = ("one", "two", "three", "four", "five", "six")
KNOWN = ("en-us", "en-us+m3")
ALL = (*KNOWN, "en-us+f3", "en-us+f2", "en-gb-scotland", "en-gb-x-rp+m3")
NEW = ALL[len(KNOWN) :]
ASKED = "blue circle four"


def first(folder: Path) -> Path:
    """Two voices to train on, six to be tested on."""
    rows = [("train", 200, KNOWN), ("val", 40, KNOWN), ("test", 120, ALL)]
    return _write(folder, 1, rows)


def more(folder: Path) -> Path:
    """The four other voices to train on."""
    return _write(folder, 2, [("train", 240, NEW), ("val", 20, NEW)])


def wrong(folder: Path) -> Path:
    """Recordings whose transcripts are another one's."""
    return _write(folder, 3, [("train", 440, ALL)], shuffled=True)


def tiny(folder: Path) -> Path:
    """As few as go through the chain."""
    return _write(folder, 4, [("train", 40, KNOWN), ("val", 8, KNOWN), ("test", 12, KNOWN)])


def question(folder: Path) -> dict[str, Path]:
    """An order in a voice that the model has learnt."""
    samples, rate = say(ASKED, KNOWN[0])
    write_wav(folder / "order.wav", samples, rate)
    return {"audio": folder / "order.wav"}


def right(answer: dict[str, Any]) -> str:
    """Text and the words in their order."""
    said = [word["word"] for word in answer["words"]]
    starts = [word["start"] for word in answer["words"]]
    if answer["text"] != ASKED or said != ASKED.split():
        return f"'{answer['text']}' instead of '{ASKED}'"
    return "" if starts == sorted(starts) else f"words start at {starts}"


def _write(folder: Path, seed: int, wanted: Sequence[tuple[str, int, tuple[str, ...]]], shuffled: bool = False) -> Path:
    """WAV files beside metadata.csv; of each split so many sentences by those voices in turn."""
    rng = np.random.default_rng(seed)
    rows = []
    for split, count, voices in wanted:
        for number in range(count):
            text = " ".join([rng.choice(COLOURS), rng.choice(SHAPES), rng.choice(NUMBERS)][: rng.integers(1, 4)])
            voice = voices[number % len(voices)]
            samples, rate = say(text, voice, speed=int(rng.integers(180, 240)), pitch=int(rng.integers(35, 65)))
            name = f"{split}-{seed}-{number:03d}.wav"
            write_wav(folder / name, noisy(samples, rng.uniform(20, 40), number), rate)
            rows.append([name, text, voice, split])
    if shuffled:
        texts = rng.permutation([row[1] for row in rows])
        rows = [[name, str(text), voice, split] for (name, _, voice, split), text in zip(rows, texts, strict=True)]
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "transcript", "voice", "split"], *rows])
    return folder
