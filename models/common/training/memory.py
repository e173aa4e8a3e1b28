"""Keeping the memory that a training step frees, for the next step."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Lets glibc reuse big blocks instead of handing them back to the kernel, which then has to clear every page again.

    On a CPU that is a fifth to a quarter of a training step (docs/log.md). For a process that trains and then ends;
    elsewhere than on glibc it does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, LARGEST)
