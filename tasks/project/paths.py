"""Where a project's folders are. Light, and apart from all that changes them: the stages depend on it."""

import os
import subprocess
from pathlib import Path

from models.common.errors import UserError


def main_checkout(root: Path) -> Path:
    """The checkout that `root` is a worktree of, or `root`'s own top. UserError outside of git."""
    command = ["git", "rev-parse", "--path-format=absolute", "--git-common-dir"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (subprocess.CalledProcessError, NotADirectoryError, FileNotFoundError):
        raise UserError(f"{root} is not in a git repository. Run ratchet in a clone of a Ratchet project.") from None
    return Path(done.stdout.strip()).parent


def home(root: Path) -> Path:
    """`.ratchet/` of the main checkout: caches, locks and worktrees that all runs share. Not created here."""
    if chosen := os.environ.get("RATCHET_HOME"):
        return Path(chosen).absolute()
    try:
        return main_checkout(root) / ".ratchet"
    except UserError:
        return root / ".ratchet"


def head(root: Path) -> str:
    """The commit that is checked out; "" outside of git, or before the first commit."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
