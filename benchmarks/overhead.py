"""What Ratchet itself costs around a training: nothing new, beside `dvc repro`; a whole run, second by second."""

import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.digits import write_digits
from tests.story import Story
from tests.world import prefect_server

REPEATS = 5
LIMIT = 40.0  # s: all of a retrain but training and evaluating
NOT_OVERHEAD = ("train", "evaluate")


def run() -> list[dict[str, Any]]:
    """The demo's project in a folder of its own, with remotes and a Prefect server."""
    with (
        tempfile.TemporaryDirectory(prefix="ratchet-overhead-") as folder,
        prefect_server(Path(folder) / "home") as url,
    ):
        story = Story(Path(folder) / "story")
        story.begin()
        os.environ["PREFECT_API_URL"] = f"{url}/api"
        try:
            story.ratchet("add", "digits", str(write_digits(Path(folder) / "digits", 0, 1020)))
            answer = story.ratchet("retrain", "digits")
        finally:
            del os.environ["PREFECT_API_URL"]
        return [_nothing_new(story, str(answer["commit"])), *_steps(url, answer)]


def _nothing_new(story: Story, candidate: str) -> dict[str, Any]:
    ours = _median([sys.executable, "-m", "flows.cli", "retrain", "digits"], story.project, story)
    finished = story.folder / "done"  # the candidate's commit with its outputs: DVC has nothing to do there
    subprocess.run(
        ["git", "worktree", "add", "--quiet", "--detach", str(finished), candidate], cwd=story.project, check=True
    )
    (finished / ".dvc/config.local").write_text(f"[cache]\n    dir = {story.project / '.dvc/cache'}\n")
    stages = [f"{stage}@digits" for stage in ("validate", "train", "evaluate")]
    environment = story.environment | {"PYTHONPATH": str(finished)}
    subprocess.run(["dvc", "checkout", "--quiet"], cwd=finished, env=environment, check=False)
    peer = _median([sys.executable, "-m", "dvc", "repro", *stages], finished, story)
    return {
        "benchmark": "`ratchet retrain` with nothing new, whole process",
        "ours": f"{ours:.2f} s",
        "peer": f"`dvc repro` with nothing to do {peer:.2f} s",
        "ratio": f"{ours / peer:.2f}",
        "target": "≤ 3",
        "note": f"median of {REPEATS}",
    }


def _median(command: Sequence[str], folder: Path, story: Story) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, env=story.environment, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _steps(url: str, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for the overhead as a whole and one for each step, from Prefect's own record of the run."""
    runs = httpx.post(f"{url}/api/task_runs/filter", json={"sort": "END_TIME_DESC"}).json()
    steps = [(run["name"].rsplit("-", 1)[0], float(run["total_run_time"])) for run in reversed(runs)]
    whole = float(answer["seconds"])
    outside = whole - sum(seconds for _, seconds in steps)
    ours = whole - sum(seconds for name, seconds in steps if name in NOT_OVERHEAD)
    state = f"{answer['state']} in {whole:.1f} s"
    rows = [_row("a full retrain's overhead (all but train and evaluate)", ours, f"≤ {LIMIT:.0f} s", state)]
    notes = {"train": f"not overhead; the epochs took {_epochs(answer):.1f} s of it", "evaluate": "not overhead"}
    rows += [_row(f"… {name}", seconds, "", notes.get(name, "")) for name, seconds in steps]
    return [*rows, _row("… start, worktree, Prefect, everything between", outside, "", "imports take most of it")]


def _row(what: str, seconds: float, target: str, note: str) -> dict[str, Any]:
    return {"benchmark": what, "ours": f"{seconds:.1f} s", "peer": "", "ratio": "", "target": target, "note": note}


def _epochs(answer: dict[str, Any]) -> float:
    """Seconds in epochs; the rest of the stage is importing torch, exporting, checking parity, and DVC."""
    with (Path(answer["report"]).parent / "history.csv").open() as history:
        return sum(float(row["seconds"]) for row in csv.DictReader(history))


if __name__ == "__main__":
    print(json.dumps(run(), indent=2, ensure_ascii=False))
