"""What Ratchet does to git and DVC around a model: commits of some paths only, and pushes that survive a race."""

import subprocess
from pathlib import Path

import pytest

from models.common.errors import PublishError, UserError
from tasks.project.paths import home
from tasks.project.publishing import publish
from tasks.project.repository import commit, dvc_remote, git_remote, is_shared, reason_not_shared
from tests.conftest import git


def clone(origin: Path, into: Path) -> Path:
    git(origin.parent, "clone", "--quiet", str(origin), str(into))
    return into


def share(project: Path, tmp_path: Path) -> Path:
    """Gives the project a bare git remote and a DVC remote, both folders; returns the bare repository."""
    origin = tmp_path / "origin.git"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    remote = tmp_path / "bytes"
    remote.mkdir()
    (project / ".dvc/config").write_text(
        f"[core]\n    analytics = false\n    remote = store\n['remote \"store\"']\n    url = {remote}\n"
    )
    git(project, "commit", "--quiet", "--all", "--message=a DVC remote")
    git(project, "remote", "add", "origin", str(origin))
    git(project, "push", "--quiet", "origin", "main")
    return origin


def test_a_commit_holds_only_the_paths_it_was_given(project: Path) -> None:
    (project / "mine.txt").write_text("1")
    (project / "other.txt").write_text("2")
    git(project, "add", "other.txt")
    commit(project, ["mine.txt"], "mine")
    assert git(project, "show", "--name-only", "--format=", "HEAD") == "mine.txt"
    assert git(project, "status", "--porcelain") == "A  other.txt"


def test_a_removed_path_is_committed_and_nothing_new_makes_no_commit(project: Path) -> None:
    (project / "Makefile").unlink()
    first = commit(project, ["Makefile"], "gone")
    assert git(project, "show", "--name-status", "--format=", "HEAD").split() == ["D", "Makefile"]
    assert commit(project, ["dvc.yaml"], "nothing") == first


def test_a_commit_on_a_detached_head_is_refused(project: Path) -> None:
    git(project, "checkout", "--quiet", "--detach")
    with pytest.raises(UserError, match="detached"):
        commit(project, ["dvc.yaml"], "no")


def test_a_commit_without_an_identity_says_how_to_set_one(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    (project / "new.txt").write_text("1")
    with pytest.raises(UserError, match=r"git config user\.name"):
        commit(project, ["new.txt"], "no")


def test_a_project_without_remotes_is_local_and_says_so(project: Path) -> None:
    assert (git_remote(project), dvc_remote(project), is_shared(project)) == (None, None, False)
    assert "no DVC remote" in str(reason_not_shared(project))
    assert not publish(project)


def test_home_is_the_main_checkout_s_whichever_worktree_asks(project: Path, tmp_path: Path) -> None:
    git(project, "worktree", "add", "--quiet", "--detach", str(tmp_path / "tree"))
    assert home(tmp_path / "tree") == home(project / "tasks") == project / ".ratchet"


def test_two_clones_that_publish_at_once_both_succeed(project: Path, tmp_path: Path) -> None:
    origin = share(project, tmp_path)
    other = clone(origin, tmp_path / "other")
    for root, name in ((project, "one"), (other, "two")):
        (root / name).write_text(name)
        commit(root, [name], name)
    assert publish(project)
    assert publish(other)
    assert set(git(origin, "log", "-2", "--format=%s", "main").split()) == {"one", "two"}


def test_a_refused_push_keeps_the_commit_and_says_what_to_run(project: Path, tmp_path: Path) -> None:
    hook = share(project, tmp_path) / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    (project / "new").write_text("1")
    own_commit = commit(project, ["new"], "new")
    with pytest.raises(PublishError, match="To publish: git pull --rebase && git push"):
        publish(project)
    assert git(project, "rev-parse", "HEAD") == own_commit


def test_an_unreachable_remote_is_a_publish_error(project: Path, tmp_path: Path) -> None:
    share(project, tmp_path)
    git(project, "remote", "set-url", "origin", str(tmp_path / "nowhere"))
    with pytest.raises(PublishError, match="not published"):
        publish(project)
    assert subprocess.run(["git", "status"], cwd=project, check=False, capture_output=True).returncode == 0
