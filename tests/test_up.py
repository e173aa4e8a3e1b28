"""`ratchet up` for real: a Prefect server of its own, a shared project, triggers, kills. In the order of a day."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tasks.serve import free_port
from tests.conftest import git
from tests.digits import write_digits
from tests.world import World

pytestmark = pytest.mark.timeout(600)
SOON = 120.0  # s; for what takes seconds on a quiet machine


class Loop:
    """`ratchet up` of a world."""

    def __init__(self, world: World) -> None:
        self.world, self.port = world, free_port()
        self.log = world.project / ".ratchet/logs/up.log"

    def start(self) -> None:
        answer = self.world.ratchet("up", "--detach", "--look-every", "1", "--port", str(self.port))
        assert answer.code == 0, answer.err

    @property
    def place(self) -> dict[str, Any]:
        place: dict[str, Any] = json.loads((self.world.project / ".ratchet/up/place.json").read_text())
        return place

    def health(self) -> httpx.Response:
        return httpx.get(self.place["health"], trust_env=False)

    def runs(self, model: str = "digits") -> list[dict[str, Any]]:
        """Prefect's record of the model's runs that are not in the future, oldest first."""
        found = httpx.post(f"{self.place['api']}/flow_runs/filter", json={}, trust_env=False).json()
        past = [run for run in found if run["parameters"]["model"] == model and run["state_name"] != "Scheduled"]
        return sorted(past, key=lambda run: str(run["created"]))

    def deployment(self, model: str = "digits") -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(
            f"{self.place['api']}/deployments/name/retrain/{model}", trust_env=False
        ).json()
        return found

    def answers(self) -> bool:
        """Whether its Prefect server does."""
        try:
            return httpx.get(f"{self.place['api']}/health", trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def said(self, text: str) -> bool:
        return text in self.log.read_text()


@pytest.fixture(scope="module")
def loop(_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A shared project without data, and its loop, which the tests of this file go through in their order."""
    world = World.make(tmp_path_factory.mktemp("loop"), _template)
    world.edit("epochs: 12", "epochs: 4")
    git(world.project, "push", "--quiet", "--set-upstream", "origin", "main")
    loop = Loop(world)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PREFECT_API_URL", raising=False)
        loop.start()
        yield loop
        world.ratchet("down")


def wait_until(there: Callable[[], bool], seconds: float = SOON) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


