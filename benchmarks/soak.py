"""Weeks of `ratchet up` in minutes: python -m benchmarks.soak [DAYS] [SEED]. Writes docs/soak.md.

Three models of different kinds in one shared project; a day is as long as a delivery and what it sets off. Every day
somebody delivers: good examples, a new class, 40 % wrong labels, damaged files, what is there already. On every other
day something is killed or taken away: `ratchet up`, a run, a training, Prefect's server, the git remote, the DVC
remote, an `add` half-way. At the end an oracle, examples that were never delivered, looks at all that was ever in
production.
"""

import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import jinja2
import psutil

from tests.deliveries import Deliveries
from tests.samples import semantic_segmentation as scenes
from tests.story import CODE, Story

PAGE = Path(__file__).with_name("soak.md.j2")
MODELS: dict[str, dict[str, Any]] = {
    "written": {
        "kind": "image_classification",
        "data": {"image_size": 8, "min_side": 8, "near_duplicate_bits": 0, "splits": {"val": 0.1, "test": 0.3}},
        "train": {"network": "small_cnn", "width": 8, "epochs": 15, "batch_size": 32, "learning_rate": 0.01},
        "gate": {"metric": "accuracy", "resamples": 1000, "floors": {"accuracy": 0.5}},
    },
    "orders": {
        "kind": "speech_command",
        "data": {"sample_rate": 8000, "splits": {"val": 0.1, "test": 0.3}},
        "train": {"width": 0.25, "mels": 20, "epochs": 12, "batch_size": 32, "learning_rate": 0.004},
        "gate": {"metric": "accuracy", "resamples": 1000, "floors": {"accuracy": 0.3}},
    },
    "scenes": {**scenes.TINY, "gate": {"metric": "mean_iou", "resamples": 300, "floors": {"mean_iou": 0.1}}},
}
MODELS = {name: section | {"schedule": {"cron": "*/3 * * * *"}} for name, section in MODELS.items()}
RETENTION = "retention: {candidates: 4, reports: 6, days: 1}\n"
DELIVERIES = ("good", "good", "good", "wrong labels", "damaged", "duplicate", "new class")
FAULTS = (
    "up killed", "up ended", "run killed", "training killed", "server killed", "git remote away", "DVC remote away",
    "add killed",
)  # fmt: skip
AWAY_S = 20.0
QUIET_S = 240.0  # for what is going on at the end of a day to end
METRICS = {"written": "accuracy", "orders": "accuracy", "scenes": "mean_iou"}


@dataclass
class Day:
    """What happened on one day."""

    number: int
    model: str
    delivery: str
    fault: str
    answers: list[str] = field(default_factory=list)


