"""Who says the digit: the speakers of the Free Spoken Digit Dataset, official split, what docs/speakers.md shows.

    python -m benchmarks.speakers ../shared/data/fsdd

The folder holds <speaker>.zip; takes 0 to 4 are the test, as delivered, and takes 5 to 9, of train, decide when to
stop. Works in a clone of its own under .demo/speakers. Set OMP_NUM_THREADS=1 to measure one core.
"""

import argparse
import csv
import io
import json
import zipfile
from pathlib import Path

from tests.story import CODE, Story

MODEL = "speakers"
VALIDATION = range(5, 10)  # takes
SCORES = ("accuracy", "equal_error_rate", "log_loss")


def main() -> None:
    """Adds every speaker, retrains once, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data: Path = parser.parse_args().data.resolve()
    story = Story(CODE / ".demo" / MODEL)
    story.begin()
    for path in sorted(data.glob("*.zip")):
        story.ratchet("add", MODEL, str(with_validation(path, story.folder / path.name)))
    answer = story.ratchet("retrain", MODEL)
    run = Path(answer["report"]).parent
    training, verdict = (json.loads((run / f"{name}.json").read_text()) for name in ("summary", "verdict"))
    metrics = verdict["metrics"]["candidate"]
    row = {
        "state": answer["state"],
        "test recordings": f"{verdict['checks'][0]['examples']:,}",
        **{name.replace("_", " "): f"{metrics[name]:.4f}" for name in SCORES},
        "epochs": str(training["epochs_run"]),
        "training": f"{training['seconds']:.0f} s",
        "latency": f"{metrics['latency_ms']:.1f} ms",
        "whole run": f"{answer['seconds']:.0f} s",
    }
    print("\n".join(f"| {' | '.join(cells)} |" for cells in (row, ["---"] * len(row), row.values())))


def with_validation(source: Path, target: Path) -> Path:
    """A copy of a speaker's zip whose metadata puts some takes of the training split into validation."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, _with_validation_takes(content) if name.endswith("metadata.csv") else content)
    return target


def _with_validation_takes(content: bytes) -> bytes:
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    for row in rows:
        take = int(Path(row["file_name"]).stem.rpartition("_")[2])
        writer.writerow(row | ({"split": "val"} if row["split"] == "train" and take in VALIDATION else {}))
    return out.getvalue().encode()


if __name__ == "__main__":
    main()
