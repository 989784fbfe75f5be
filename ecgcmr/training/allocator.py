"""Keep freed memory in the process, which glibc otherwise gives back to the system after each large tensor."""

from __future__ import annotations

import ctypes
import logging
import sys

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_MIB = 1 << 20


def keep_freed_memory(top_pad_mib: int = 256) -> bool:
    """Tell glibc's malloc to reuse large blocks instead of mapping and unmapping them at every training step.

    A CPU training step frees and allocates the same large activations again and again; each round trip to the kernel
    faults the pages in anew, which costs a quarter to a half of the step. Other allocators and systems are left alone.

    Args:
        top_pad_mib: How much more than needed is requested at a time [MiB].

    Returns:
        Whether the settings were accepted; False (and nothing else happens) without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    mallopt.argtypes, mallopt.restype = [ctypes.c_int, ctypes.c_int], ctypes.c_int
    wanted = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, top_pad_mib * _MIB))
    accepted = sum(mallopt(parameter, value) for parameter, value in wanted) == len(wanted)
    log.debug("glibc keeps freed memory: %s", accepted)
    return accepted


def release_freed_memory() -> bool:
    """Give freed memory back to the system, which `keep_freed_memory` otherwise keeps; between two measurements.

    Returns:
        Whether anything was given back; False without glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        trim = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return False
    trim.argtypes, trim.restype = [ctypes.c_size_t], ctypes.c_int
    return bool(trim(0))
