"""Remotes that are away, full or refuse: one line says what and what to do, production stays, the next run is fine."""

import os
from pathlib import Path

import pytest

from models.common.errors import PublishError, RatchetError
from tasks.add import add
from tasks.project.git_locks import remove_abandoned_lock
from tasks.project.publishing import publish, take_back_rebase, unpublished_pointers
from tasks.project.reasons import reason
from tasks.project.repository import git as run_git
from tasks.remove import remove
from tests.conftest import git
from tests.test_repository import clone, share


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (
            "ERROR: failed to transfer '50da' - [Errno 28] No space left on device: 'a' -> 'b'\n"
            "ERROR: failed to push data to the cloud - 1 files failed to upload\n",
            "[Errno 28] No space left on device: 'a' -> 'b' (the disk is full there",
        ),
        (
            "ERROR: failed to push data to the cloud - 1 files failed to upload\n"
            "ERROR: failed to transfer '50da' - Cannot connect to host 127.0.0.1:9 ssl:default\n",
            "Cannot connect to host 127.0.0.1:9 ssl:default (it does not answer",
        ),
        (
            "ERROR: unexpected error - [Errno 13] Permission denied: '/store/files'\n\n"
            "Having any troubles? Hit us up at https://dvc.org/support, we are always happy to help!\n",
            "[Errno 13] Permission denied: '/store/files' (not allowed there",
        ),
        (
            "fatal: '/nowhere' does not appear to be a git repository\nfatal: Could not read from remote repository.\n",
            "'/nowhere' does not appear to be a git repository (it does not answer",
        ),
        ("Having any troubles? Hit us up\n", "no reason given"),
        ("error: something else\nmore\n", "something else"),
        (
            "WARNING: Some of the cache files do not exist neither locally nor on remote. Missing cache files:\n"
            "md5: 50da5b84e669c0036fc2edc59f031bd5\n",
            "neither in the DVC cache nor on the remote (md5: 50da5b84e669c0036fc2edc59f031bd5). If another clone",
        ),
    ],
)
def test_a_full_disk_an_unreachable_remote_and_missing_rights_are_told_apart(output: str, told: str) -> None:
    assert told in reason(output)


def pictures(folder: Path, start: int) -> Path:
    from tests.digits import write_digits

    return write_digits(folder / str(start), start, start + 12)


def set_url(project: Path, url: str) -> None:
    (project / ".dvc/config.local").write_text(f"['remote \"store\"']\n    url = {url}\n")


def test_what_could_not_be_published_goes_out_with_whatever_is_published_next(project: Path, tmp_path: Path) -> None:
    """Also the bytes of a batch that was removed again, as the branch that goes out still names it in its history."""
    origin = share(project, tmp_path)
    set_url(project, "http://127.0.0.1:9/store")
    with pytest.raises(PublishError, match=r"committed\. Done here but not published: .*\(it does not answer"):
        add(project, "digits", pictures(tmp_path, 0))
    (first,) = (pointer.path for pointer in unpublished_pointers(project, "origin"))
    with pytest.raises(PublishError, match="the removal is committed"):
        remove(project, "digits", Path(first).name.removesuffix(".parquet.dvc"))
    set_url(project, str(tmp_path / "bytes"))
    assert add(project, "digits", pictures(tmp_path, 12)).pushed
    assert git(origin, "rev-parse", "main") == git(project, "rev-parse", "HEAD")
    assert len([*(tmp_path / "bytes/files/md5").glob("*/*")]) == 2
    assert unpublished_pointers(project, "origin") == []


def test_a_branch_whose_bytes_nobody_has_is_not_published(project: Path, tmp_path: Path) -> None:
    origin = share(project, tmp_path)
    before = git(origin, "rev-parse", "main")
    set_url(project, "/proc/nowhere")
    with pytest.raises(PublishError):
        add(project, "digits", pictures(tmp_path, 0))
    set_url(project, str(tmp_path / "bytes"))
    for cached in (project / ".dvc/cache/files/md5").glob("*/*"):
        cached.unlink()
    with pytest.raises(PublishError, match="neither in the DVC cache nor on the remote"):
        publish(project)
    assert git(origin, "rev-parse", "main") == before


def test_a_rebase_that_was_killed_is_taken_back_and_the_branch_is_published(project: Path, tmp_path: Path) -> None:
    origin = share(project, tmp_path)
    other = clone(origin, tmp_path / "other")
    for root, text in ((other, "theirs"), (project, "ours")):
        (root / "notes").write_text(text)
        git(root, "add", "notes")
        git(root, "commit", "--quiet", "--message=notes")
    git(other, "push", "--quiet", "origin", "main")
    ours = git(project, "rev-parse", "HEAD")
    git(project, "fetch", "--quiet", "origin")
    (project / ".ratchet").mkdir()
    (project / ".ratchet/rebasing").write_text(str(project))
    with pytest.raises(RatchetError):  # it stops at a conflict, as one that was killed stops anywhere
        run_git(project, "rebase", "--quiet", "origin/main")
    take_back_rebase(project)
    assert git(project, "rev-parse", "main") == git(project, "rev-parse", "HEAD") == ours
    assert git(project, "symbolic-ref", "--short", "HEAD") == "main"


def test_a_rebase_of_the_users_own_is_left_alone(project: Path) -> None:
    git(project, "checkout", "--quiet", "--detach")
    (project / ".git/rebase-merge").mkdir()
    take_back_rebase(project)
    assert (project / ".git/rebase-merge").exists()


def test_a_lock_that_a_killed_git_left_is_removed_and_one_in_use_is_not(project: Path) -> None:
    another = project.parent / "elsewhere.lock"
    another.touch()
    os.utime(another, (0, 0))
    lock = project / ".git/index.lock"
    lock.touch()
    os.utime(lock, (0, 0))
    with lock.open("rb"):
        assert not remove_abandoned_lock(project, lock, 10.0)
    assert not remove_abandoned_lock(project, another, 10.0)  # not of this repository
    run_git(project, "add", "--all")  # which git refuses while the lock is there
    assert not lock.exists()
    lock.touch()
    assert not remove_abandoned_lock(project, lock, 10.0)  # too young
