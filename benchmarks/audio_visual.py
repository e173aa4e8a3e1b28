"""Digits that are seen and heard: what each half is worth, and what a missing one costs. docs/audio_visual.md shows it.

    python -m benchmarks.audio_visual ../shared/data/fsdd

Real recordings of the Free Spoken Digit Dataset, each beside a scan of the same digit from scikit-learn, made as hard
to read by noise as the recordings are by theirs, so that neither half is enough. Takes 0 to 4 are the test, with scans
that no training example has. Three models of the same budget: of both halves, of pictures alone, of sounds alone.
"""

import argparse
import csv
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.connected_digits import RATE, read_clips
from models.common.kind import AnyTrainJob, ScoreJob, load_kind
from tests.delivered import job, write_batches
from tests.digits import NAMES
from tests.samples.speech import noisy, write_wav

TAKES = {"train": range(8, 28), "val": range(5, 8), "test": range(5)}
SCAN_NOISE = 110.0  # standard deviation, of 255
SOUND_NOISE_DB = -2.0  # signal to noise
DATA: dict[str, Any] = {
    "image_size": 16,
    "min_side": 8,
    "near_duplicate_bits": 0,
    "sample_rate": RATE,
    "clip_seconds": 0.7,
}
TRAIN = {"epochs": 12, "batch_size": 64, "learning_rate": 0.003, "audio_network": "crnn", "early_stopping": 0}
INPUTS = ("both", "pictures", "sounds")
METRIC_OF_INPUT = {"both": "accuracy_both", "pictures": "accuracy_image_only", "sounds": "accuracy_audio_only"}


def main() -> None:
    """Trains the three models and prints what each answers to what."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = write_pairs(arguments.data.resolve(), Path(folder) / "pairs")
        for seed in range(arguments.seeds):
            accuracies = {
                inputs: _accuracies(Path(folder) / f"{inputs}{seed}", source, inputs, seed) for inputs in INPUTS
            }
            print(f"seed {seed}", flush=True)
            print("\n".join(_lines(accuracies)), flush=True)


def write_pairs(data: Path, folder: Path) -> Path:
    """The delivery: a recording and a scan of its digit on each row of metadata.csv; the same every time."""
    rng = np.random.default_rng(0)
    scans = _scans(rng)
    folder.mkdir(parents=True)
    rows = []
    for (speaker, digit, take), samples in sorted(read_clips(data).items()):
        split = next((split for split, takes in TAKES.items() if take in takes), None)
        if split:
            name = f"{digit}-{speaker}-{take:02d}"
            write_wav(folder / f"{name}.wav", noisy(samples, SOUND_NOISE_DB, take), RATE)
            candidates = scans[split][digit]
            (folder / f"{name}.png").write_bytes(_noisy_scan(candidates[rng.integers(len(candidates))], rng))
            rows.append([f"{name}.png", f"{name}.wav", NAMES[digit], split, speaker])
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "audio", "label", "split", "speaker"], *rows])
    return folder


def _scans(rng: np.random.Generator) -> dict[str, dict[int, NDArray[np.float64]]]:
    """Split -> digit -> (n, 8, 8): no scan is in two splits."""
    digits = load_digits()
    parts = dict(zip(("test", "val", "train"), np.split(rng.permutation(len(digits.target)), [400, 600]), strict=True))
    return {
        split: {digit: digits.images[positions[digits.target[positions] == digit]] for digit in range(10)}
        for split, positions in parts.items()
    }


def _noisy_scan(scan: NDArray[np.float64], rng: np.random.Generator) -> bytes:
    pixels = np.clip(scan * 255 / 16 + rng.normal(0, SCAN_NOISE, scan.shape), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


def _accuracies(root: Path, source: Path, inputs: str, seed: int) -> dict[str, float]:
    """A model of both halves, or of only one of them, scored with every input that it can take."""
    kind = load_kind("audio_visual")
    data = kind.Data(**DATA)
    batches = write_batches(root, kind, data, source)
    training = job(root, batches, kind, data, **TRAIN, seed=seed)
    test = training.manifest[training.manifest["split"] == "test"].reset_index(drop=True)
    kind.train(_without_part(training, inputs))
    table = kind.score(ScoreJob(training.out / "program", test, batches, training.home))
    return kind.summary(table, ())


def _without_part(training: AnyTrainJob, inputs: str) -> AnyTrainJob:
    """The same, marked as if one half of nearly every example is missing; two rows keep it, as the kind needs."""
    if inputs != "both":
        manifest: pd.DataFrame = training.manifest
        complete = manifest.groupby("split").cumcount() < 2
        manifest["parts"] = manifest["parts"].where(complete, "image" if inputs == "pictures" else "audio")
    return training


def _lines(accuracies: dict[str, dict[str, float]]) -> list[str]:
    lines = ["| learnt from | given both | with the picture alone | with the sound alone |", "|---|---|---|---|"]
    for inputs, scores in accuracies.items():
        shown = METRIC_OF_INPUT if inputs == "both" else {inputs: METRIC_OF_INPUT[inputs]}
        cells = [f"{scores[METRIC_OF_INPUT[name]]:.4f}" if name in shown else "" for name in METRIC_OF_INPUT]
        lines.append(f"| {inputs} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