def processes_of(world: World, folder: str = "") -> list[psutil.Process]:
    """Everything that runs in this project or a folder of it, but this test."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(world.project / folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_it_is_ready_and_says_where(loop: Loop) -> None:
    health = loop.health()
    assert (health.status_code, health.json()["status"]) == (200, "ok")
    assert loop.place["api"] == f"http://127.0.0.1:{loop.port}/api"
    as_a_browser = {"Accept": "text/html"}
    assert httpx.get(f"http://127.0.0.1:{loop.port}/runs", headers=as_a_browser, trust_env=False).status_code == 200
    assert loop.deployment()["schedules"][0]["schedule"]["cron"] == "0 3 * * *"
    wait_until(lambda: loop.world.status()["next_run"] is not None)


def test_a_second_one_says_where_the_first_one_is(loop: Loop) -> None:
    again = loop.world.ratchet("up")
    assert again.code == 2
    assert f"http://127.0.0.1:{loop.port} (process {loop.place['process_id']})" in again.error


def test_new_data_is_retrained_at_once_and_what_ratchet_writes_triggers_nothing(loop: Loop, digits: Path) -> None:
    assert loop.world.ratchet("add", "digits", str(digits)).code == 0
    wait_until(lambda: [run["state_name"] for run in loop.runs()] == ["PROMOTED"])
    assert loop.world.status()["version"] == "v1.0.0"
    time.sleep(4)  # four looks at the remote
    assert len(loop.runs()) == 1


def test_retrain_asks_the_loop_and_nothing_new_starts_nothing(loop: Loop) -> None:
    answer = loop.world.ratchet("retrain", "digits", "--json")
    assert (answer.json["state"], len(loop.runs())) == ("UNCHANGED", 1)
    button = httpx.post(
        f"{loop.place['api']}/deployments/{loop.deployment()['id']}/create_flow_run", json={}, trust_env=False
    ).json()["id"]
    wait_until(lambda: loop.runs()[-1]["state_name"] == "UNCHANGED")
    assert not (loop.world.project / f".ratchet/logs/runs/{button}.log").exists()  # no process was started for it


def test_params_are_taken_over_and_wrong_ones_leave_what_was(loop: Loop) -> None:
    params = loop.world.project / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("0 3 * * *", "0 4 * * *"))
    wait_until(lambda: loop.deployment()["schedules"][0]["schedule"]["cron"] == "0 4 * * *")
    params.write_text(before.replace("epochs: 4", "epochs: four"))
    wait_until(lambda: bool(loop.health().json()["problems"]))
    assert "models.digits.train.epochs" in loop.health().json()["problems"][0]
    assert loop.deployment()["schedules"][0]["schedule"]["cron"] == "0 4 * * *"
    params.write_text(before.replace("0 3 * * *", "never"))
    wait_until(lambda: "schedule" in str(loop.health().json()["problems"]))
    params.write_text(before)
    wait_until(lambda: not loop.health().json()["problems"])


def test_what_others_push_waits_until_it_is_enough_and_a_person_need_not_wait(loop: Loop, tmp_path: Path) -> None:
    params = loop.world.project / "params.yaml"
    params.write_text(params.read_text().replace("cron: '0 3 * * *'", "cron: '0 3 * * *', wait_for: {examples: 1000}"))
    wait_until(lambda: loop.log.read_text().count("models: digits") >= 5)
    other = loop.world.clone(tmp_path / "other")
    assert other.ratchet("add", "digits", str(write_digits(tmp_path / "more", 200, 300))).code == 0
    wait_until(lambda: loop.runs()[-1]["state_name"] == "WAITING")
    assert "of 1,000 new examples" in loop.log.read_text()


def test_killed_in_mid_run_it_goes_on_where_it_was(loop: Loop) -> None:
    git(loop.world.project, "pull", "--quiet", "--rebase", "--autostash")
    person = loop.world.start("retrain", "digits", "--json")
    wait_until(lambda: any(run["state_name"] == "Running" for run in loop.runs()) or person.poll() is not None)
    assert person.poll() is None, person.communicate()
    os.kill(loop.place["process_id"], signal.SIGKILL)
    _out, err = person.communicate(timeout=SOON)
    assert "goes on with this run when it is started again" in err
    wait_until(lambda: not processes_of(loop.world))  # nothing is left running
    loop.start()
    wait_until(lambda: loop.runs()[-1]["state_name"] in {"PROMOTED", "HELD", "REJECTED"})
    assert {run["state_name"] for run in loop.runs()} <= {"PROMOTED", "HELD", "REJECTED", "UNCHANGED", "WAITING"}
    assert len(git(loop.world.project, "worktree", "list").splitlines()) == 1


def test_a_prefect_server_that_is_killed_is_started_again(loop: Loop) -> None:
    server = next(process for process in processes_of(loop.world, ".ratchet") if "prefect" in process.cmdline())
    server.kill()
    wait_until(lambda: loop.said("Prefect's server is gone"), 20)
    wait_until(loop.answers)


def test_ctrl_c_of_a_waiting_retrain_cancels_its_run_and_frees_its_slot(loop: Loop) -> None:
    person = loop.world.start("retrain", "digits", "--force")
    wait_until(lambda: loop.runs()[-1]["state_name"] == "Running")
    person.send_signal(signal.SIGINT)
    person.communicate(timeout=SOON)
    assert person.returncode == 130
    wait_until(lambda: loop.runs()[-1]["state_name"] == "Cancelled")
    assert loop.health().json()["running"] == []


def test_a_run_whose_process_is_killed_is_started_again(loop: Loop) -> None:
    person = loop.world.start("retrain", "digits", "--force", "--json")
    wait_until(lambda: loop.runs()[-1]["state_name"] == "Running")
    run = next(process for process in processes_of(loop.world) if "flows.up.run" in process.cmdline())
    run.kill()
    out, err = person.communicate(timeout=SOON)
    assert json.loads(out)["state"] in {"PROMOTED", "HELD", "REJECTED"}, err
    assert loop.said("its process ended before its time; it is started again")


def test_down_ends_everything(loop: Loop) -> None:
    assert loop.world.ratchet("down").code == 0
    assert not loop.said("Traceback")
    assert not processes_of(loop.world)
    again = loop.world.ratchet("down")
    assert (again.code, "No `ratchet up` runs" in again.error) == (2, True)


def test_a_server_of_one_s_own_that_is_not_there_is_one_line(loop: Loop) -> None:
    command = [sys.executable, "-m", "flows.cli", "up"]
    env = os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PYTHONPATH": str(loop.world.project)}
    done = subprocess.run(command, cwd=loop.world.project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("error: The Prefect server at PREFECT_API_URL=")
