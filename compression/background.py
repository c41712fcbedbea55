"""Work that is not urgent, in a process that answers frames.

On two busy cores, a thread that loads a bundle takes as much of the processor as each of those that a frame goes
through, and a frame waits for it again at every step of its way: a thread that wakes on a core where another one of
its own weight runs had the core after 3 ms in one case of twenty, and after 0.2 ms where that one was nice. Nice is a
thread's own on Linux: with it, the same work runs in what frames leave.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

NICE = 5
"""Of such a thread: it gets a third of what others get where both want the processor, no less, for it may hold the
interpreter's lock."""
PROCESS_NICE = 19
"""Of a process of such work, which has no lock that others wait for."""


def give_way(nice: int = PROCESS_NICE) -> None:
    """Leave the processor to others from now on: this thread, and those that it starts (on Linux; else nothing)."""
    if sys.platform == "linux":
        os.nice(nice)


def background(name: str, *, at_once: int = 1, threads: int = 1) -> ThreadPoolExecutor:
    """Threads that give way, for so many things at once.

    Not where it makes sessions of several ``threads``: these are started by it, would be as nice, and answer frames.
    """
    return ThreadPoolExecutor(at_once, name, initializer=partial(give_way, NICE if threads == 1 else 0))
