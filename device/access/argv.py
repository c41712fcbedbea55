"""An argument of this process that is a secret: taken out of what every user of the machine can read of it.

Linux shows a process's arguments in /proc/PID/cmdline from the process's own memory, where they are overwritten. What
was there before, for the tenths of a second in which Python starts, and what a shell keeps, this cannot undo.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

_BEGIN, _END = 48, 49
"""Fields of /proc/PID/stat, from 1: where arguments begin and end (proc(5))."""


def forget(secret: str) -> None:
    """Overwrite it wherever it stands among the arguments; does nothing where they cannot be reached."""
    with contextlib.suppress(OSError):
        numbers = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        begin, end = int(numbers[_BEGIN - 3]), int(numbers[_END - 3])
        word, at = secret.encode(), -1
        while word and (at := ctypes.string_at(begin, end - begin).find(word)) >= 0:
            ctypes.memset(begin + at, ord("*"), len(word))
