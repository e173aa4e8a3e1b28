"""What the other commands ask of a `ratchet up`: a run and its answer, a look for new data, what is going on."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from flows.up.deployments import FLOW
from flows.up.place import Place, find_up
from flows.up.runs import log_file, outcome_from_json, read_answer
from models.common.errors import RatchetError
from tasks.run_outcome import RunOutcome

POLL_S = 0.1
PATIENCE_S = 60.0
AGAIN_S = 0.5
BY_HAND = "by hand"


@dataclass(frozen=True)
class Activity:
    """What goes on with a model under `ratchet up`."""

    running: str = ""  # "train, epoch 3/12"
    since: float | None = None  # of that run, Unix time, s
    next_run: float | None = None  # Unix time, s


def look_now(root: Path) -> None:
    """Tells a `ratchet up` of this project, if there is one, that data was added or removed."""
    if place := find_up(root):
        with suppress(httpx.HTTPError):
            httpx.post(place.health.removesuffix("/health") + "/look", timeout=5, trust_env=False)


def retrain(place: Place, root: Path, model: str, commit: str, force: bool) -> RunOutcome:
    """Has a run carried out by `ratchet up` and waits for it, its log on standard error.

    Raises the RatchetError that it ended with. Ctrl-C cancels the run.
    """
    with httpx.Client(base_url=place.api, timeout=30, trust_env=False) as client:
        deployment = _get(client, f"/deployments/name/{FLOW}/{model}")
        parameters = {"model": model, "revision": commit, "force": force}
        once = str(uuid4())  # however often it has to be sent
        body = {"parameters": parameters, "tags": [BY_HAND], "state": {"type": "SCHEDULED"}, "idempotency_key": once}
        run = _post(client, f"/deployments/{deployment['id']}/create_flow_run", body)["id"]
        try:
            answer = _wait(root, run)
        except KeyboardInterrupt:
            _post(client, f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}, "force": True})
            _wait(root, run)
            raise
    if "error" in answer:
        error = RatchetError(answer["error"])
        error.exit_code = int(answer["exit_code"])
        raise error
    return outcome_from_json(answer)


def activities(root: Path) -> dict[str, Activity]:
    """What goes on, by model; empty where no `ratchet up` runs."""
    place = find_up(root)
    if place is None:
        return {}
    try:
        with httpx.Client(base_url=place.api, timeout=30, trust_env=False) as client:
            return _activities(client)
    except RatchetError:
        return {}


def _activities(client: httpx.Client) -> dict[str, Activity]:
    ours = {"deployments": {"tags": {"all_": ["ratchet"]}}}
    going = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}}, **ours}
    coming = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "sort": "EXPECTED_START_TIME_ASC", **ours}
    found: dict[str, Activity] = {}
    ask = partial(_post, client, patience=0.0)
    for run in ask("/flow_runs/filter", coming):
        when = _seconds(run["expected_start_time"])
        found.setdefault(str(run["parameters"].get("model")), Activity(next_run=when))
    for run in ask("/flow_runs/filter", going):
        model = str(run["parameters"].get("model"))
        known = found.get(model, Activity())
        since = _seconds(run["start_time"] or run["expected_start_time"])
        found[model] = Activity(_how_far(ask, run["id"], model), since, known.next_run)
    return found


def _how_far(ask: Callable[[str, dict[str, Any]], Any], run: str, model: str) -> str:
    """The step that is going on and, in training, the epoch."""
    steps = ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}, "sort": "EXPECTED_START_TIME_DESC"})
    step = next((str(step["name"]).rsplit("-", 1)[0] for step in steps if step["state_type"] == "RUNNING"), "starting")
    if step != "train":
        return step
    key = f"{model.replace('_', '-')}-training"
    bars = ask("/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC", "limit": 1})
    return f"train, {bars[0]['description']}" if bars else step


def _wait(root: Path, run: str) -> dict[str, Any]:
    """The run's answer, its log shown meanwhile."""
    with _tail(log_file(root, run)) as show_more:
        while True:
            answer = read_answer(root, run)
            show_more()
            if answer is not None:
                return answer
            if find_up(root) is None:
                raise RatchetError("`ratchet up` ended; it goes on with this run when it is started again: ratchet up")
            time.sleep(POLL_S)


@contextmanager
def _tail(log: Path) -> Iterator[Any]:
    """Gives a function that shows what was added to a log file since its last call."""
    position = 0

    def show_more() -> None:
        nonlocal position
        if not log.exists():
            return
        with log.open("rb") as file:
            file.seek(position)
            new = file.read()
        position += len(new)
        sys.stderr.write(new.decode(errors="replace"))
        sys.stderr.flush()

    yield show_more


def _get(client: httpx.Client, path: str) -> Any:
    answer = _answer(client, "GET", path)
    if answer.status_code == 404:
        raise RatchetError(
            "`ratchet up` does not know this model yet; it reads params.yaml in this checkout every few seconds."
            " What it says of it: curl its health address (ratchet status shows it)"
        )
    return answer.json()


def _post(client: httpx.Client, path: str, body: dict[str, Any], patience: float = PATIENCE_S) -> Any:
    return _answer(client, "POST", path, body, patience).json()


def _answer(
    client: httpx.Client, method: str, path: str, body: dict[str, Any] | None = None, patience: float = PATIENCE_S
) -> httpx.Response:
    """Tried again for `patience` seconds: a server on SQLite may be busy, and one that was killed is started again.

    RatchetError where it does not answer, or not as it must.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            answer = client.request(method, path, json=body)
            problem = f"{answer.status_code} {answer.text[:200]}"
            if answer.is_success or answer.status_code == 404:
                return answer
            if answer.status_code < 500:
                break
        except httpx.TransportError as error:
            problem = str(error) or type(error).__name__
        if time.monotonic() > deadline:
            break
        time.sleep(AGAIN_S)
    raise RatchetError(
        f"Prefect's server at {client.base_url} does not answer as it must: {problem}. See: ratchet status"
    )


def _seconds(timestamp: str | None) -> float | None:
    from datetime import datetime

    return datetime.fromisoformat(timestamp).timestamp() if timestamp else None
