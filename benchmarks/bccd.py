"""Blood cells arrive as Pascal VOC and are learnt from nothing on a CPU: the numbers of docs/object_detection.md.

    python -m benchmarks.bccd ../shared/data/bccd

The folder holds train.zip and val.zip, each with JPEGImages/ and Annotations/; val.zip is what is tested on. Works in a
clone of its own under .demo/bccd and prints the table that docs/object_detection.md shows.
"""

import argparse
import json
from pathlib import Path

from tests.story import CODE, Story

MODEL = "blood_cells"
HEADER = ["photos", "state", "mAP50", "mAP", "recall", "precision", "training", "whole run", "program", "latency"]


def main() -> None:
    """Adds both deliveries, retrains, and prints a row for the candidate and one for each class."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data: Path = parser.parse_args().data.resolve()
    story = Story(CODE / ".demo" / "bccd")
    story.begin()
    story.ratchet("add", MODEL, str(data / "val.zip"), "--split", "test")
    story.ratchet("add", MODEL, str(data / "train.zip"))
    answer = story.ratchet("retrain", MODEL)
    run = Path(answer["report"]).parent
    training, verdict = (json.loads((run / name).read_text()) for name in ("summary.json", "verdict.json"))
    metrics = verdict["metrics"]["candidate"]
    photos = next(row["rows"] for row in story.ratchet("status")["models"] if row["model"] == MODEL)
    row = [f"{photos:,}", answer["state"]]
    row += [f"{metrics[name]:.3f}" for name in ("map50", "map", "recall", "precision")]
    row += [f"{training['seconds']:.0f} s", f"{answer['seconds']:.0f} s"]
    row += [f"{metrics['size_mb']:.1f} MB", f"{metrics['latency_ms']:.1f} ms"]
    print("\n".join(f"| {' | '.join(cells)} |" for cells in (HEADER, ["---"] * len(HEADER), row)))
    classes = {name.removeprefix("ap50_"): value for name, value in metrics.items() if name.startswith("ap50_")}
    print("\n| class | AP50 |\n| --- | --- |")
    print("\n".join(f"| {label} | {value:.3f} |" for label, value in classes.items()))
    print(f"\n{training['epochs_run']} epochs of {training['seconds_per_step']:.2f} s a step, {training['precision']}")


if __name__ == "__main__":
    main()
