"""Locks between processes of this machine. The kernel drops them when their holder ends, however it ends.

No process ID decides anything: in a container the same few IDs come again in every run.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from models.common.errors import UserError

LOCK_FILE = ".lock"  # file in a temporary folder that its process holds locked


@contextmanager
def lock(home: Path, name: str) -> Iterator[None]:
    """Waits until no other process holds `name` ("add/digits"), then holds it."""
    with _open(home, name, "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with _shown(home, name):
            yield


@contextmanager
def lock_or_refuse(home: Path, name: str, busy: str) -> Iterator[None]:
    """The same without waiting: UserError with `busy` and the holder's process ID where another one holds it."""
    with _open(home, name, "lock") as file:
        if not _try_lock(file):
            raise UserError(f"{busy} (process {holder(home, name) or 'unknown'}). Wait for it, or stop it")
        with _shown(home, name):
            yield


def holder(home: Path, name: str) -> int | None:
    """Process ID of the one that holds `name`, or None. Looking never keeps another process from holding it."""
    try:
        file = (home / "locks" / f"{name}.holder").open("r")
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read().strip() or 0)
    return None


@contextmanager
def _shown(home: Path, name: str) -> Iterator[None]:
    """Shows who holds `name` by a second lock: one cannot look at a lock without taking it for a moment."""
    with _open(home, name, "holder") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for those who look just now
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def temporary_folder(parent: Path, prefix: str = "") -> Iterator[Path]:
    """A folder of this process in `parent`, gone at the end.

    Folders of that prefix that killed processes left there are removed first; those in use are kept.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent, prefix)
    folder, file = _create_locked_folder(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        file.close()


def remove_abandoned(parent: Path, prefix: str = "") -> None:
    """Removes the temporary folders of that prefix that killed processes left; those in use are kept."""
    for other in parent.glob(f"{prefix}*"):
        if other.is_dir():
            _remove_abandoned(other)


def _create_locked_folder(parent: Path, prefix: str) -> tuple[Path, IO[str]]:
    while True:  # until it is locked, another process takes it for an abandoned one and removes it
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        with suppress(FileNotFoundError):
            file = (folder / LOCK_FILE).open("w")
            fcntl.flock(file, fcntl.LOCK_EX)
            if (folder / LOCK_FILE).exists():
                return folder, file
            file.close()


def _remove_abandoned(folder: Path) -> None:
    with suppress(FileNotFoundError), (folder / LOCK_FILE).open("a") as file:
        if _try_lock(file):
            shutil.rmtree(folder, ignore_errors=True)


def _open(home: Path, name: str, suffix: str) -> IO[str]:
    path = home / "locks" / f"{name}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a+")


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
