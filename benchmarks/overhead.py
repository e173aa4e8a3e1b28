"""What Ratchet itself costs around a training: nothing new, beside `dvc repro`; a whole run, second by second.

Overhead is the wall time of the process `ratchet retrain digits`, from its start to its end, less the epochs: imports,
export, checks, packaging, its smoke test and publishing all count. Measured for a command alone, and for one under
`ratchet up`. Processor seconds are those of all that was started; a busy machine does not disturb them.
"""

import csv
import json
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from flows.up.place import find_up
from tasks.project.warm import PLANS
from tasks.serve import free_port
from tests.digits import write_digits
from tests.story import Story

REPEATS = 5  # with nothing new
RUNS = 3  # of a whole retrain
START_S = 180.0  # what `ratchet up` and its warm processes may take to be ready
ALONE, UP = "a command alone", "under `ratchet up`"
TARGETS = {ALONE: 14.0, UP: 10.0}  # s of overhead
# The same story by hand with other tools on the same machine, and Ratchet itself before there were warm processes.
PEERS = "others: ZenML 9.6 s (11.2 processor s), MLflow 9.4, Kedro 4 to 10, Prefect + DVC 13, DVC + GTO 16, Metaflow 17"


# Before there were warm processes (commit 63c3249), by the same script: medians of 3 runs, bytecode compiled. There was
# no `ratchet up` yet; a Prefect server was.
BEFORE: dict[str, dict[str, float]] = {
    ALONE: {
        **{"overhead": 24.0, "processor": 24.8, "outside": 1.4, "fetch champion": 0.1, "validate": 5.3, "train": 9.4},
        **{"evaluate": 1.6, "judge": 0.3, "report": 0.1, "package": 4.8, "save": 2.9, "promote": 1.3},
    },
    UP: {
        **{"overhead": 27.8, "processor": 31.4, "outside": 3.4, "fetch champion": 0.1, "validate": 5.5, "train": 10.6},
        **{"evaluate": 1.7, "judge": 0.4, "report": 0.1, "package": 5.0, "save": 3.0, "promote": 1.5},
    },
}


@dataclass(frozen=True)
class Run:
    """One retrain of the demo's digits, from the shell."""

    wall: float  # s
    epochs: float  # s
    processor: float  # s, of all processes
    steps: tuple[tuple[str, float], ...]

    @property
    def overhead(self) -> float:
        return self.wall - self.epochs


def run() -> list[dict[str, Any]]:
    """The demo's project, with remotes, in a folder of its own for each run; alone and under `ratchet up` in turns."""
    runs: dict[str, list[Run]] = {ALONE: [], UP: []}
    with tempfile.TemporaryDirectory(prefix="ratchet-overhead-") as folder:
        for number in range(RUNS):
            for way, beside in ((ALONE, nullcontext), (UP, up)):
                story = make_story(Path(folder) / f"{number} {way.replace('`', '')}")
                with beside(story):
                    runs[way].append(retrain(story))
        rows = [_nothing_new(story)]
    return rows + [row for way, several in runs.items() for row in _rows(way, several)]


def make_story(folder: Path) -> Story:
    """The demo's project with its first data, which nobody retrains by itself."""
    story = Story(folder)
    story.begin()
    params = story.project / "params.yaml"
    section = "      floors: {accuracy: 0.8}\n"
    params.write_text(params.read_text().replace(section, f"{section}    schedule: {{on_new_data: false}}\n", 1))
    story.ratchet("add", "digits", str(write_digits(folder / "digits", 0, 1020)))
    for command in (["commit", "--quiet", "--all", "--message=retrain when asked"], ["push", "--quiet"]):
        subprocess.run(["git", *command], cwd=story.project, env=story.environment, check=True)
    return story


@contextmanager
def up(story: Story) -> Iterator[None]:
    """`ratchet up` of the story's project, ready, and its processes warm."""
    command = [sys.executable, "-m", "flows.cli", "up", "--port", str(free_port())]
    with (story.folder / "up.log").open("w") as log:
        process = subprocess.Popen(command, cwd=story.project, env=story.environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_S
        while not (find_up(story.project) and _warm(story.project) == sum(map(len, PLANS))):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"error: `ratchet up` did not start: {(story.folder / 'up.log').read_text()}")
            time.sleep(0.2)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _warm(project: Path) -> int:
    """How many processes have loaded their libraries."""
    log = project / ".ratchet/logs/warm.log"
    return log.read_text().count(" is warm for ") if log.exists() else 0


