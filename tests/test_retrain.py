"""The whole chain for real, on a shared project: git and DVC remotes, a Prefect server, and the command line."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from models.common.errors import LostRaceError, PublishError, RatchetError, RegistryError
from tests.conftest import CODE, git
from tests.digits import write_digits
from tests.listening import webhook
from tests.world import CommandResult, World, prefect_server

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Prefect server for all of this file; every `ratchet` started here uses it."""
    home = tmp_path_factory.mktemp("prefect") / "home"
    with prefect_server(home) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", f"{url}/api")
        patch.setenv("PREFECT_HOME", str(home))
        yield url


@pytest.fixture(scope="module")
def promoted(
    _template: Path, digits: Path, server: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[World, CommandResult]:
    """A project with 200 digits and its first champion, and how `retrain` answered. To be copied."""
    world = World.make(tmp_path_factory.mktemp("world"), _template)
    assert world.ratchet("add", "digits", str(digits)).code == 0
    return world, world.ratchet("retrain", "digits", "--json")


@pytest.fixture
def world(promoted: tuple[World, CommandResult], tmp_path: Path) -> World:
    """A copy of the promoted project, for one test."""
    return promoted[0].copy(tmp_path / "world")


def flow_runs(server: str) -> list[dict[str, str]]:
    runs: list[dict[str, str]] = httpx.post(f"{server}/api/flow_runs/filter", json={}).json()
    return runs


def test_the_first_model_is_promoted_and_anyone_can_get_it(
    promoted: tuple[World, CommandResult], server: str, tmp_path: Path
) -> None:
    world, answer = promoted
    assert (answer.code, answer.json["state"], answer.json["version"]) == (0, "PROMOTED", "v1.0.0"), answer.err
    run = world.project / "artifacts/digits/runs/latest"
    assert {path.name for path in run.iterdir()} >= {"report.html", "verdict.json", "data_docs"}
    assert git(world.project, "status", "--porcelain") == ""
    assert len(git(world.project, "worktree", "list").splitlines()) == 1
    for artifact, found in (("digits", "digits.bento"), ("digits-program", "program/program.onnx")):
        command = ["dvc", "artifacts", "get", str(world.origin), artifact, "--stage", "production"]
        subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, check=True, capture_output=True)
        assert (tmp_path / found).stat().st_size > 1000
    lock = yaml.safe_load(git(world.project, "show", "digits#production#1:dvc.lock"))["stages"]
    assert set(lock) == {f"{stage}@digits" for stage in ("validate", "initial_weights", "train", "evaluate")}
    assert all(stage["outs"] for stage in lock.values())
    shown = [run for run in flow_runs(server) if run["name"] == f"digits@{answer.json['data_version']}"]
    assert shown[0]["state_name"] == "PROMOTED"
    artifacts = httpx.post(f"{server}/api/artifacts/filter", json={}).json()
    kinds = {artifact["key"]: artifact["type"] for artifact in artifacts}
    assert kinds["digits-decision"] == kinds["digits-metrics"] == "table"
    assert {"digits-report", "digits-data-docs", "digits-training"} <= set(kinds)


def test_nothing_new_is_unchanged_and_starts_nothing_heavy(world: World, server: str) -> None:
    before = len(flow_runs(server))
    answer = world.ratchet("retrain", "digits", "--json", "--exit-code")
    assert (answer.code, answer.json["state"], answer.json["version"]) == (12, "UNCHANGED", "v1.0.0")
    assert len(flow_runs(server)) == before
    assert answer.json["seconds"] < 2


def test_another_clone_knows_what_was_judged_and_what_is_in_production(world: World, tmp_path: Path) -> None:
    other = world.clone(tmp_path / "other")
    assert other.ratchet("retrain", "digits", "--json").json["state"] == "UNCHANGED"  # before anything synchronises
    assert (other.status()["version"], other.status()["rows"]) == ("v1.0.0", 200)


def test_judged_again_in_another_clone_is_a_further_candidate_by_every_name(world: World, tmp_path: Path) -> None:
    other = world.clone(tmp_path / "other")
    cache = Path(".dvc/cache")  # what DVC ran is known there, so that only the judgement is made anew
    shutil.copytree(world.project / cache, other.project / cache, dirs_exist_ok=True)
    answer = other.ratchet("retrain", "digits", "--force", "--json")
    first, again = (
        row["candidate"] for row in reversed(other.ratchet("history", "digits", "--json").json["candidates"])
    )
    assert answer.json["candidate"] == again == f"{first}-2"
    assert (other.project / "artifacts/digits/runs/latest").readlink().name == again


