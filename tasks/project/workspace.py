"""A run's workspace: a git worktree of one commit, sharing the DVC cache. The user's working tree is never touched.

One run per model at a time, held by a lock that ends with its process; different models retrain side by side.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from models.common.errors import RatchetError
from tasks.project.locks import lock, lock_or_refuse, remove_abandoned
from tasks.project.outputs import cache
from tasks.project.paths import home, main_checkout
from tasks.project.repository import WORKSPACE_VARIABLE, dvc_setting, git

UNFINISHED = (".packaging-", ".unpacking-", ".serving-")  # folders in .ratchet/bentos that a killed process leaves


@contextmanager
def workspace(root: Path, model: str, commit: str) -> Iterator[Path]:
    """A worktree of the commit; removed afterwards, with everything still running in it.

    What a killed run left behind is removed first. UserError when this model is retraining already.
    """
    with _held(home(root), model):
        work = home(root) / "work"
        work.mkdir(parents=True, exist_ok=True)
        remove_left_over(root, model)
        for prefix in UNFINISHED:  # of whichever model; those in use are kept
            remove_abandoned(home(root) / "bentos", prefix)
        tree = Path(tempfile.mkdtemp(prefix=f"{model}@", dir=work))
        try:
            git(root, "worktree", "add", "--quiet", "--detach", str(tree), commit)
            _share_cache(main_checkout(root), tree)
            yield tree
        finally:
            _remove(root, tree)


@contextmanager
def _held(home: Path, model: str) -> Iterator[None]:
    """The model is this run's. `ratchet gc` is waited for: it holds the models that no run holds."""
    with ExitStack() as stack:
        with lock(home, "gc"):
            stack.enter_context(lock_or_refuse(home, f"retrain/{model}", f"{model} is being retrained already"))
        yield


def left_over(root: Path, model: str) -> list[Path]:
    """Worktrees of the model's runs; of killed ones, where no run of it is going."""
    return sorted((home(root) / "work").glob(f"{model}@*"))


def remove_left_over(root: Path, model: str) -> None:
    """Removes them, with everything still running in them. Only for who holds the model's lock."""
    for stale in left_over(root, model):
        _remove(root, stale)


def _share_cache(main: Path, tree: Path) -> None:
    """Points the worktree's DVC at the main checkout's cache, with its local settings (remotes, credentials) kept."""
    local = main / ".dvc/config.local"
    config = local.read_text() if local.exists() else ""
    link_types = dvc_setting(main, "cache", "type") or "reflink,hardlink,symlink,copy"  # batches are linked, not copied
    settings = f"\n[cache]\n    dir = {cache(main)}\n    type = {_quoted(link_types)}\n"
    (tree / ".dvc/config.local").write_text(_without_section(config, "cache") + settings)


def _quoted(value: str) -> str:
    return '"' + value.strip("\"'") + '"'


def _without_section(config: str, name: str) -> str:
    lines, inside = [], False
    for line in config.splitlines():
        if line.lstrip().startswith("["):
            inside = line.strip() == f"[{name}]"
        if not inside:
            lines.append(line)
    return "\n".join(lines)


def _remove(root: Path, tree: Path) -> None:
    _end_processes(tree)
    with suppress(RatchetError):  # a run killed early: git does not know this folder yet
        git(root, "worktree", "remove", "--force", "--force", str(tree))
    shutil.rmtree(tree, ignore_errors=True)
    # a run killed while git made its worktree: git keeps that as locked, and prunes no locked one
    shutil.rmtree(main_checkout(root) / ".git/worktrees" / tree.name, ignore_errors=True)
    git(root, "worktree", "prune")


def _end_processes(tree: Path) -> None:
    """Ends what a run started in this worktree and left running (a training whose parent was killed)."""
    variable = f"{WORKSPACE_VARIABLE}={tree}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int(process.name) != os.getpid() and variable in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue  # someone else's, or gone already
