"""A full disk, reported in one line, from whichever library it comes."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from models.common.errors import RatchetError, UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
