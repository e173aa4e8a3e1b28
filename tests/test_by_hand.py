"""Decisions by a person: approve, decline, promote by force, roll back; who, when and why stays in the tags."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.common.errors import LostRaceError, UserError
from tasks.approve import approve, await_approval, decline
from tasks.overview import actions, history
from tasks.project.approvals import waiting
from tasks.project.fingerprint import find_judgement, judged_candidates, judgement_ref
from tasks.project.new_data import last_judged
from tasks.project.registry import champion, register_and_assign, rollback
from tasks.project.trace import ROLLED_BACK, trailers
from tasks.promote import Candidate
from tests.conftest import git
from tests.listening import Inbox, webhook
from tests.test_registry import after_a_push, agree, candidates, gto
from tests.test_repository import clone, share
from tests.world import PARAMS, World

pytestmark = pytest.mark.timeout(400)
ME = "Test <test@example.org>"
MANUAL = PARAMS.replace("gate: {", "gate: {approval: manual, floors: {accuracy: 0.1}, ")


def judged(project: Path, commit: str, number: int = 0) -> Candidate:
    """A candidate that awaits approval, judged against today's champion."""
    candidate = Candidate(
        "digits", f"digits-{number:08d}", commit, judgement_ref("digits", f"{number:08d}".ljust(64, "0")), ()
    )
    await_approval(project, candidate, champion(project, "digits"))
    return candidate


def test_approved_it_is_in_production_and_the_tag_says_who_and_why(project: Path) -> None:
    commit = candidates(project, 1)[0]
    judged(project, commit)
    assert champion(project, "digits") is None
    _, promoted = approve(project, "digits", None, "the new camera\nBy: someone else")
    assert (promoted.version, agree(project)) == ("v1.0.0", ("v1.0.0", commit))
    message = git(project, "for-each-ref", "--format=%(contents:body)", "refs/tags/digits#production#1")
    said = ["Action: approved", f"By: {ME}", "Why: the new camera By: someone else", "Candidate: digits-00000000"]
    assert message.splitlines() == [*said, f"Approved-By: {ME}"]
    assert "v1.0.0" in gto(project, "show", "digits")
    assert waiting(project, "digits") is None
    with pytest.raises(UserError, match=r"No candidate of digits awaits approval"):
        approve(project, "digits")


def test_the_log_of_approvals_is_no_candidate_wherever_its_name_sorts(project: Path) -> None:
    first, second = candidates(project, 2)
    for number, commit in (("0", first), ("f", second)):  # before and after the log's refs
        ref = judgement_ref("digits", number * 64)
        await_approval(project, Candidate("digits", f"digits-{number * 8}", commit, ref, ()), None)
        assert last_judged(project, "digits") in (first, second)
        assert {row.commit for row in history(project, "digits")} == {first, commit}
    assert judged_candidates(project, "digits") == {"digits-00000000": first, "digits-ffffffff": second}


def test_declined_it_waits_no_more_and_was_judged_all_the_same(project: Path) -> None:
    candidate = judged(project, candidates(project, 1)[0])
    with pytest.raises(UserError, match="--why 'TEXT'"):
        decline(project, "digits", None, " \n")
    decline(project, "digits", "digits-00000000", "too slow on the old phones")
    assert (waiting(project, "digits"), champion(project, "digits")) == (None, None)
    assert find_judgement(project, "digits", "0" * 64) == candidate.commit
    newest = actions(project, "digits")[0]
    assert (newest.action, newest.by, newest.why) == ("declined", ME, "too slow on the old phones")


def test_a_newer_candidate_supersedes_an_older_one(project: Path) -> None:
    first, second = candidates(project, 2)
    judged(project, first, 0)
    judged(project, second, 1)
    with pytest.raises(UserError, match="only digits-00000001 does"):
        approve(project, "digits", "digits-00000000")
    assert approve(project, "digits", second[:10])[1].commit == second


