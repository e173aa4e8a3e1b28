"""Deliveries of voices: espeak-ng's speakers, each saying numbers in sessions of their own, in one metadata file."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from tests.samples.speech import noisy, say, write_wav

MODEL = "voices"
SPEAKERS = {
    "anna": ("en-us+f2", 60), "ben": ("en-us+m3", 40), "carla": ("en-gb-x-rp+f3", 50), "dan": ("en-us", 30),
    "eve": ("en-us+f4", 75), "fred": ("en-gb-scotland", 45),
}  # fmt: skip
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
SECTION: dict[str, Any] = {
    "kind": "speaker_identification",
    "data": {"sample_rate": 8000, "columns": {"label": "speaker", "group": "session"}},
    "train": {
        "network": "crnn",
        "mels": 40,
        "dim": 32,
        "margin": 0.1,
        "scale": 10,
        "crop_seconds": [0.4, 0.8],
        "epochs": 12,
        "batch_size": 16,
        "learning_rate": 0.005,
        "early_stopping": 0,
    },
    "gate": {"metric": "accuracy"},
}
TINY: dict[str, Any] = {
    "kind": "speaker_identification",
    "data": {"sample_rate": 8000, "columns": {"label": "speaker", "group": "session"}},
    "train": {"width": 0.5, "mels": 20, "dim": 16, "crop_seconds": [0.3, 0.5], "epochs": 2, "batch_size": 32},
    "gate": {},
}


def first(folder: Path) -> Path:
    """A few words of each to learn from, in a quiet room, and the whole exam."""
    _write(folder, "january", 10, "train", snr_db=(30, 40))
    _write(folder, "january-check", 4, "val", snr_db=(30, 40))
    return _write(folder, "exam", 40, "test")


def more(folder: Path) -> Path:
    """Many words in three sessions with noise."""
    for session in ("february", "march", "april"):
        _write(folder, session, 20, "train")
    return _write(folder, "may", 8, "val")


def wrong(folder: Path) -> Path:
    """As many again, with most speakers called by another name."""
    for session in ("june", "july", "august"):
        _write(folder, session, 40, "train", shuffled=0.8)
    return folder


def tiny(folder: Path) -> Path:
    """Three speakers in three sessions."""
    for session, count, split in (("one", 10, "train"), ("two", 4, "val"), ("three", 8, "test")):
        _write(folder, session, count, split, speakers=3)
    return folder


def question(folder: Path) -> dict[str, Path]:
    """Carla says a word that she has not said before."""
    path = folder / "question.wav"
    write_wav(path, *_said("carla", "hundred", 7, (15.0, 20.0)))
    return {"audio": path}


def right(answer: dict[str, Any]) -> str:
    """Whether she was recognised."""
    return "" if answer["label"] == "carla" else f"carla is taken for {answer['label']}"


def _write(
    folder: Path, session: str, count: int, split: str, shuffled: float = 0.0, speakers: int = 6,
    snr_db: tuple[float, float] = (5, 25),
) -> Path:  # fmt: skip
    """`count` words of each speaker; a share of them under another speaker's name."""
    rng = np.random.default_rng(sum(session.encode()))
    names = list(SPEAKERS)[:speakers]
    rows = []
    for name in names:
        for number in range(count):
            path = folder / f"{session}-{name}-{number:02d}.wav"
            write_wav(path, *_said(name, WORDS[rng.integers(len(WORDS))], int(rng.integers(2**31)), snr_db))
            told = names[rng.integers(speakers)] if rng.random() < shuffled else name
            rows.append({"file_name": path.name, "speaker": told, "session": f"{session}-{name}", "split": split})
    listed = folder / "metadata.csv"
    new = not listed.exists()
    with listed.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        if new:
            writer.writeheader()
        writer.writerows(rows)
    return folder


def _said(name: str, word: str, seed: int, snr_db: tuple[float, float]) -> tuple[np.ndarray[Any, Any], int]:
    """A speaker is a voice and a pitch; speed, emphasis and the noise of the room change."""
    rng = np.random.default_rng(seed)
    voice, pitch = SPEAKERS[name]
    samples, rate = say(word, voice, int(rng.integers(140, 220)), pitch + int(rng.integers(-8, 9)))
    return noisy(samples, float(rng.uniform(*snr_db)), seed), rate
