"""Spoken digits of five people (FSDD): the story and the numbers of docs/speech.md, run for real.

    python -m benchmarks.fsdd ../shared/data/fsdd            three speakers, a fourth arrives, then the fifth
    python -m benchmarks.fsdd ../shared/data/fsdd --leave    each speaker by a model that was not trained on them

The folder holds <speaker>.zip; takes 0 to 4 are the test, as delivered, and takes 5 to 9, of train, decide which epoch
is kept. Works in a clone of its own under .demo/fsdd. Set OMP_NUM_THREADS=1 to measure one core.
"""

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

from benchmarks.speakers import with_validation
from models.common.kind import ScoreJob, load_kind
from tasks.project.params import load_model
from tests import delivered
from tests.story import CODE, Story

MODEL = "spoken_digits"
HEADER = ["data", "state", "accuracy", "gain", "by speaker: candidate (champion)", "training", "whole run"]
LEFT_OUT_HEADER = ["left out", "accuracy on all their recordings", "training"]


def main() -> None:
    """Runs the story, or leaves one speaker out after the other; prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--leave", action="store_true")
    arguments = parser.parse_args()
    zips = sorted(arguments.data.resolve().glob("*.zip"))
    rows = [LEFT_OUT_HEADER, *_left_out(zips)] if arguments.leave else [HEADER, *_story(zips)]
    print("\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])))


def _story(zips: list[Path]) -> list[list[str]]:
    story = Story(CODE / ".demo" / "fsdd")
    story.begin()
    first = ", ".join(path.stem for path in zips[:3])
    steps = [(first, zips[:3]), *((f"+ {path.stem}", [path]) for path in zips[3:])]
    return [_step(story, what, sources) for what, sources in steps]


def _step(story: Story, what: str, sources: list[Path]) -> list[str]:
    """Adds speakers, retrains, and reports what came of it."""
    for source in sources:
        story.ratchet("add", MODEL, str(with_validation(source, story.folder / source.name)))
    answer = story.ratchet("retrain", MODEL)
    run = Path(answer["report"]).parent
    checks = json.loads((run / "verdict.json").read_text())["checks"]
    primary = next(check for check in checks if check["about"] in {"primary", "baseline"})
    gain = "first model"
    if primary["about"] == "primary":
        gain = f"{primary['gain']:+.4f} ({primary['lower']:+.4f} to {primary['upper']:+.4f})"
    slices = [check for check in checks if check["about"] == "slice"]
    training = json.loads((run / "summary.json").read_text())
    slice_texts = ", ".join(
        f"{check['name'].partition('=')[2]} {_number(check['candidate'])} ({_number(check['champion'])})"
        for check in slices
    )
    seconds = [f"{training['seconds']:.0f} s", f"{answer['seconds']:.0f} s"]
    return [what, answer["state"], _number(primary["candidate"]), gain, slice_texts, *seconds]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _left_out(zips: list[Path]) -> list[list[str]]:
    """Trains on all takes of the others, their takes 5 to 9 for validation; tests on everything of the one."""
    params, kind = load_model(CODE, MODEL), load_kind("speech_command")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        with_val = [with_validation(path, root / path.name) for path in zips]
        batches = delivered.write_batches(root, kind, params.data, *with_val)
        whole = delivered.job(root, batches, kind, params.data, **params.train.model_dump())
        rows = []
        for path in zips:
            others = whole.manifest[whole.manifest["speaker"] != path.stem]
            kind.train(dataclasses.replace(whole, manifest=others.reset_index(drop=True)))
            left_out = whole.manifest[whole.manifest["speaker"] == path.stem].reset_index(drop=True)
            table = kind.score(ScoreJob(whole.out / "program", left_out, batches, whole.home))
            seconds = json.loads((whole.out / "training" / "summary.json").read_text())["seconds"]
            rows.append([path.stem, f"{table['correct'].mean():.4f} of {len(left_out)}", f"{seconds:.0f} s"])
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
