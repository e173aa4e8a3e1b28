"""Connected digits: real recordings of single digits joined to strings, recognised by a network trained from nothing.

    python -m benchmarks.connected_digits ../shared/data/fsdd

The folder holds <speaker>.zip of the Free Spoken Digit Dataset. Strings of 1 to 7 digits of one speaker are joined with
pauses: for training of takes 10 to 49, for validation of 5 to 9, for test of 0 to 4 alone, so no recording is on two
sides. Works in a clone of its own under .demo/connected_digits and prints the table of docs/speech_recognition.md.
"""

import argparse
import csv
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from numpy.typing import NDArray

from tests.samples.speech import write_wav
from tests.story import CODE, Story

MODEL = "connected_digits"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RATE = 8000  # Hz, of every recording
STRINGS = {"train": 3000, "val": 250, "test": 500}
TAKES = {"train": range(10, 50), "val": range(5, 10), "test": range(5)}
MAX_DIGITS = 7  # digits in a string
PAUSE = (0.0, 0.4)  # seconds between two digits; the recordings themselves are cut close
EDGE = (0.05, 0.3)  # before the first and after the last
GAIN_DB = 4.0  # each digit louder or softer by up to this
NOISE = (2.0, 20.0)  # standard deviation, of 32768: what a quiet room leaves
Clips = dict[tuple[str, int, int], NDArray[np.int16]]  # (speaker, digit, take)


def main() -> None:
    """Builds the delivery, adds it, retrains, and prints what the candidate scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data: Path = parser.parse_args().data.resolve()
    story = Story(CODE / ".demo" / MODEL)
    story.begin()
    folder = write_strings(data, story.folder / "strings", STRINGS)
    story.ratchet("add", MODEL, str(folder))
    answer = story.ratchet("retrain", MODEL)
    run = Path(answer["report"]).parent
    table = _examples(story, answer["commit"])
    training = json.loads((run / "summary.json").read_text())
    print(f"{answer['state']}; trained {training['seconds']:.0f} s on {training['device']}, {training['precision']}")
    print("\n".join(_lines(table)))


def _examples(story: Story, commit: str) -> pd.DataFrame:
    """The score table of a candidate, out of DVC's cache."""
    target = story.folder / "evaluation"
    source = f"artifacts/{MODEL}/evaluation"
    command = [sys.executable, "-m", "dvc", "get", "--quiet", ".", source, "--rev", commit, "--out", str(target)]
    subprocess.run(command, cwd=story.project, env=story.environment, check=True)
    return pd.read_parquet(target / "examples.parquet")


def write_strings(data: Path, folder: Path, strings: dict[str, int]) -> Path:
    """`strings` of each split as WAV files beside metadata.csv; the same every time."""
    clips = read_clips(data)
    rng = np.random.default_rng(0)
    rows = []
    for split, count in strings.items():
        for number in range(count):
            speaker, digits, samples = joined(clips, split, rng)
            name = f"{split}-{number:04d}.wav"
            write_wav(folder / name, samples, RATE)
            rows.append([name, " ".join(NAMES[digit] for digit in digits), speaker, split, str(len(digits))])
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file_name", "transcript", "speaker", "split", "digits"], *rows])
    return folder


def read_clips(data: Path) -> Clips:
    """Every recording of every speaker's zip, by what its name says: <digit>_<speaker>_<take>.wav."""
    clips: Clips = {}
    for path in sorted(data.glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in (name for name in archive.namelist() if name.endswith(".wav")):
                digit, speaker, take = Path(name).stem.split("_")
                samples, _ = soundfile.read(io.BytesIO(archive.read(name)), dtype="int16")
                clips[speaker, int(digit), int(take)] = samples
    return clips


def joined(clips: Clips, split: str, rng: np.random.Generator) -> tuple[str, list[int], NDArray[np.int16]]:
    """Speaker, digits and sound of one string."""
    speakers = sorted({speaker for speaker, _, _ in clips})
    speaker = speakers[rng.integers(len(speakers))]
    digits = [int(digit) for digit in rng.integers(10, size=rng.integers(1, MAX_DIGITS + 1))]
    parts: list[NDArray[np.floating]] = [_silence(EDGE, rng)]
    for digit in digits:
        take = int(rng.choice(list(TAKES[split])))
        gain = 10 ** (rng.uniform(-GAIN_DB, GAIN_DB) / 20)
        parts += [clips[speaker, digit, take] * gain, _silence(PAUSE, rng)]
    sound = np.concatenate([*parts, _silence(EDGE, rng)])
    sound += rng.normal(0, rng.uniform(*NOISE), len(sound))
    return speaker, digits, np.clip(np.rint(sound), -32768, 32767).astype(np.int16)


def _silence(seconds: tuple[float, float], rng: np.random.Generator) -> NDArray[np.float64]:
    return np.zeros(int(RATE * rng.uniform(*seconds)))


def _lines(table: pd.DataFrame) -> list[str]:
    """Rows of Markdown: all strings, then by speaker and by how many digits they have."""
    groups = [("all", table)]
    groups += [(str(name), part) for name, part in table.groupby("speaker")]
    groups += [(f"{name} digit{'s' * (name != '1')}", part) for name, part in table.groupby("digits")]
    lines = ["| strings | how many | words | word error rate | character error rate | without error |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for name, part in groups:
        rates = part["edits"].sum() / part["words"].sum(), part["letter_edits"].sum() / part["letters"].sum()
        exact = (part["edits"] == 0).mean()
        cells = [name, f"{len(part)}", f"{part['words'].sum()}", f"{rates[0]:.2%}", f"{rates[1]:.2%}", f"{exact:.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
