"""What keeps an add safe: one at a time, in a place of its own, with nothing half-done left by one that was killed."""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.common.errors import UserError
from tasks.project import repository

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def only_one(home: Path, name: str) -> Iterator[None]:
    """Waits until no other process is inside `name`; the system releases a killed holder's lock."""
    folder = home / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def spool(home: Path) -> Iterator[Path]:
    """An empty folder of this process, gone at the end; those of processes that were killed are cleared first."""
    parent = home / "adding"
    for left in parent.glob("*"):
        if not _alive(int(left.name)):
            shutil.rmtree(left, ignore_errors=True)
    place = parent / str(os.getpid())
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def disk_full_is_told(source: Path) -> Iterator[None]:
    """Turns 'no space left' from whichever library into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL or "No space left" in str(error):
            raise UserError(
                f"No space left on the disk while adding {source}; nothing was added. Free some and add it again"
            ) from None
        raise


def finish_interrupted(root: Path, folder: Path) -> list[str]:
    """Commits a batch that an earlier, killed add had finished but not committed; clears one that was not finished."""
    if not folder.exists():
        return []
    untracked = repository.git(root, "ls-files", "--others", "--", f"{folder}")
    staged = repository.git(root, "diff", "--cached", "--name-only", "--diff-filter=A", "--relative", "--", f"{folder}")
    fresh = {root / name for name in (*untracked.splitlines(), *staged.splitlines())}
    notes = []
    for index in sorted(path for path in fresh if path.suffix == ".index"):
        pointer = index.with_suffix(".parquet.dvc")
        if pointer in fresh:
            paths = [pointer, index, folder / ".gitignore"]
            repository.commit(root, paths, f"Add {index.stem} to {folder.name}, after an interruption")
            notes.append(f"{index.stem}, which an interrupted add had left, is committed now")
        else:
            index.unlink()
            index.with_suffix(".parquet").unlink(missing_ok=True)
    return notes
