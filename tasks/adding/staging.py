"""Keeps an add safe: a full disk is reported in one line, and nothing half-done is left by one that was killed."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.common.errors import UserError
from tasks.project import repository

DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def report_full_disk(source: Path) -> Iterator[None]:
    """Turns 'no space left' from whichever library into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL_ERRORS or "No space left" in str(error):
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
    uncommitted = {root / name for name in (*untracked.splitlines(), *staged.splitlines())}
    notes = []
    for index in sorted(path for path in uncommitted if path.suffix == ".index"):
        pointer = index.with_suffix(".parquet.dvc")
        if pointer in uncommitted:
            paths = [pointer, index, folder / ".gitignore"]
            repository.commit(root, paths, f"Add {index.stem} to {folder.name}, after an interruption")
            notes.append(f"{index.stem}, which an interrupted add had left, is committed now")
        else:
            index.unlink()
            index.with_suffix(".parquet").unlink(missing_ok=True)
    return notes
