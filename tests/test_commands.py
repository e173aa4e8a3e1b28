"""Each command of `ratchet` on small projects: help, answers, one line where something cannot be, exit codes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from models.common.data.batches import data_version
from models.common.errors import RegistryError
from tasks.project.fingerprint import find_judgement, judgement_ref, read_inputs
from tests.conftest import CODE, git
from tests.test_repository import clone, share
from tests.world import CommandResult


def ratchet(root: Path, *arguments: str, module: str = "flows.cli") -> CommandResult:
    env = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{CODE}", "COLUMNS": "100"}
    command = [sys.executable, "-m", module, *arguments]
    pipe = subprocess.PIPE
    return CommandResult.of(subprocess.Popen(command, cwd=root, env=env, stdout=pipe, stderr=pipe, text=True))


@pytest.fixture
def with_data(project: Path) -> Path:
    """The project with a batch in git; its bytes are nowhere, which is no matter to what only looks."""
    folder = project / "data/digits"
    folder.mkdir(parents=True)
    pointer = f"outs:\n- md5: {'a' * 32}\n  size: 1\n  hash: md5\n  path: one.parquet\n"
    (folder / "one.parquet.dvc").write_text(pointer)
    pd.DataFrame({"id": ["a"]}).to_parquet(folder / "one.index")
    git(project, "add", "data")
    git(project, "commit", "--quiet", "--message=data")
    return project


def judge_by_hand(project: Path) -> None:
    """Notes today's inputs as judged; the candidate is HEAD itself."""
    inputs = read_inputs(project, "digits")
    git(project, "update-ref", judgement_ref("digits", inputs.fingerprint), inputs.commit)


@pytest.mark.parametrize(
    "command",
    [
        "add",
        "remove",
        "retrain",
        "status",
        "history",
        "approve",
        "decline",
        "promote",
        "rollback",
        "gc",
        "serve",
        "schedule",
    ],
)
def test_each_command_explains_itself(command: str) -> None:
    answer = ratchet(CODE, command, "--help")
    assert answer.code == 0
    assert f"cli {command}" in answer.out
    assert len(answer.out.splitlines()) > 8


def test_a_model_that_is_not_there_is_one_line_that_names_those_there_are(project: Path) -> None:
    for command in ("retrain", "history"):
        answer = ratchet(project, command, "letters")
        assert (answer.code, "Unknown model 'letters'" in answer.error, "digits" in answer.error) == (2, True, True)


def test_an_unknown_revision_is_one_line(project: Path) -> None:
    answer = ratchet(project, "retrain", "digits", "--revision", "nowhere", "--json")
    assert "Unknown revision 'nowhere'" in answer.error
    assert answer.json["state"] == "ERROR"


def test_outside_of_a_project_is_one_line(tmp_path: Path, project: Path) -> None:
    for package in ("flows", "tasks", "models"):
        shutil.copytree(project / package, tmp_path / package)
    assert "not in a git repository" in ratchet(tmp_path, "status").error


def test_status_says_what_the_next_run_would_find(with_data: Path) -> None:
    row = ratchet(with_data, "status", "--json").json["models"][0]
    assert (row["version"], row["rows"], row["waiting"]) == (None, 1, "something new to judge")
    assert "nothing yet" in ratchet(with_data, "status").out


def test_history_of_a_fresh_project_says_how_to_begin(project: Path) -> None:
    assert "ratchet retrain digits" in ratchet(project, "history", "digits").out


def test_nothing_to_serve_or_roll_back_is_one_line(project: Path) -> None:
    for command in ("serve", "rollback"):
        answer = ratchet(project, command, "digits")
        assert (answer.code, "nothing in production yet" in answer.error) == (2, True)


def test_ctrl_c_is_one_line_and_130(with_data: Path) -> None:
    point = "tasks.project.fingerprint:read_inputs"
    answer = ratchet(with_data, point, "interrupt", "retrain", "digits", module="tests.interfere")
    assert (answer.code, "interrupted" in answer.error) == (130, True)


