"""The registry is git tags: read as GTO reads them, written so that only one of two promotions wins."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.common.errors import LostRaceError, PublishError, RegistryError, UserError
from tasks.project import repository
from tasks.project.registry import (
    Champion,
    champion,
    next_version,
    register_and_assign,
    rollback,
    synchronise,
    tags,
)
from tasks.promote import Candidate, record_judgement
from tests.conftest import git
from tests.test_repository import clone, share


def candidates(project: Path, count: int) -> list[str]:
    """Commits that stand for candidates; where they come from is no business of the registry."""
    tree = git(project, "rev-parse", "HEAD^{tree}")
    return [git(project, "commit-tree", tree, "-p", "HEAD", "-m", f"candidate {n}") for n in range(count)]


def promote(project: Path, commit: str) -> Champion:
    return register_and_assign(project, "digits", commit, champion(project, "digits"))


def gto(project: Path, *args: str) -> str:
    command = [str(Path(sys.executable).with_name("gto")), *args]
    return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout


def gto_champion(project: Path) -> tuple[str, str] | None:
    from gto.api import show

    stages = list(show(str(project), "digits#production"))
    return (stages[0]["version"], stages[0]["commit_hexsha"]) if stages else None


def agree(project: Path) -> tuple[str, str] | None:
    """The champion, which must be the same in GTO's reading and ours."""
    current = champion(project, "digits")
    as_ratchet_reads = (current.version, current.commit) if current else None
    assert gto_champion(project) == as_ratchet_reads
    return as_ratchet_reads


def test_a_model_never_promoted_has_no_champion(project: Path) -> None:
    assert champion(project, "digits") is None
    assert next_version(project, "digits") == "v1.0.0"


def test_promotions_in_one_second_are_read_in_order_by_us_and_by_gto(project: Path) -> None:
    for n, commit in enumerate(candidates(project, 11)):
        promoted = promote(project, commit)
        assert (promoted.version, promoted.number) == (f"v1.{n}.0", n + 1)
    assert agree(project) == ("v1.10.0", promoted.commit)


def dvc_champion(project: Path) -> str:
    """The commit in production as `dvc artifacts get --stage production` reads it."""
    from dvc.repo import Repo

    with Repo(str(project)) as repo:
        return str(repo.artifacts.get_rev("digits", stage="production"))


