"""Publishes what is committed here: bytes first, then the branch.

The bytes of every pointer that the remote's branch has not yet are pushed, whoever committed it and however that
command ended: a shared branch never points to bytes that nobody can fetch.
"""

from dataclasses import dataclass
from pathlib import Path

from models.common.errors import PublishError, RatchetError
from tasks.project.locks import lock
from tasks.project.paths import home
from tasks.project.repository import current_branch, dvc, git, git_remote, is_shared, push_bytes_of_commit

PUSH_ATTEMPTS = 5  # a push that lost a race is rebased and tried again this often
PUSH_CONFLICTS = ("fetch first", "non-fast-forward", "cannot lock", "incorrect old value", "failed to update ref")


@dataclass(frozen=True)
class Pointer:
    """A `.dvc` file as a commit has it."""

    commit: str
    path: str
    is_current: bool  # HEAD has it, too


def publish(root: Path) -> bool:
    """Pushes the bytes of all pointers that are not on the remote yet, then the branch; False where nothing is shared.

    A push that lost a race with another clone is rebased and tried again. PublishError when refused; the commit is
    kept, and the message says what to run.
    """
    if not is_shared(root):
        return False
    found: list[Pointer] = []
    remote = str(git_remote(root))
    with lock(home(root), "publish"):
        try:
            git(root, "fetch", "--quiet", "--no-tags", remote)
            found = unpublished_pointers(root, remote)
            _push_bytes(root, found)
            _push_branch(root, remote, current_branch(root))
        except RatchetError as error:
            raise PublishError(f"Done here but not published: {error}. To publish: {_by_hand(found)}") from None
    return True


def unpublished_pointers(root: Path, remote: str) -> list[Pointer]:
    """Pointers that commits of this branch added or changed and the remote (as last fetched) does not have."""
    here = git(root, "ls-tree", "-r", "--format=%(objectname) %(path)", "HEAD").splitlines()
    current = {line for line in here if line.endswith(".dvc")}
    raw = ("--raw", "--no-abbrev", "--no-renames", "--diff-filter=AM", "--format=%H")
    pointers, commit = [], ""
    for line in git(root, "log", *raw, "HEAD", "--not", f"--remotes={remote}", "--", "*.dvc").splitlines():
        if not line.startswith(":"):
            commit = line.strip() or commit
            continue
        fields, path = line.split("\t", 1)  # ":000000 100644 0000… <its blob> A"
        pointers.append(Pointer(commit, path, f"{fields.split()[3]} {path}" in current))
    return pointers


def take_back_rebase(root: Path) -> None:
    """Ends a rebase that a killed publish was in the middle of, so that the branch is as it was before."""
    with lock(home(root), "publish"):
        marker = _rebase_marker(root)
        if not marker.exists() or marker.read_text() != str(root):
            return
        states = [root / git(root, "rev-parse", "--git-path", name) for name in ("rebase-merge", "rebase-apply")]
        if any(state.exists() for state in states):
            git(root, "rebase", "--abort")
        marker.unlink()


def _push_bytes(root: Path, pointers: list[Pointer]) -> None:
    """Also those of a batch that was removed again: commits that go out with the branch still name it."""
    current = [pointer.path for pointer in pointers if pointer.is_current]
    if current:
        dvc(root, "push", *current)
    for pointer in pointers:
        if not pointer.is_current:
            push_bytes_of_commit(root, pointer.commit, pointer.path)


def _push_branch(root: Path, remote: str, name: str) -> None:
    for attempt in range(PUSH_ATTEMPTS):
        try:
            git(root, "push", "--quiet", remote, f"HEAD:refs/heads/{name}")
            return
        except RatchetError as error:
            if not any(word in str(error) for word in PUSH_CONFLICTS) or attempt == PUSH_ATTEMPTS - 1:
                raise
        _rebase(root, remote, name)


def _rebase(root: Path, remote: str, name: str) -> None:
    git(root, "fetch", "--quiet", remote, f"refs/heads/{name}")
    marker = _rebase_marker(root)
    marker.write_text(str(root))
    try:
        git(root, "rebase", "--quiet", "--autostash", "FETCH_HEAD")
    except BaseException:  # also Ctrl-C
        git(root, "rebase", "--abort")
        raise
    finally:
        marker.unlink()


def _rebase_marker(root: Path) -> Path:
    """Says that the rebase going on is ours, and in which checkout."""
    return home(root) / "rebasing"


def _by_hand(pointers: list[Pointer]) -> str:
    names = " ".join(pointer.path for pointer in pointers if pointer.is_current)
    return " && ".join([f"dvc push {names}"] * bool(names) + ["git pull --rebase", "git push"])
