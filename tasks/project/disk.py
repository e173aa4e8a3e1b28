"""A full disk, reported in one line, from whichever library it comes."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from models.common.errors import RatchetError, UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

LITTLE = 2**20  # bytes free; git does not always say why it could not write


def full_disk_note(folder: Path) -> str:
    """What to add to the error of a tool that failed while the disk of `folder` was full, else nothing."""
    return " (the disk is full: free some space and run it again)" if shutil.disk_usage(folder).free < LITTLE else ""


@contextmanager
def report_full_disk(doing: str) -> Iterator[None]:
    """Turns 'no space left' into a UserError that says what was being done."""
    try:
        yield
    except RatchetError:
        raise
    except Exception as error:  # each library has its own: OSError, pyarrow's, sqlite3's
        if getattr(error, "errno", None) in FULL or "No space left" in str(error) or "disk is full" in str(error):
            raise UserError(f"No space left on the disk while {doing}. Free some and run it again") from None
        raise
