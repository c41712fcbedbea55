"""What the C library's allocator does with memory that is free: keep it for the next time, or give it back; and pages.

glibc gives large blocks, and what is free at the end of its heap, back to the system, and asks for them anew a moment
later: each page is then zeroed and mapped again. A process that makes and reads contents of megabytes round after round
spends a sixth of its time on that. One that trains in little memory has the opposite need.

Threads have heaps of their own ("arenas"), up to eight for each processor, and what is free in one serves no thread of
another: the more heaps, the more holes between blocks that stay.

Pages of 4 kB are found by tables that are themselves in memory: a process that goes through tens of megabytes in no
order waits for the tables as long as for what it wants. Pages of 2 MB need hardly any.

Where the C library is another one, nothing happens.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
_MOST = (1 << 31) - 1
_LARGEST_MMAP_THRESHOLD = 32 << 20
_COLLAPSE, _LARGE_PAGE = 25, 2 << 20
_OWN = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw-p \S+ \S+ 0 *(?:\[heap\])?$", re.MULTILINE)


def keep(size: int) -> None:
    """Keep up to so many free bytes at the end of each of the allocator's heaps; blocks of half of that go there."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, size)
        mallopt(_MMAP_THRESHOLD, min(size // 2, _LARGEST_MMAP_THRESHOLD))


def keep_all() -> None:
    """Keep everything that is free, blocks of any size: for a training process that has the machine to itself.

    The tensors of each step are those of the step before in size and order, tens of megabytes each; to map them anew
    took a sixth of a step of Lite0 on one core.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _MOST)
        mallopt(_MMAP_MAX, 0)


def share_heaps(most: int) -> None:
    """Have all threads share so many heaps: for a process that lives long. To be called before there are threads."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, most)


def give_back() -> None:
    """Give what is free back to the system, holes between what is in use too.

    Small blocks that stay, such as a kernel's plan, come to lie among the many of a training step that are freed; glibc
    gives back none of those by itself, and the next step's large blocks come on top.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def in_large_pages() -> None:
    """Move what this process has by now into pages of 2 MB, as far as there are any; from Linux 6.1 on."""
    maps = Path("/proc/self/maps")
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None or not maps.exists():
        return
    for found in _OWN.finditer(maps.read_text(encoding="ascii", errors="replace")):
        begin, end = -(-int(found[1], 16) // _LARGE_PAGE) * _LARGE_PAGE, int(found[2], 16) // _LARGE_PAGE * _LARGE_PAGE
        if begin < end:
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _COLLAPSE)  # whatever it answers