class Soak:
    """The project, its `ratchet up`, and what was done to it."""

    def __init__(self, folder: Path, models: tuple[str, ...], seed: int) -> None:
        self.story = Story(folder)
        self.models = models
        self.random = random.Random(seed)
        self.deliveries = Deliveries(folder / "deliveries")
        self.days: list[Day] = []
        self.disk: list[float] = []  # MB at the end of each day

    @property
    def project(self) -> Path:
        """Where everything happens."""
        return self.story.project

    def begin(self) -> None:
        """A shared project with these models alone, and `ratchet up`."""
        self.story.begin({name: MODELS[name] for name in self.models})
        params = self.project / "params.yaml"
        params.write_text(RETENTION + _only(params.read_text(), self.models))
        for command in (["commit", "--quiet", "--all", "--message", "Models of the soak"], ["push", "--quiet"]):
            subprocess.run(["git", *command], cwd=self.project, env=self.story.environment, check=True)
        self.up()

    def up(self) -> None:
        """Starts `ratchet up` in the background."""
        done = self.ratchet("up", "--detach", "--look-every", "5")
        if done.returncode:
            sys.exit(f"error: ratchet up does not start: {done.stderr}")

    def live(self, number: int, fault: str) -> None:
        """One day."""
        model, quality = self.random.choice(self.models), self.random.choice(DELIVERIES)
        if number < len(self.models):
            model, quality = self.models[number], "good"  # each model begins
        day = Day(number, model, quality, fault)
        self.days.append(day)
        source = self.deliveries.make(model, quality, number)
        with self._away(fault):
            day.answers.append(self._add(model, source, killed=fault == "add killed"))
            if fault == "add killed":
                day.answers.append(self._add(model, source, killed=False))
        if fault.endswith(("killed", "ended")) and fault != "add killed":
            self._wait(lambda: bool(self._running()), 30.0)
            time.sleep(self.random.uniform(0, 10))
            self._end(fault)
        self.until_quiet()
        if number % 7 == 6:
            self.ratchet("gc", "--delete")
        self.disk.append(_megabytes(self.project))
        print(f"day {number}: {model}, {quality}; {fault or 'no fault'}; {'; '.join(day.answers)}", flush=True)

    def until_quiet(self) -> None:
        """Until nothing runs and nothing waits; at the latest after QUIET_S."""
        time.sleep(8)  # a look at the remote, an event, its automation
        self._wait(lambda: not self._running() and not self.health().get("waiting"), QUIET_S)

    def health(self) -> dict[str, Any]:
        """What `ratchet up` says of itself; {} where it does not answer."""
        try:
            place = json.loads((self.project / ".ratchet/up/place.json").read_text())
            answer: dict[str, Any] = httpx.get(place["health"], timeout=5, trust_env=False).json()
        except (OSError, ValueError, httpx.HTTPError):
            return {}
        return answer

    def runs(self) -> list[dict[str, Any]]:
        """Prefect's record of all runs that are not in the future."""
        place = json.loads((self.project / ".ratchet/up/place.json").read_text())
        found, offset = [], 0
        while page := httpx.post(
            f"{place['api']}/flow_runs/filter", json={"offset": offset, "limit": 200}, trust_env=False
        ).json():
            found += page
            offset += len(page)
        return [run for run in found if run["state_name"] != "Scheduled"]

    def ratchet(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A command, silently."""
        command = [sys.executable, "-m", "flows.cli", *arguments]
        return subprocess.run(
            command, cwd=self.project, env=self.story.environment, capture_output=True, text=True, check=False
        )

    def _add(self, model: str, source: Path, killed: bool) -> str:
        command = [sys.executable, "-m", "flows.cli", "add", model, str(source), "--json"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=self.project, env=self.story.environment, stdout=pipe, stderr=pipe, text=True
        )
        if killed:
            time.sleep(self.random.uniform(1.0, 4.0))
            process.kill()
        out, err = process.communicate()
        if process.returncode == 0:
            return f"added {json.loads(out)['added']}"
        return "killed" if killed else f"refused: {err.strip().splitlines()[-1].removeprefix('error: ')[:90]}"

    def _running(self) -> list[dict[str, str]]:
        running: list[dict[str, str]] = self.health().get("running", [])
        return running

    @contextmanager
    def _away(self, fault: str) -> Iterator[None]:
        """A remote that is not there for a while."""
        name = {"git remote away": "remote.git", "DVC remote away": "dvc-remote"}.get(fault)
        if name is None or not (self.story.folder / name).exists():
            yield
            return
        place, hidden = self.story.folder / name, self.story.folder / f"{name}.away"
        place.rename(hidden)
        place.touch()  # a file, so that nobody makes a folder there
        try:
            yield
            time.sleep(AWAY_S)
        finally:
            place.unlink()
            hidden.rename(place)

    def _end(self, fault: str) -> None:
        up = json.loads((self.project / ".ratchet/up/place.json").read_text())["process_id"]
        if fault in {"up killed", "up ended"}:
            os.kill(up, signal.SIGKILL if fault == "up killed" else signal.SIGTERM)
            self._wait(lambda: not psutil.pid_exists(up) or psutil.Process(up).status() == "zombie", 60)
            self.up()
            return
        word = {"run killed": "flows.up.run", "training killed": "tasks.train", "server killed": "prefect"}[fault]
        for process in psutil.Process(up).children(recursive=True):
            try:
                if word in process.cmdline():
                    process.kill()
            except psutil.Error:
                continue

    @staticmethod
    def _wait(there: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if there():
                return True
            time.sleep(0.5)
        return False


@dataclass(frozen=True)
class Judgement:
    """What the oracle says of one version."""

    model: str
    version: str
    value: float
    before: float | None  # of the version before
    wrong: bool


def judge(soak: Soak) -> list[Judgement]:
    """Every version that was ever in production, on examples that were never delivered."""
    from tasks.evaluate import score, summary
    from tasks.project.params import load_model
    from tasks.project.registry import fetch, versions

    oracle = soak.story.folder / "oracle"
    subprocess.run(["git", "clone", "--quiet", str(soak.project), str(oracle)], check=True)
    subprocess.run(["git", "remote", "remove", "origin"], cwd=oracle, check=True)
    found = []
    for model in soak.models:
        for path in (oracle / "data" / model).glob("*.parquet.dvc"):
            path.unlink()
            path.with_name(path.name.replace(".parquet.dvc", ".index")).unlink()
        source = str(soak.deliveries.oracle(model))
        command = [sys.executable, "-m", "flows.cli", "add", model, source, "--split", "test"]
        subprocess.run(command, cwd=oracle, env=soak.story.environment, check=True, capture_output=True)
        params, before = load_model(oracle, model), None
        numbered = sorted(
            (tuple(map(int, name[1:].split("."))), name, c) for c, name in versions(soak.project, model).items()
        )
        for _, version, commit in numbered:
            program = fetch(soak.project, commit, f"artifacts/{model}/program", oracle / "programs" / model / version)
            table = score(oracle, params, program)
            value = summary(params, table, program)[METRICS[model]]
            noise = 2 * math.sqrt(2 * max(value * (1 - value), 0.01) / len(table))
            found.append(Judgement(model, version, value, before, before is not None and value < before - noise))
            before = value
    return found


def report(soak: Soak, verdicts: list[Judgement], seconds: float) -> tuple[str, list[str]]:
    """The page, and a line for everything that is not as it must be."""
    runs = soak.runs()
    stuck = sum(run["state_type"] in {"RUNNING", "PENDING", "CANCELLING"} for run in runs)
    worktrees = len(list((soak.project / ".ratchet/work").glob("*@*")))
    endings = {model: json.loads(soak.ratchet("retrain", model, "--json").stdout)["state"] for model in soak.models}
    page = jinja2.Template(PAGE.read_text(), keep_trailing_newline=True).render(
        days=soak.days,
        minutes=round(seconds / 60),
        models=soak.models,
        today=date.today(),
        cores=os.cpu_count(),
        deliveries=_counted(Counter(day.delivery for day in soak.days)),
        faults=_counted(Counter(day.fault for day in soak.days if day.fault)),
        states=_counted(Counter(str(run["state_name"]) for run in runs)),
        stuck=stuck,
        worktrees=worktrees,
        endings=", ".join(f"{model} {state}" for model, state in endings.items()),
        verdicts=verdicts,
        metrics=METRICS,
        disk=soak.disk,
    )
    problems = [f"{one.model} {one.version} is worse: {one.before} -> {one.value}" for one in verdicts if one.wrong]
    problems += [f"{stuck} runs are stuck"] * bool(stuck)
    problems += [f"{worktrees} worktrees are left"] * bool(worktrees)
    problems += [f"{model} ends as {state}" for model, state in endings.items() if state in {"ERROR", "BLOCKED"}]
    return page, problems


def soak(folder: Path, models: tuple[str, ...], days: int, seed: int) -> tuple[str, list[str]]:
    """The whole story; its page, and what was wrong."""
    started = time.perf_counter()
    story = Soak(folder, models, seed)
    story.begin()
    try:
        faults = list(FAULTS)
        story.random.shuffle(faults)
        for number in range(days):
            fault = faults[number // 2 % len(faults)] if number >= len(models) and number % 2 else ""
            story.live(number, fault)
        story.until_quiet()
        return report(story, judge(story), time.perf_counter() - started)
    finally:
        story.ratchet("down")


def _only(params: str, models: tuple[str, ...]) -> str:
    import yaml

    sections = yaml.safe_load(params)["models"]
    return str(yaml.safe_dump({"models": {name: sections[name] for name in models}}, sort_keys=False))


def _counted(found: "Counter[str]") -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items(), key=lambda pair: -pair[1]))


def _megabytes(folder: Path) -> float:
    done = subprocess.run(["du", "-sm", str(folder)], capture_output=True, text=True, check=False)
    return float(done.stdout.split()[0])


if __name__ == "__main__":
    days, seed = int([*sys.argv[1:], "21"][0]), int([*sys.argv[2:], "0"][0])
    with tempfile.TemporaryDirectory(prefix="ratchet-soak-") as place:
        page, problems = soak(Path(place), tuple(MODELS), days, seed)
    (CODE / "docs/soak.md").write_text(page)
    print(page)
    sys.exit("error: " + "; ".join(problems) if problems else 0)