def test_a_worse_candidate_leaves_production_untouched(world: World, tmp_path: Path) -> None:
    wrong = write_digits(tmp_path / "wrong", 200, 500, shuffled=0.9)
    assert world.ratchet("add", "digits", str(wrong)).code == 0
    tags = git(world.project, "tag")
    answer = world.ratchet("retrain", "digits", "--json", "--exit-code")
    assert answer.json["state"] in {"HELD", "REJECTED"}, answer.err
    assert answer.code in {10, 11}
    assert "batch wrong-" in answer.json["reasons"][-1]  # and not a training that did not fit
    assert answer.json["suspects_batch"] == (answer.json["state"] == "REJECTED")
    assert git(world.project, "tag") == git(world.origin, "tag") == tags
    newest, oldest = world.ratchet("history", "digits", "--json").json["candidates"]
    assert (newest["verdict"], oldest["verdict"]) == (
        {"HELD": "HOLD", "REJECTED": "REJECT"}[answer.json["state"]],
        "PROMOTE",
    )
    assert (newest["version"], oldest["version"]) == (None, "v1.0.0")
    assert (newest["training"], oldest["training"]) == ("batch differs", "nothing wrong seen")
    assert world.ratchet("retrain", "digits", "--json").json["state"] == "UNCHANGED"  # not judged twice


@pytest.mark.slow
def test_a_candidate_that_lost_the_race_is_judged_again_against_the_winner(world: World) -> None:
    world.edit("gate: {metric: accuracy", "gate: {rule: non_inferior, margin: 0.5, metric: accuracy")
    lost = ("tasks.promote:publish_candidate", "promote", "retrain", "digits", "--json")
    answer = world.ratchet(*lost, module="tests.interfere")
    assert (answer.code, answer.json["state"]) == (0, "PROMOTED"), answer.err
    assert (answer.json["previous"], answer.json["version"]) == ("v1.1.0", "v1.2.0")  # v1.1.0 is the winner's
    assert "while the candidate was judged" in answer.err


def test_a_model_that_another_machine_retrains_is_refused_in_one_line(world: World) -> None:
    holds = (
        "import sys; from flows.retraining.one_at_a_time import one_at_a_time\n"
        "with one_at_a_time('digits'):\n    print('holds', flush=True); sys.stdin.read()"
    )
    env = os.environ | {"PYTHONPATH": str(CODE)}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", holds], env=env, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "holds\n"
        answer = world.ratchet("retrain", "digits", "--force")
        assert (answer.code, "is being retrained on another machine" in answer.error) == (2, True)
    assert other.returncode == 0


def test_a_remote_that_did_not_answer_is_tried_again_and_a_lost_race_is_not() -> None:
    from prefect.states import Failed

    from flows.retraining.chain import promote
    from flows.retraining.flow import as_task

    again = as_task(promote).retry_condition_fn
    assert again is not None

    def tried_again(error: RatchetError) -> bool:
        return bool(again(promote, None, Failed(data=error)))  # type: ignore[arg-type]  # the run is not looked at

    assert tried_again(RegistryError("the remote cannot be read"))
    assert tried_again(PublishError("the remote did not take it"))
    assert not tried_again(LostRaceError("the champion changed"))
    assert not tried_again(RatchetError("anything else"))


def test_what_moves_after_the_command_began_is_not_part_of_the_run(world: World) -> None:
    world.edit("width: 8", "width: -8")
    moves = ("tasks.project.fingerprint:read_inputs", "revert", "retrain", "digits")
    answer = world.ratchet(*moves, module="tests.interfere")
    assert (answer.code, "width" in answer.error) == (2, True)  # what was committed when the command began
    assert world.ratchet("retrain", "digits", "--json").json["state"] == "UNCHANGED"


