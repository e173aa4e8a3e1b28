"""CamVid's road scenes, from two zips to a served model: what docs/semantic_segmentation.md shows, measured.

    python -m benchmarks.camvid ../shared/data/camvid

The folder holds train.zip and val.zip, each with images/, masks/ and classes.txt; val.zip is the test here. Works in a
clone of its own under .demo/camvid. Set OMP_NUM_THREADS=1 to measure one core.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from tests.story import CODE, Story

MODEL = "roads"
SCORES = ("mean_iou", "pixel_accuracy", "mean_class_accuracy")


def main() -> None:
    """Adds, retrains once, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data: Path = parser.parse_args().data.resolve()
    story = Story(CODE / ".demo" / "camvid")
    story.begin()
    story.ratchet("add", MODEL, str(data / "val.zip"), "--split", "test")
    story.ratchet("add", MODEL, str(data / "train.zip"))
    answer = story.ratchet("retrain", MODEL)
    print("\n".join(_lines(answer, Path(answer["report"]).parent)))


def _lines(answer: dict[str, Any], run: Path) -> list[str]:
    """Two Markdown tables: the whole, and each class."""
    training = json.loads((run / "summary.json").read_text())
    metrics = json.loads((run / "verdict.json").read_text())["metrics"]["candidate"]
    head = ["state", *SCORES, "epochs", "per step", "training", "peak memory", "whole run"]
    row = [
        answer["state"],
        *(f"{metrics[name]:.4f}" for name in SCORES),
        f"{training['epochs_run']}",
        f"{training['seconds_per_step']:.2f} s",
        f"{training['seconds'] / 60:.1f} min",
        f"{training['peak_memory_mb']:,.0f} MiB",
        f"{answer['seconds'] / 60:.1f} min",
    ]
    classes = {name.removeprefix("iou_"): value for name, value in metrics.items() if name.startswith("iou_")}
    return [
        *_table(head, row),
        "",
        *_table(list(classes), [f"{value:.3f}" for value in classes.values()]),
    ]


def _table(head: list[str], row: list[str]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), row)]


if __name__ == "__main__":
    main()
