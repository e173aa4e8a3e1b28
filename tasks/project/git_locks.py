"""Lock files that a killed git left: git itself never removes them, and refuses every later command because of them."""

import re
import time
from contextlib import suppress
from pathlib import Path

from tasks.project.paths import main_checkout

IN_THE_WAY = re.compile(r"Unable to create '(.+\.lock)': File exists")


def lock_in_the_way(stderr: str) -> Path | None:
    """The lock file that git says it waits for, or None."""
    match = IN_THE_WAY.search(stderr)
    return Path(match[1]) if match else None


def remove_abandoned_lock(root: Path, lock: Path, age: float) -> bool:
    """Removes a lock of this repository that is older than `age` (s) and that no process of this machine holds.

    False where it may be in use: `git commit` keeps it for as long as its editor is open.
    """
    top = main_checkout(root)
    with suppress(OSError):
        before = lock.stat()
        if not lock.is_relative_to(top) or abs(time.time() - before.st_mtime) < age or _is_held(lock, top):
            return False
        if (lock.stat().st_ino, lock.stat().st_mtime_ns) != (before.st_ino, before.st_mtime_ns):
            return False  # another one by now
        lock.unlink()
    return not lock.exists()


def _is_held(lock: Path, top: Path) -> bool:
    """Whether a process has the lock open, or is a git that works in this checkout or one of its worktrees."""
    if not Path("/proc/self").exists():  # no way to know
        return True
    return any(_holds(process, lock, top) for process in Path("/proc").glob("[0-9]*"))


def _holds(process: Path, lock: Path, top: Path) -> bool:
    with suppress(OSError):  # gone already, or someone else's
        if (process / "comm").read_text().startswith("git"):
            return (process / "cwd").readlink().is_relative_to(top)
        return any(file.readlink() == lock for file in (process / "fd").iterdir())
    return False