def test_a_run_is_named_after_the_commit_that_it_works_on_though_its_branch_moves(world: World, server: str) -> None:
    run = (
        "from pathlib import Path; from tests.interfere import prepare\n"
        "prepare('flows.retraining.flow:read_inputs', 'revert')\n"
        "from flows.retraining.run import run_retrain; found = run_retrain(Path.cwd(), 'digits', 'main')\n"
        "print(found.state, found.data_version)"
    )
    before = {run["id"] for run in flow_runs(server)}
    env = os.environ | {"PYTHONPATH": f"{world.project}{os.pathsep}{CODE}"}
    command = [sys.executable, "-c", run]
    done = subprocess.run(command, cwd=world.project, env=env, capture_output=True, text=True, check=False)
    state, data_version = done.stdout.split() or ("", done.stderr)
    assert state == "UNCHANGED", data_version  # the newer commit has no data
    assert [run["name"] for run in flow_runs(server) if run["id"] not in before] == [f"digits@{data_version}"]
    assert git(world.project, "ls-tree", "HEAD", "data/digits/") == ""


def test_a_rollback_is_not_undone_by_the_next_run_and_can_go_forth(world: World) -> None:
    commit = git(world.project, "commit-tree", "digits#production#1^{tree}", "-p", "HEAD", "-m", "a second candidate")
    from tasks.project.registry import champion, register_and_assign

    register_and_assign(world.project, "digits", commit, champion(world.project, "digits"))
    assert world.ratchet("rollback", "digits", "--json").json == {
        "model": "digits",
        "version": "v1.0.0",
        "previous": "v1.1.0",
    }
    assert world.ratchet("retrain", "digits", "--json").json["state"] == "UNCHANGED"
    assert world.ratchet("rollback", "digits", "--to", "1.1.0").code == 0
    assert world.status()["version"] == "v1.1.0"


@pytest.mark.slow
def test_a_run_that_awaits_approval_is_over_in_prefect_and_says_so(world: World, server: str) -> None:
    world.edit("gate: {metric", "gate: {approval: manual, rule: non_inferior, margin: 0.5, metric")
    answer = world.ratchet("retrain", "digits", "--json")
    assert (answer.code, answer.json["state"], answer.json["version"]) == (0, "AWAITING_APPROVAL", "v1.0.0"), answer.err
    states = [(run["state_type"], run["state_name"]) for run in flow_runs(server)]
    assert ("COMPLETED", "AWAITING APPROVAL") in states
    assert world.ratchet("approve", "digits", "--json").json["version"] == "v1.1.0"


def test_an_unreachable_registry_is_an_error_that_is_told_and_not_a_first_model(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(world.project, "remote", "set-url", "origin", str(world.folder / "nowhere"))
    world.edit("epochs: 12", "epochs: 11")
    with webhook() as people:
        monkeypatch.setenv("RATCHET_NOTIFY", people.url)
        answer = world.ratchet("retrain", "digits", "--json")
        monkeypatch.delenv("RATCHET_NOTIFY")
        assert people.subjects == ["digits: ERROR"]
    assert (answer.code, answer.json["state"]) == (4, "ERROR")
    assert "champion is unknown" in answer.error
    assert world.ratchet("status").code == 4


@pytest.mark.slow
def test_two_models_retrain_at_once_and_one_model_only_once(world: World) -> None:
    section = (world.project / "params.yaml").read_text().split("models:\n")[1]
    world.edit("models:\n", "models:\n" + section.replace("  digits:", "  twins:"))
    source = world.folder / "twins"
    write_digits(source, 0, 200)
    assert world.ratchet("add", "twins", str(source)).code == 0
    world.edit("    gate: {metric", "    gate: {rule: non_inferior, margin: 0.5, metric")
    both = [world.start("retrain", name, "--json") for name in ("digits", "twins")]
    _wait_until(lambda: any((world.project / ".ratchet/work").glob("twins@*")))
    again = world.ratchet("retrain", "twins")
    first, second = [CommandResult.of(process) for process in both]
    assert (first.json["state"], second.json["state"]) == ("PROMOTED", "PROMOTED"), first.err + second.err
    assert (again.code, "retrained already" in again.error) == (2, True)


def test_the_server_s_pages_answer(server: str) -> None:
    for page in ("/runs", "/deployments", "/api/health"):
        answer = httpx.get(server + page, headers={"Accept": "text/html"})  # as a browser asks
        assert answer.status_code == 200, page
    assert httpx.get(f"{server}/ui-settings").json()["api_url"] == f"{server}/api"


def _wait_until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.3)