def test_what_was_judged_against_an_earlier_champion_is_not_approved_and_is_judged_again(project: Path) -> None:
    first, second, third = candidates(project, 3)
    for commit in (first, second):
        register_and_assign(project, "digits", commit, champion(project, "digits"))
    judged(project, third)
    assert find_judgement(project, "digits", "0" * 64) == third
    rollback(project, "digits")
    with pytest.raises(LostRaceError, match=r"judged against v1\.1\.0, and that is not in production any more"):
        approve(project, "digits")
    assert find_judgement(project, "digits", "0" * 64) is None
    rollback(project, "digits", "v1.1.0")  # the same model again, but its Bento's version may be taken by now
    with pytest.raises(LostRaceError):
        approve(project, "digits")


def test_of_two_clones_that_decide_at_once_one_has_decided(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = share(project, tmp_path)
    commit = candidates(project, 1)[0]
    judged(project, commit)
    other = clone(origin, tmp_path / "other")
    seen = waiting(project, "digits")
    assert seen
    decline(other, "digits", None, "no")  # which asks the remote what waits
    for module in ("approve", "project.registry"):  # `project` looked just before `other` pushed
        monkeypatch.setattr(f"tasks.{module}.synchronise", lambda *_: None)
    before = git(project, "for-each-ref")
    with pytest.raises(LostRaceError, match="Someone else decided"):
        approve(project, "digits")
    monkeypatch.undo()
    assert git(project, "for-each-ref") == before
    assert champion(project, "digits") is champion(other, "digits") is None


def test_waiting_that_is_recorded_again_after_its_answer_was_lost_is_recorded_once(
    project: Path, tmp_path: Path
) -> None:
    origin = share(project, tmp_path)
    after_a_push(origin, "kill -9 $PPID")
    commit = candidates(project, 1)[0]
    for _ in range(2):
        judged(project, commit)
    assert git(project, "for-each-ref", "--format=%(refname)", "refs/ratchet").splitlines() == [
        f"refs/ratchet/digits/{'0' * 64}",
        "refs/ratchet/digits/approval-0001",
    ]


def test_a_rollback_says_why_and_tags_that_say_nothing_are_listed_too(project: Path) -> None:
    first, second = candidates(project, 2)
    for commit in (first, second):
        register_and_assign(project, "digits", commit, champion(project, "digits"))
    assert [trace.version for trace in actions(project, "digits")] == ["v1.1.0", "v1.0.0"]
    rollback(project, "digits", None, trailers(project, ROLLED_BACK, "sevens read as ones: #12, 100 %"))
    assert [(trace.action, trace.version, trace.why) for trace in actions(project, "digits")] == [
        ("rolled back", "v1.0.0", "sevens read as ones: #12, 100 %"),
        ("put in production", "v1.1.0", None),
        ("put in production", "v1.0.0", None),
    ]
    assert {trace.by for trace in actions(project, "digits")} == {ME}


@pytest.fixture(scope="module")
def told() -> Iterator[Inbox]:
    """What people are told of the runs below."""
    with webhook() as inbox:
        yield inbox


@pytest.fixture(scope="module")
def waits(_template: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory, told: Inbox) -> World:
    """A candidate that awaits approval, and then a run with nothing new. To be copied."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATCHET_NOTIFY", told.url)
        return _wait(World.make(tmp_path_factory.mktemp("by-hand"), _template, MANUAL), digits)


def _wait(world: World, digits: Path) -> World:
    assert world.ratchet("add", "digits", str(digits)).code == 0
    git(world.project, "push", "--quiet", "origin", "HEAD:main")
    answer = world.ratchet("retrain", "digits", "--json", "--exit-code")
    assert (answer.code, answer.json["state"], answer.json["version"]) == (13, "AWAITING_APPROVAL", None), answer.err
    assert world.ratchet("retrain", "digits", "--json").json["state"] == "UNCHANGED"
    return world


def test_people_are_told_how_a_run_ended_and_what_to_do_and_nothing_of_unchanged(waits: World, told: Inbox) -> None:
    [(subject, body)] = told.messages
    assert subject == "digits: AWAITING APPROVAL"
    assert "accuracy" in body
    assert "ratchet approve digits" in body
    report = re.search("Look at: (.*)", body)
    assert report
    assert Path(report[1]).name == "report.html"
    assert Path(report[1]).exists()


def get_bento(world: World, folder: Path) -> int:
    """Size of what anyone gets who asks for the service in production."""
    command = ["dvc", "artifacts", "get", str(world.origin), "digits", "--stage", "production"]
    command += ["--config", str(world.project / ".dvc/config.local")]  # a copied world's bytes are elsewhere
    subprocess.run([sys.executable, "-m", *command], cwd=folder, check=True, capture_output=True)
    return (folder / "digits.bento").stat().st_size


def listed(world: World, key: str) -> list[dict[str, Any]]:
    """What `ratchet history` lists: candidates or actions."""
    rows: list[dict[str, Any]] = world.ratchet("history", "digits", "--json").json[key]
    return rows


def test_what_waits_is_seen_in_another_clone_approved_there_and_not_trained_again(waits: World, tmp_path: Path) -> None:
    other = waits.copy(tmp_path / "world").clone(tmp_path / "other")
    again = other.ratchet("retrain", "digits", "--json").json
    assert (again["state"], "awaits approval since" in again["reasons"][0]) == ("UNCHANGED", True)
    assert other.status()["awaiting"]["version"] == "v1.0.0"
    assert "ratchet approve digits" in other.ratchet("status").out
    answer = other.ratchet("approve", "digits", "--why", "looked at 50 of them", "--json")
    assert (answer.code, answer.json["version"], answer.json["previous"]) == (0, "v1.0.0", None)
    assert [(row["verdict"], row["version"], row["decision"]) for row in listed(other, "candidates")] == [
        ("PROMOTE", "v1.0.0", "approved")
    ]
    assert [trace["why"] for trace in listed(other, "actions")] == ["looked at 50 of them", None]
    assert "looked at 50 of them" in other.ratchet("history", "digits").out
    assert other.ratchet("retrain", "digits", "--json").json["state"] == "UNCHANGED"
    assert get_bento(World(tmp_path / "world"), tmp_path) > 1000


@pytest.mark.slow
def test_a_rejected_one_is_put_in_production_only_by_force_and_with_a_reason(waits: World, tmp_path: Path) -> None:
    world = waits.copy(tmp_path / "world")
    world.edit("accuracy: 0.1", "accuracy: 0.9999")
    assert world.ratchet("retrain", "digits", "--json").json["state"] == "REJECTED"
    rejected, waiting_one = (row["candidate"] for row in listed(world, "candidates"))
    refused = world.ratchet("promote", "digits", rejected)
    assert (refused.code, "was judged REJECT: accuracy" in refused.error) == (2, True)
    assert "--why 'TEXT'" in world.ratchet("promote", "digits", rejected, "--force").error
    assert "awaits approval" in world.ratchet("promote", "digits", waiting_one, "--force", "--why", "x").error
    assert "no candidate 'nonsense'" in world.ratchet("promote", "digits", "nonsense").error
    assert (world.status()["version"], git(world.project, "tag")) == (None, "")
    killed = ("tasks.force:_fetch", "die", "promote", "digits", rejected, "--force", "--why", "x")
    assert world.ratchet(*killed, module="tests.interfere").code == 9
    forced = world.ratchet("promote", "digits", rejected, "--force", "--why", "the fair is tomorrow", "--json")
    assert (forced.code, forced.json["verdict"], forced.json["version"]) == (0, "REJECT", "v1.0.0"), forced.err
    assert git(world.project, "status", "--porcelain") == ""
    assert len(git(world.project, "worktree", "list").splitlines()) == 1
    assert get_bento(world, tmp_path) > 1000
    rows = [(row["version"], row["decision"]) for row in listed(world, "candidates")]
    assert rows == [("v1.0.0", "forced"), (None, None)]  # the other one's turn has passed
    assert listed(world, "actions")[0]["why"] == "the fair is tomorrow"
    assert "v1.0.0 already" in world.ratchet("promote", "digits", rejected).error
    assert "judged against nothing" in world.ratchet("approve", "digits").error  # something else is there now
