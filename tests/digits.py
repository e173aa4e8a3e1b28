"""The handwritten digits that ship inside scikit-learn (real scans, 8 x 8 px), as class folders."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_digits(folder: Path, start: int, stop: int, shuffled: float = 0.0) -> Path:
    """Digits `start` to `stop` of the 1,797 as PNG files in class folders; a share gets another digit's label."""
    data = load_digits()
    labels = data.target.copy()
    rng = np.random.default_rng(start)
    wrong = rng.random(len(labels)) < shuffled
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, wrong.sum())) % 10
    for index in range(start, stop):
        path = folder / NAMES[labels[index]] / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((data.images[index] * (255 / 16)).astype(np.uint8)).save(path)
    return folder
