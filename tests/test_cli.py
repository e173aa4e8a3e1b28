"""The command line: mistakes in it, and a Prefect server that is not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.retraining.notify import ending, message
from flows.tables import show_outcome
from tasks.run_outcome import RunOutcome


def ratchet(project: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=project,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["add"], "Missing argument 'model'"),
        (["retrain", "digits", "--bogus"], "No such option: --bogus"),
    ],
)
def test_a_mistyped_command_says_what_is_wrong_and_exits_with_2(
    project: Path, arguments: list[str], message: str
) -> None:
    done = ratchet(project, *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert message in done.stderr


def test_a_prefect_server_that_is_not_there_is_one_line(project: Path, digits: Path) -> None:
    assert ratchet(project, "add", "digits", str(digits)).returncode == 0
    done = ratchet(project, "retrain", "digits", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "PREFECT_API_URL=http://127.0.0.1:9/api does not answer" in done.stderr
    assert "unset PREFECT_API_URL" in done.stderr


def test_a_model_without_data_says_how_to_add_some(project: Path) -> None:
    done = ratchet(project, "retrain", "digits")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "ratchet add digits SOURCE" in done.stderr


@pytest.mark.parametrize("suspected", [True, False])
def test_a_candidate_that_is_worse_for_its_data_says_how_to_take_it_out(
    suspected: bool, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = RunOutcome("digits", "REJECTED", ("accuracy 0.9 → 0.8: worse",), "v1.0.0", suspects_batch=suspected)
    show_outcome(outcome)
    assert ("ratchet remove digits BATCH" in capsys.readouterr().out) == suspected
    _, body = message(project, ending(outcome))
    assert ("Is a batch at fault? Take it out: ratchet remove digits BATCH" in body) == suspected
    assert ("See: ratchet history digits" in body) != suspected