@pytest.mark.parametrize("jump", [-86_400, 86_400], ids=["a day back", "a day ahead and back"])
def test_the_newest_promotion_is_the_champion_for_everyone_though_the_clock_jumped(
    project: Path, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    now = time.time()
    first, second, third = candidates(project, 3)
    clock = iter([now, now + jump, now, now + jump])
    monkeypatch.setattr("tasks.project.registry.time", SimpleNamespace(time=lambda: next(clock)))  # no one else's
    promote(project, first)
    for version, commit in (("v1.1.0", second), ("v1.2.0", third)):
        promote(project, commit)
        assert agree(project) == (version, commit)
        assert dvc_champion(project) == commit
    assert rollback(project, "digits").version == "v1.1.0"
    assert agree(project) == ("v1.1.0", second)
    assert dvc_champion(project) == second
    times = [tag.time for tag in tags(project, "digits")]
    assert times == sorted(set(times))  # none at the same second as another


def test_rollback_is_a_new_tag_and_can_be_undone(project: Path) -> None:
    first, second, third = candidates(project, 3)
    for commit in (first, second, third):
        promote(project, commit)
    assert rollback(project, "digits").version == "v1.1.0"
    assert agree(project) == ("v1.1.0", second)
    assert rollback(project, "digits").version == "v1.0.0"
    assert rollback(project, "digits", "1.2.0").number == 6
    assert agree(project) == ("v1.2.0", third)
    assert git(project, "tag", "--list", "digits#production#*").count("\n") == 5


def test_rollback_that_cannot_be_says_what_can(project: Path) -> None:
    with pytest.raises(UserError, match="nothing in production"):
        rollback(project, "digits")
    promote(project, candidates(project, 1)[0])
    with pytest.raises(UserError, match="no version before it"):
        rollback(project, "digits")
    with pytest.raises(UserError, match=r"Versions: v1\.0\.0"):
        rollback(project, "digits", "v7.0.0")
    with pytest.raises(UserError, match="already in production"):
        rollback(project, "digits", "v1.0.0")


def test_tags_made_and_cancelled_with_gto_count_the_same(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = candidates(project, 3)
    promote(project, first)
    now = promote(project, second).since

    def later(name: str, commit: str) -> None:
        nonlocal now
        now += 1
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"{now} +0000")
        git(project, "tag", "--annotate", "--message=by hand", name, commit)

    later("digits#production!#3", second)
    assert agree(project) == ("v1.0.0", first)
    later("digits#production#4", second)
    later("digits#staging#5", first)
    assert agree(project) == ("v1.1.0", second)
    assert promote(project, third).number == 6
    now += 1
    later("digits@v1.2.0!", third)
    assert agree(project) == ("v1.1.0", second)
    assert next_version(project, "digits") == "v1.3.0"
    later("digits@deprecated#7", first)
    assert champion(project, "digits") is None


def test_a_stage_withdrawn_by_gto_s_own_command_is_withdrawn(project: Path) -> None:
    promote(project, candidates(project, 1)[0])
    time.sleep(1.1)  # GTO orders tags by whole seconds
    gto(project, "deprecate", "digits", "v1.0.0", "production")
    assert agree(project) is None


def test_a_lightweight_tag_is_not_a_promotion(project: Path) -> None:
    git(project, "tag", "digits#production#1")
    assert champion(project, "digits") is None


def test_a_name_that_only_begins_the_same_is_another_model(project: Path) -> None:
    commit = candidates(project, 1)[0]
    register_and_assign(project, "digits2", commit, None)
    assert champion(project, "digits") is None


def test_a_candidate_judged_against_a_champion_that_changed_is_not_promoted(project: Path) -> None:
    first, second, third = candidates(project, 3)
    judged_against = promote(project, first)
    promote(project, second)
    before = git(project, "for-each-ref")
    with pytest.raises(LostRaceError, match=r"changed from v1\.0\.0 to v1\.1\.0"):
        register_and_assign(project, "digits", third, judged_against, {f"refs/ratchet/digits/{'0' * 64}": third})
    assert git(project, "for-each-ref") == before


def test_of_two_clones_that_promote_at_once_one_wins(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = share(project, tmp_path)
    other = clone(origin, tmp_path / "other")
    first, second = candidates(project, 2)
    git(other, "fetch", "--quiet", str(project), first, second)
    promote(project, first)
    monkeypatch.setattr(
        "tasks.project.registry.synchronise", lambda *_: None
    )  # `other` looked just before `project` pushed
    before = git(other, "for-each-ref")
    with pytest.raises(LostRaceError, match="promoted by someone else"):
        register_and_assign(other, "digits", second, None)
    monkeypatch.undo()
    assert git(other, "for-each-ref") == before
    current = champion(other, "digits")
    assert current is not None
    assert (current.commit, len(tags(other, "digits"))) == (first, 2)


def after_a_push(origin: Path, *commands: str) -> None:
    """What the remote does once it has taken a push and before it answers."""
    hook = origin / "hooks/post-receive"
    hook.write_text("\n".join(["#!/bin/sh", "unset GIT_DIR", *commands]))
    hook.chmod(0o755)


@pytest.mark.parametrize("fetched", ["refs/tags/digits@*", "refs/tags/*"])
def test_a_promotion_that_was_pushed_is_not_called_lost(project: Path, tmp_path: Path, fetched: str) -> None:
    origin = share(project, tmp_path)
    first, second = candidates(project, 2)
    after_a_push(origin, f"git -C '{project}' fetch --quiet --no-tags origin '{fetched}:{fetched}'")
    also = {f"refs/ratchet/digits/{'0' * 64}": first}
    promoted = register_and_assign(project, "digits", first, None, also)
    assert champion(project, "digits") == promoted
    assert promote(project, second).version == "v1.1.0"
    assert git(project, "show-ref", "--tags") == git(origin, "show-ref", "--tags")
    assert git(project, "rev-parse", *also) == first


def test_a_promotion_whose_answer_was_lost_is_a_promotion(project: Path, tmp_path: Path) -> None:
    origin = share(project, tmp_path)
    after_a_push(origin, "kill -9 $PPID")
    promoted = promote(project, candidates(project, 1)[0])
    assert champion(project, "digits") == promoted


def test_a_promotion_tried_again_after_its_answer_was_lost_is_made_once(project: Path, tmp_path: Path) -> None:
    origin = share(project, tmp_path)
    commit = candidates(project, 1)[0]
    also = {f"refs/ratchet/digits/{'0' * 64}": commit}
    after_a_push(origin, f"mv '{origin}' '{tmp_path}/away'", "kill -9 $PPID")
    with pytest.raises(PublishError):
        register_and_assign(project, "digits", commit, None, also)
    (tmp_path / "away").rename(origin)
    promoted = register_and_assign(project, "digits", commit, None, also)
    assert (promoted.version, champion(project, "digits")) == ("v1.0.0", promoted)
    assert len(git(origin, "tag").splitlines()) == 4


def test_who_synchronises_while_the_same_clone_promotes_finds_nothing_odd(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(project, tmp_path)
    commit = candidates(project, 1)[0]

    def promoted_meanwhile(root: Path, *args: str) -> str:
        answer = repository.git(root, *args)
        if args[0] == "ls-remote":
            monkeypatch.undo()
            promote(project, commit)
        return answer

    monkeypatch.setattr("tasks.project.registry.git", promoted_meanwhile)
    synchronise(project, "digits")
    current = champion(project, "digits")
    assert current is not None
    assert current.commit == commit


@pytest.mark.parametrize("is_shared", [False, True])
def test_of_two_candidates_judged_from_the_same_inputs_the_second_has_lost_a_race(
    project: Path, tmp_path: Path, is_shared: bool
) -> None:
    if is_shared:
        share(project, tmp_path)
    first, second = (
        Candidate("digits", f"digits-{n}", commit, f"refs/ratchet/digits/{'0' * 64}", ())
        for n, commit in enumerate(candidates(project, 2))
    )
    record_judgement(project, first)
    with pytest.raises(LostRaceError, match="judged from the same inputs by someone else") as lost:
        record_judgement(project, second)
    assert lost.value.exit_code == RegistryError.exit_code
    assert git(project, "rev-parse", first.judgement_ref) == first.commit


def test_an_unreachable_registry_is_an_error_and_never_no_champion(project: Path, tmp_path: Path) -> None:
    share(project, tmp_path)
    git(project, "remote", "set-url", "origin", str(tmp_path / "nowhere"))
    with pytest.raises(RegistryError, match="champion is unknown"):
        champion(project, "digits")


def test_a_refused_push_promotes_nothing(project: Path, tmp_path: Path) -> None:
    hook = share(project, tmp_path) / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(PublishError, match="nothing changed"):
        promote(project, candidates(project, 1)[0])
    assert champion(project, "digits") is None


def test_a_tag_that_is_only_in_this_clone_is_not_silently_the_champion(project: Path, tmp_path: Path) -> None:
    promote(project, candidates(project, 1)[0])
    share(project, tmp_path)
    with pytest.raises(RegistryError, match="git push origin 'refs/tags/digits#production#1'"):
        champion(project, "digits")


def test_broken_tags_are_an_error_and_never_no_champion(project: Path) -> None:
    promote(project, candidates(project, 1)[0])
    (project / ".git/refs/tags/digits#production#1").write_text("garbage\n")
    with pytest.raises(RegistryError):
        champion(project, "digits")
