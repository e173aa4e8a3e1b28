"""CIFAR-10 arrives in five batches, one of them with wrong labels: the story of docs/cifar10.md, run for real.

    python -m benchmarks.cifar10 ../shared/data/cifar10

The folder holds train-1.zip … train-5.zip and test.zip, each with one folder per class. Works in a clone of its own
under .demo/cifar10 and prints the table that docs/cifar10.md shows.
"""

import argparse
import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

from tests.story import CODE, Story

MODEL = "cifar10"
HEADER = ["data", "photos", "state", "accuracy", "gain", "per step", "peak memory", "whole run"]


def main() -> None:
    """Adds, retrains, and prints a row for each candidate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data: Path = parser.parse_args().data.resolve()
    story = Story(CODE / ".demo" / "cifar10")
    story.begin()
    story.ratchet("add", MODEL, str(data / "test.zip"), "--split", "test")
    rows = [_row(story, "train-1", data / "train-1.zip"), _row(story, "+ train-2, train-3", *_zips(data, 2, 3))]
    wrong = shuffled_copy(data / "train-4.zip", story.folder / "train-4-shuffled.zip", share=0.4)
    added = story.ratchet("add", MODEL, str(wrong))
    rows.append(_row(story, "+ train-4, 40 % of its labels shuffled"))
    story.ratchet("remove", MODEL, added["batch"])
    rows.append(_row(story, "without that batch, + the true train-4", data / "train-4.zip"))
    lines = [f"| {' | '.join(row)} |" for row in (HEADER, ["---"] * len(HEADER), *rows)]
    print("\n".join(lines))


def _zips(data: Path, *numbers: int) -> list[Path]:
    return [data / f"train-{number}.zip" for number in numbers]


def _row(story: Story, what: str, *sources: Path) -> list[str]:
    for source in sources:
        story.ratchet("add", MODEL, str(source))
    answer = story.ratchet("retrain", MODEL)
    run = Path(answer["report"]).parent
    training = json.loads((run / "summary.json").read_text())
    rows = story.ratchet("status")["models"]
    return [
        what,
        f"{next(row['rows'] for row in rows if row['model'] == MODEL):,}",
        answer["state"],
        *_accuracy_and_gain(json.loads((run / "verdict.json").read_text())),
        f"{training['seconds_per_step']:.3f} s",
        f"{training['peak_memory_mb']:,.0f} MiB",
        f"{answer['seconds']:.0f} s",
    ]


def _accuracy_and_gain(verdict: dict[str, Any]) -> tuple[str, str]:
    """Accuracy, and the gain over the champion with its one-sided 95 % bounds."""
    check = next(check for check in verdict["checks"] if check["about"] in {"primary", "baseline"})
    if check["about"] == "baseline":
        return f"{check['candidate']:.4f}", "first model"
    return f"{check['candidate']:.4f}", f"{check['gain']:+.4f} ({check['lower']:+.4f} to {check['upper']:+.4f})"


def shuffled_copy(source: Path, target: Path, share: float) -> Path:
    """A zip of class folders in which a seeded share of the photos lies in another class's folder."""
    rng = random.Random(0)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        names = [name for name in old.namelist() if not name.endswith("/")]
        labels = sorted({name.split("/")[0] for name in names})
        for number, name in enumerate(names):
            label, file_name = name.split("/", 1)
            if rng.random() < share:
                label = rng.choice([other for other in labels if other != label])
            new.writestr(f"{label}/{number:05d}-{file_name}", io.BytesIO(old.read(name)).getvalue())
    return target


if __name__ == "__main__":
    main()