def retrain(story: Story) -> Run:
    """`ratchet retrain digits`, from the shell."""
    command = [sys.executable, "-m", "flows.cli", "retrain", "digits", "--json"]
    before, start = _processor_seconds(), time.perf_counter()
    done = subprocess.run(
        command, cwd=story.project, env=story.environment, check=True, stdout=subprocess.PIPE, text=True
    )
    wall, processor = time.perf_counter() - start, _processor_seconds() - before
    answer = json.loads(done.stdout)
    steps = tuple((str(name), float(seconds)) for name, seconds in answer["steps"])
    return Run(wall, _epochs(answer), processor, steps)


def _processor_seconds() -> float:
    """Of all that this process ever started, user and system: that which ended, and that which goes on."""
    own = psutil.Process()
    times = [own.cpu_times(), *(child.cpu_times() for child in own.children(recursive=True))]
    living = sum(each.user + each.system for each in times[1:])
    return float(living + sum(each.children_user + each.children_system for each in times))


def _epochs(answer: dict[str, Any]) -> float:
    """Seconds in epochs."""
    with (Path(answer["report"]).parent / "history.csv").open() as history:
        return sum(float(row["seconds"]) for row in csv.DictReader(history))


def _nothing_new(story: Story) -> dict[str, Any]:
    ours = _median([sys.executable, "-m", "flows.cli", "retrain", "digits"], story.project, story)
    finished = story.folder / "done"  # the candidate's commit with its outputs: DVC has nothing to do there
    candidate = "digits#production#1"
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
        "target": "≤ 0.3",
        "note": f"median of {REPEATS}",
    }


def _median(command: Sequence[str], folder: Path, story: Story) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, env=story.environment, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _rows(way: str, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The overhead as a whole, its processor seconds, and each step; medians."""
    overhead = statistics.median(run.overhead for run in runs)
    spread = f"{min(run.overhead for run in runs):.1f} to {max(run.overhead for run in runs):.1f} in {len(runs)} runs"
    epochs = statistics.median(run.epochs for run in runs)
    processor = statistics.median(run.processor for run in runs)
    before = BEFORE[way]
    rows = [
        _row(f"a retrain's overhead, {way}", overhead, before["overhead"], f"≤ {TARGETS[way]:.0f} s", spread),
        _row("… processor seconds, epochs included", processor, before["processor"], "", PEERS),
    ]
    names = dict.fromkeys(name for name, _ in runs[0].steps)
    for name in names:
        seconds = statistics.median(sum(each for other, each in run.steps if other == name) for run in runs)
        note = f"the epochs are {epochs:.1f} s of it" if name == "train" else ""
        rows.append(_row(f"… {name}", seconds, before.get(name), "", note))
    outside = statistics.median(run.wall - sum(seconds for _, seconds in run.steps) for run in runs)
    return [*rows, _row("… start, worktree, everything between", outside, before["outside"], "", _bytecode())]


def _row(what: str, seconds: float, before: float | None, target: str, note: str) -> dict[str, Any]:
    peer = f"before: {before:.1f} s" if before else ""
    ratio = f"{seconds / before:.2f}" if before and before >= 0.2 else ""
    return {"benchmark": what, "ours": f"{seconds:.1f} s", "peer": peer, "ratio": ratio, "target": target, "note": note}


def _bytecode() -> str:
    """Whether what is installed was compiled: without, everything takes twice as long."""
    folder = Path(sysconfig.get_path("purelib"))
    compiled = all((folder / name / "__pycache__").is_dir() for name in ("dvc", "torch", "great_expectations"))
    return f"bytecode {'existed' if compiled else 'did not exist'}"


if __name__ == "__main__":
    print(json.dumps(run(), indent=2, ensure_ascii=False))
