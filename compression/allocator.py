"""What the C library's allocator does with memory that is free: keep it for the next time, or give it back.

glibc gives large blocks, and what is free at the end of its heap, back to the system, and asks for them anew a moment
later: each page is then zeroed and mapped again. A process that makes and reads contents of megabytes round after round
spends a sixth of its time on that. One that trains in little memory has the opposite need.

Where the C library is another one, nothing happens.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_MOST = (1 << 31) - 1
_LARGEST_MMAP_THRESHOLD = 32 << 20


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


def give_back() -> None:
    """Give what is free back to the system, holes between what is in use too.

    Small blocks that stay, such as a kernel's plan, come to lie among the many of a training step that are freed; glibc
    gives back none of those by itself, and the next step's large blocks come on top.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
