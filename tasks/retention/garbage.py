"""What may go: paths with a category, a model and a size; and how they go."""

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from models.common.errors import RatchetError

DAY = 86_400.0  # s


@dataclass(frozen=True)
class Garbage:
    """Files and folders that go together, in this order."""

    category: str
    model: str  # "" where it belongs to none
    name: str
    paths: tuple[Path, ...]
    size: int  # bytes


def garbage(category: str, model: str, path: Path) -> Garbage:
    """One file or folder, with its size."""
    return Garbage(category, model, path.name, (path,), disk_usage(path))


def disk_usage(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links count nothing, and neither does what is gone meanwhile."""
    try:
        if path.is_dir() and not path.is_symlink():
            return sum(disk_usage(child) for child in path.iterdir())
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def last_written(path: Path) -> float:
    """Unix time, s; now, where it is gone meanwhile: then it is in somebody's hands."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


def last_used(path: Path) -> float:
    """The same of when it was last read (as far as the file system notes that) or written."""
    try:
        return max(path.lstat().st_atime, last_written(path))
    except FileNotFoundError:
        return time.time()


def is_older(path: Path, days: float) -> bool:
    """Whether it was last written more than `days` ago."""
    return last_written(path) < time.time() - days * DAY


def read_text(path: Path) -> str:
    """What is in a file; "" where it is gone meanwhile."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def remove(paths: Iterable[Path]) -> None:
    """Files and whole folders; one that is gone already is no matter. RatchetError where one cannot be deleted."""
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RatchetError(f"{path} cannot be deleted: {error.strerror}. Check its owner and rights") from None


def remove_unless_used(path: Path, days: float) -> None:
    """The same for what a process may take into use at any moment by touching it: out of its way first, then away."""
    aside = path.with_name(f".removing-{path.name}")
    try:
        path.rename(aside)
        if is_older(aside, days):
            remove([aside])
        else:
            aside.rename(path)
    except FileNotFoundError:
        return
