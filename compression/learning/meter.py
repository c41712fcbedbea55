"""The most memory that a piece of work took, as the system counts it."""

from __future__ import annotations

import gc
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from headwater.compression.allocator import give_back

if TYPE_CHECKING:
    from types import TracebackType

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class Meter:
    """While it is entered, this process's peak is measured; :attr:`peak_bytes` is what it was above the start."""

    def __init__(self) -> None:
        """Measure nothing yet."""
        self.peak_bytes = 0
        self._start = 0

    def __enter__(self) -> Self:
        """Give back what is free, and begin."""
        gc.collect()
        give_back()
        with suppress(OSError):  # where it is not allowed, the peak is that of the process's life
            _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
        self._start = _status("VmRSS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Read the peak."""
        self.peak_bytes = max(0, _status("VmHWM") - self._start)


def _status(field: str) -> int:
    """Bytes that the kernel says of this process; 0 where it does not."""
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0
