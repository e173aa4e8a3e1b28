"""What is new since the last judgement, who waits for more, and what is noticed: from git alone."""

from pathlib import Path

import pandas as pd
import pytest

from flows.up.preparation import prepare
from flows.up.watch import look
from tasks.project.code import code_of
from tasks.project.fingerprint import judgement_ref, read_inputs
from tasks.project.new_data import new_data
from tasks.project.policy import WaitFor
from tests.conftest import git
from tests.test_repository import share


def add_batch(project: Path, name: str, rows: int) -> None:
    """A batch in git, whose bytes are nowhere."""
    folder = project / "data/digits"
    folder.mkdir(parents=True, exist_ok=True)
    pointer = f"outs:\n- md5: {name[0] * 32}\n  size: 1\n  hash: md5\n  path: {name}.parquet\n"
    (folder / f"{name}.parquet.dvc").write_text(pointer)
    pd.DataFrame({"id": [f"{name}{row}" for row in range(rows)]}).to_parquet(folder / f"{name}.index")
    commit(project, f"add {name}")


def commit(project: Path, message: str) -> str:
    git(project, "add", "--all")
    git(project, "commit", "--quiet", f"--message={message}")
    return git(project, "rev-parse", "HEAD")


def judge(project: Path) -> None:
    """A candidate of today's inputs, on top of them, as a run leaves it."""
    inputs = read_inputs(project, "digits")
    message = f"HOLD digits: no better\n\nVerdict: HOLD\nMade-From: {inputs.commit}"
    candidate = git(project, "commit-tree", f"{inputs.commit}^{{tree}}", "-p", inputs.commit, "-m", message)
    git(project, "update-ref", judgement_ref("digits", inputs.fingerprint), candidate)


def test_what_came_and_what_went_is_new(project: Path) -> None:
    add_batch(project, "a", 30)
    add_batch(project, "b", 50)
    assert (new := new_data(project, read_inputs(project, "digits"))).batches == 2
    assert (new.examples, new.recipe_changed) == (80, False)
    judge(project)
    assert new_data(project, read_inputs(project, "digits")).batches == 0
    add_batch(project, "c", 7)
    git(project, "rm", "--quiet", "data/digits/a.parquet.dvc", "data/digits/a.index")
    commit(project, "take a out")
    new = new_data(project, read_inputs(project, "digits"))
    assert (new.batches, new.examples, new.recipe_changed) == (2, 37, False)


def test_who_is_asked_by_nobody_waits_for_enough_but_not_for_code(project: Path) -> None:
    add_batch(project, "a", 30)
    judge(project)
    add_batch(project, "b", 5)
    asked = {"model": "digits", "revision": "HEAD"}
    waits = prepare(project, asked, WaitFor(examples=20))
    assert (waits.state, waits.message.split(" (")[0]) == ("WAITING", "waits for more data: 5 of 20 new examples")
    assert prepare(project, asked, WaitFor(examples=20, batches=1)).state is None  # either is enough
    assert prepare(project, asked, WaitFor(examples=5)).state is None
    assert prepare(project, asked, None).state is None  # a person asked
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 3", "epochs: 4"))
    commit(project, "train longer")
    assert prepare(project, asked, WaitFor(examples=20)).state is None


def test_what_was_judged_takes_no_slot(project: Path) -> None:
    add_batch(project, "a", 30)
    judge(project)
    asked = {"model": "digits", "revision": "HEAD"}
    assert prepare(project, asked, None).state == "UNCHANGED"
    assert prepare(project, {**asked, "force": True}, None).state is None
    assert prepare(project, {**asked, "revision": "nowhere"}, None).state is None  # the run itself will say it


@pytest.mark.parametrize("shared", [False, True])
def test_a_look_finds_each_new_thing_once(project: Path, tmp_path: Path, shared: bool) -> None:
    if shared:
        share(project, tmp_path)
    assert look(project) == []
    add_batch(project, "a", 30)
    if shared:
        assert look(project) == []  # it is not there for the others yet
        git(project, "push", "--quiet", "origin", "HEAD:main")
    assert [found.model for found in look(project)] == ["digits"]
    assert look(project) == []
    (project / "README.md").write_text("for people")
    commit(project, "what is no input")
    if shared:
        git(project, "push", "--quiet", "origin", "HEAD:main")
    assert look(project) == []


def test_code_of_a_commit_is_its_own_however_old_the_checkout_is(project: Path) -> None:
    old = git(project, "rev-parse", "HEAD")
    verdicts = project / "tasks/gating/verdict.py"
    verdicts.write_text(verdicts.read_text() + "\nNEWER = True\n")
    new = commit(project, "another gate")
    assert code_of(project, new, "flows/up/run.py") == project
    git(project, "checkout", "--quiet", old)
    assert code_of(project, old, "flows/up/run.py") == project
    folder = code_of(project, new, "flows/up/run.py")
    assert folder != project
    assert "NEWER" in (folder / "tasks/gating/verdict.py").read_text()
    assert code_of(project, new, "flows/up/run.py") == folder
    assert code_of(project, new, "flows/not/yet.py") == project  # of a Ratchet that had no such thing
    verdicts.write_text("# in the middle of an edit")
    assert code_of(project, old, "flows/up/run.py") != project
