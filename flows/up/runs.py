"""The processes of runs that `ratchet up` started: one each, with a log file of its own."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.up.place import write_json
from tasks.project.paths import home
from tasks.project.processes import start_guarded, stop_guarded
from tasks.project.repository import environment, python
from tasks.run_outcome import RunOutcome

STOP_TIMEOUT_S = 15.0
SHARED_SERVER = "RATCHET_SHARED_SERVER"  # set for runs whose Prefect server `ratchet up` did not start
RUN_FILE = "flows/up/run.py"  # what a run process begins with


@dataclass(frozen=True)
class RunProcess:
    """A run that is going."""

    id: str  # of the Prefect flow run
    model: str
    slots: tuple[int, ...]  # which of those that all models share; the GPUs where there are any
    process: subprocess.Popen[bytes]

    def is_alive(self) -> bool:
        """Whether it is still going."""
        return self.process.poll() is None

    def stop(self) -> None:
        """Ends it and everything that it started."""
        stop_guarded(self.process, STOP_TIMEOUT_S)


def start_run(
    root: Path, code: Path, run: str, model: str, slots: tuple[int, ...], env: Mapping[str, str]
) -> RunProcess:
    """Starts the process that carries out a flow run, in `root` by the code in `code`."""
    log = log_file(root, run)
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        python(),
        "-P",
        "-m",
        "flows.up.run",
        run,
    ]  # -P: else the code in `root` would come before that in `code`
    path = f"{code}{os.pathsep}{os.environ['PYTHONPATH']}" if os.environ.get("PYTHONPATH") else str(code)
    with log.open("ab") as output:
        # by KILL: at a TERM Prefect would record a crash, while the run is to go on; it keeps its checkpoints anyway
        process = start_guarded(command, root, environment({"PYTHONPATH": path, **env}), output, end_by="KILL")
    return RunProcess(run, model, slots, process)


def shared_server() -> bool:
    """Whether other machines may use the Prefect server of this run, too."""
    return os.environ.get(SHARED_SERVER) == "1"


def log_file(root: Path, run: str) -> Path:
    """What a run prints."""
    return home(root) / "logs" / "runs" / f"{run}.log"


def keep_answer(root: Path, run: str, answer: Mapping[str, Any]) -> None:
    """How a run ended, for `ratchet retrain` that waits for it: an outcome, or `error` and `exit_code`."""
    write_json(_answer_file(root, run), answer)


def read_answer(root: Path, run: str) -> dict[str, Any] | None:
    """What `keep_answer` kept, or None."""
    try:
        answer: dict[str, Any] = json.loads(_answer_file(root, run).read_text())
    except (OSError, ValueError):
        return None
    return answer


def outcome_from_json(content: Mapping[str, Any]) -> RunOutcome:
    """The inverse of RunOutcome.to_json."""
    paths = {name: Path(content[name]) for name in ("report", "data_docs") if content.get(name)}
    lists = {name: tuple(content[name]) for name in ("reasons", "notes")}
    lists["steps"] = tuple((name, seconds) for name, seconds in content.get("steps", []))
    return RunOutcome(**{**content, **paths, **lists})


def _answer_file(root: Path, run: str) -> Path:
    return home(root) / "logs" / "runs" / f"{run}.json"