def test_uncommitted_changes_are_reported_and_a_detached_head_is_no_hindrance(with_data: Path) -> None:
    git(with_data, "checkout", "--quiet", "--detach")
    (with_data / "Makefile").write_text("changed")
    judge_by_hand(with_data)
    answer = ratchet(with_data, "retrain", "digits", "--json")
    assert (answer.code, answer.json["state"]) == (0, "UNCHANGED")
    assert "1 uncommitted changes" in answer.json["notes"][0]


def test_a_change_of_schedule_is_nothing_new_and_a_change_of_data_is(with_data: Path) -> None:
    judge_by_hand(with_data)
    before = read_inputs(with_data, "digits")
    params = with_data / "params.yaml"
    params.write_text(params.read_text() + "    schedule: {cron: '0 3 * * *'}\n")
    git(with_data, "commit", "--quiet", "--all", "--message=schedule")
    assert read_inputs(with_data, "digits").fingerprint == before.fingerprint
    pointer = with_data / "data/digits/one.parquet.dvc"
    pointer.write_text(pointer.read_text().replace("a" * 32, f"'{'1' * 32}'"))
    git(with_data, "commit", "--quiet", "--all", "--message=data")
    after = read_inputs(with_data, "digits")
    assert after.fingerprint != before.fingerprint
    assert after.data_version != before.data_version


def test_a_clone_made_anew_knows_what_was_judged_and_trains_nothing(with_data: Path, tmp_path: Path) -> None:
    origin = share(with_data, tmp_path)
    judge_by_hand(with_data)
    git(with_data, "push", "--quiet", "origin", "refs/ratchet/*:refs/ratchet/*")
    fresh = clone(origin, tmp_path / "fresh")
    answer = ratchet(fresh, "retrain", "digits", "--json")
    assert (answer.code, answer.json["state"]) == (0, "UNCHANGED"), answer.err


def test_what_was_judged_here_is_known_without_asking_the_remote(with_data: Path, tmp_path: Path) -> None:
    share(with_data, tmp_path).rename(tmp_path / "away")
    judge_by_hand(with_data)
    inputs = read_inputs(with_data, "digits")
    assert find_judgement(with_data, "digits", inputs.fingerprint) == inputs.commit
    with pytest.raises(RegistryError):
        find_judgement(with_data, "digits", "0" * 64)


def test_the_data_version_of_a_commit_is_that_of_its_files(with_data: Path) -> None:
    assert read_inputs(with_data, "digits").data_version == data_version(with_data / "data/digits")


def fingerprints(project: Path, *changed: str) -> set[str]:
    """Of the project as it is, and after a change to each of these files."""
    fingerprints = {read_inputs(project, "digits").fingerprint}
    for name in changed:
        path = project / name
        path.write_text(path.read_text() + "\n# changed\n")
        git(project, "commit", "--quiet", "--all", f"--message={name}")
        fingerprints.add(read_inputs(project, "digits").fingerprint)
    return fingerprints


def test_any_code_that_a_stage_depends_on_is_an_input(with_data: Path) -> None:
    trains = (
        "tasks/train.py",
        "models/common/program/program.py",
        "models/image_classification/params.py",
        "dvc.yaml",
    )
    assert len(fingerprints(with_data, *trains)) == 5


def test_what_judges_and_the_locked_environment_are_inputs(with_data: Path) -> None:
    judges = (
        "tasks/gating/gate.py",
        "tasks/judge.py",
        "tasks/packaging/smoke_test.py",
        "models/common/program/service.py",
        "models/image_classification/predictor.py",
        "requirements.txt",
    )
    assert len(fingerprints(with_data, *judges)) == 7


def test_what_only_carries_a_run_out_is_no_input(with_data: Path) -> None:
    runs = ("tasks/project/workspace.py", "tasks/project/stages.py", "tasks/project/lineage.py", "tasks/promote.py")
    assert len(fingerprints(with_data, *runs)) == 1


def test_what_only_shows_is_no_input(with_data: Path) -> None:
    shows = (
        "models/common/reporting/svg.py",
        "models/image_classification/report.py",
        "tasks/report.py",
        "tasks/report.html.j2",
        "tasks/validation/data_docs.py",
        "tasks/validation/data_docs.html.j2",
        "tasks/packaging/champion_bento.py",
        "flows/tables.py",
    )
    assert len(fingerprints(with_data, *shows)) == 1
