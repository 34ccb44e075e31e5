"""Memory that the process keeps, because fresh pages are slow.

Each window of the network takes and returns blocks of 50 to 500 MB. The C library maps such
blocks anew each time, and the kernel clears every page of them at first touch: a third of the
time of a window. A heap that is never given back is touched once.
"""

from __future__ import annotations

import ctypes
import platform

#: Parameters of ``mallopt(3)``: how much free memory at the end of the heap is given back, how
#: many blocks may be mapped outside of it, by how much it grows at a time, and how many there are.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_TOP_PAD, _M_ARENA_MAX = -1, -4, -2, -8
_NEVER = 2**31 - 1
_GROW_BYTES = 64 << 20


def give_back_heap() -> None:
    """Give freed memory back to the system, kept or not (``malloc_trim(3)``)."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def keep_heap() -> bool:
    """Let this process keep freed memory for its next window; before it has other threads.

    Returns
    -------
    False where the C library is not glibc: then nothing is changed.
    """
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, _NEVER),
        (_M_TOP_PAD, _GROW_BYTES),
    )
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings)


def _is_glibc() -> bool:
    return platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
