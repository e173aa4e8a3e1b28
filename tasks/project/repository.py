"""The git repository and the DVC project: reading their settings, and the few commands that change them."""

import configparser
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from models.common.errors import RatchetError, UserError
from tasks.project.disk import full_disk_note
from tasks.project.git_locks import lock_in_the_way, remove_abandoned_lock
from tasks.project.reasons import MISSING_BYTES, reason

BROKEN_REF_WARNING = (
    "ignoring broken ref"  # git only warns of a ref that it cannot read; for a registry that is an error
)
WARM_VARIABLE = "RATCHET_WARM"  # the folder of warm processes; see warm.py
LOCK_WAIT = 10.0  # seconds to wait for another git process to release index.lock
PUSH_COMMIT = """
import sys
from dvc.repo import Repo
with Repo() as repo:
    repo.push(targets=sys.argv[2:], revs=[sys.argv[1]], workspace=False)
"""
WORKSPACE_VARIABLE = "RATCHET_WORKSPACE"  # set for every process that a run starts, to the path of its worktree
CHILD_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "BENTOML_DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GIT_TERMINAL_PROMPT": "0",  # a missing password is an error, not a prompt that nobody answers
    "LC_ALL": "C.UTF-8",
}


def disable_analytics() -> None:
    """Turns off every library's analytics in this process; called before any of them is imported."""
    os.environ.update({name: value for name, value in CHILD_ENVIRONMENT.items() if name != "LC_ALL"})


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of child processes: this interpreter's tools first on PATH, no analytics, no prompts."""
    warm = warm_folder()
    tools = [*([warm / "bin"] if warm else []), Path(sys.executable).parent]
    return {
        **os.environ,
        **CHILD_ENVIRONMENT,
        "PATH": os.pathsep.join([*map(str, tools), os.environ.get("PATH", "")]),
        **(extra or {}),
    }


def warm_folder() -> Path | None:
    """Where the warm processes are that this process was told of (warm.py), and that are still there."""
    folder = os.environ.get(WARM_VARIABLE)
    return Path(folder) if folder and Path(folder, "bin/python").exists() else None


def python() -> str:
    """The interpreter for child processes: one that may be warm already, else this one."""
    warm = warm_folder()
    return str(warm / "bin/python") if warm else sys.executable


def git(root: Path, *args: str, text: str | None = None) -> str:
    """Runs git in `root`, with `text` on its standard input, and gives its output, stripped.

    RatchetError with git's own reason when it fails.
    """
    deadline = time.monotonic() + LOCK_WAIT
    command, env = ["git", *args], environment({WORKSPACE_VARIABLE: str(root)})
    while True:
        done = subprocess.run(command, cwd=root, env=env, input=text, capture_output=True, text=True, check=False)
        if done.returncode == 0 and BROKEN_REF_WARNING not in done.stderr:
            return done.stdout.strip()
        lock = lock_in_the_way(done.stderr)
        if lock is None or not (remove_abandoned_lock(root, lock, LOCK_WAIT) or time.monotonic() < deadline):
            raise RatchetError(
                f"git {' '.join(args[:2])} failed: {reason(done.stderr or done.stdout)}{full_disk_note(root)}"
            )
        time.sleep(0.1)


def read_file(root: Path, commit: str, path: str) -> bytes:
    """The content of a file at a commit. RatchetError where there is none."""
    command = ["git", "cat-file", "blob", f"{commit}:{path}"]
    done = subprocess.run(command, cwd=root, env=environment(), capture_output=True, check=False)
    if done.returncode:
        raise RatchetError(f"Commit {commit[:10]} has no file {path}")
    return done.stdout


def dvc(root: Path, *args: str, env: Mapping[str, str] | None = None) -> str:
    """Runs DVC in `root` as a process of its own (1.5 to 3 s; 0.3 where one is warm) and gives its output, stripped.

    RatchetError with DVC's own reason when it fails.
    """
    return _dvc(root, f"dvc {' '.join(args[:2])}", [python(), "-m", "dvc", *args], env)


def push_bytes_of_commit(root: Path, commit: str, path: str) -> None:
    """Pushes the bytes of a pointer as a commit has it, which no command of DVC's does. Fails as `dvc` does."""
    _dvc(root, f"dvc push {path}", [sys.executable, "-c", PUSH_COMMIT, commit, path])


def _dvc(root: Path, what: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    env = environment({WORKSPACE_VARIABLE: str(root), **(env or {})})
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    if done.returncode or MISSING_BYTES in done.stderr:
        raise RatchetError(f"{what} failed: {reason(done.stderr or done.stdout)}{full_disk_note(root)}")
    return done.stdout.strip()


def git_remote(root: Path) -> str | None:
    """The remote that shares this project: `git config ratchet.remote`, else origin, else None."""
    remotes = git(root, "remote").split()
    try:
        chosen = git(root, "config", "ratchet.remote")
    except RatchetError:
        return "origin" if "origin" in remotes else None
    if chosen not in remotes:
        raise UserError(
            f"git config ratchet.remote is '{chosen}'; this clone has: {', '.join(remotes) or 'no remote'}."
            " Set it to one of these: git config ratchet.remote NAME"
        )
    return chosen


def dvc_remote(root: Path) -> str | None:
    """DVC's default remote, read from its config files: asking DVC itself would cost seconds."""
    return dvc_setting(root, "core", "remote")


def dvc_setting(root: Path, section: str, key: str) -> str | None:
    """One setting of DVC's config, the most local file first."""
    user_config = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    files = (root / ".dvc/config.local", root / ".dvc/config", user_config / "dvc/config", Path("/etc/xdg/dvc/config"))
    for path in files:
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read(path)
        except configparser.Error as error:
            raise UserError(f"{path} cannot be read as DVC's config: {' '.join(str(error).split())}") from None
        if parser.has_option(section, key):
            return parser.get(section, key)
    return None


def is_shared(root: Path) -> bool:
    """Whether others get what is published here: both a git remote and a DVC remote exist."""
    return reason_not_shared(root) is None


def reason_not_shared(root: Path) -> str | None:
    """One line saying why nothing is pushed, or None in a shared project."""
    if dvc_remote(root) is None:
        return "Kept in this clone only: no DVC remote. To share: dvc remote add --default NAME URL"
    if git_remote(root) is None:
        return "Kept in this clone only: no git remote. To share: git remote add origin URL"
    return None


def current_branch(root: Path) -> str:
    """The branch that is checked out; UserError when HEAD is detached."""
    try:
        return git(root, "symbolic-ref", "--quiet", "--short", "HEAD")
    except RatchetError:
        raise UserError(
            "HEAD is detached, so a new data version would be on no branch. Check one out first: git switch main"
        ) from None


def check_identity(root: Path) -> None:
    """UserError when git knows no name and e-mail to commit with."""
    try:
        git(root, "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
    except RatchetError:
        raise UserError(
            "git has no identity to commit with."
            " Set it: git config user.name 'Your Name' && git config user.email you@example.org"
        ) from None


def commit(root: Path, paths: Iterable[Path | str], message: str) -> str:
    """Commits these paths (also removed ones) and nothing else: what else is staged stays staged. Gives the commit.

    Nothing changed in them: no commit, the current one is given.
    """
    current_branch(root)
    check_identity(root)
    names = [str(path) for path in paths]
    git(root, "add", "--all", "--", *names)
    if git(root, "status", "--porcelain", "--untracked-files=no", "--", *names):
        git(root, "commit", "--quiet", "--only", f"--message={message}", "--", *names)
    return git(root, "rev-parse", "HEAD")
