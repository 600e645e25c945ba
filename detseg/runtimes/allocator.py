"""Memory that networks on a CPU work with is kept, not fetched from the system anew for every tensor.

glibc hands blocks of more than a few megabytes back as soon as they are free, and the next one of that size comes page
by page, each cleared by the kernel: up to two fifths of the processor's time of a training step.
"""

from __future__ import annotations

import ctypes
import os
import sys

# of glibc's malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST = 2**31 - 1  # an int's
_LARGEST_KEPT = 2**30


def keep_memory() -> bool:
    """From now on blocks of up to a gigabyte are reused within the process; says whether that could be arranged.

    Nothing is done where the C library is not glibc, or where the environment says how it is to behave.
    """
    if not sys.platform.startswith("linux") or any(name.startswith(("MALLOC_", "GLIBC_TUN")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)) and bool(mallopt(_TRIM_THRESHOLD, _MOST))
