"""What a simulated fleet has to know of this machine, measured here: times of every step of a picture, idle and busy.

The picture is a JPEG of 640 x 480, as a camera gives one. Widths take turns, as in :mod:`headwater.device.profile`; in
the second half of the time another process keeps one more core busy. Low, mid and high are the 10th, 50th and 95th
percentile of the runs. Power is nothing that a board can tell of itself: it is given by hand, from a meter, or is that
of the nearest ready class.
"""

from __future__ import annotations

import io
import os
import platform
import resource
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from headwater.device.exit import LocalExit
from headwater.device.figure import Figure
from headwater.device.hardware import head_key, to_toml
from headwater.device.head import FrameMaker
from headwater.device.profile import timed_ms, turn, whole_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from headwater.compression.bundle import Bundle
    from headwater.device.head import Coded

CAMERA = (640, 480)
LEAST_TURNS = 2
"""Of each width, however short the time."""
_BOARDS = {
    "Raspberry Pi Zero 2": "pi-zero-2",
    "Raspberry Pi 3": "pi-3",
    "Raspberry Pi 4": "pi-4",
    "Raspberry Pi 5": "pi-5",
    "Jetson": "jetson-orin-nano",
}


def measure(bundle: Bundle, *, threads: int = 1, seconds: float = 20.0) -> dict[str, Figure]:
    """Figures by their key in the file; what the bundle lacks, such as an exit, is left out."""
    finest = {mode.width: mode.index for mode in bundle.manifest.modes}  # sorted by gain, so the last one stays
    steps = _Steps(bundle, threads)
    idle = steps.run(finest, seconds / 2)
    with _another_core_busy():
        busy = steps.run(finest, seconds / 2)
    figures = {key: _figure(times) for key, times in idle.items()}
    slower = sorted(median(busy[key]) / median(idle[key]) for key in idle)
    source = f"measured, {len(slower)} steps with one more core busy"
    figures["busy_factor"] = Figure(slower[0], median(slower), slower[-1], source)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["agent_mb"] = Figure(megabytes, megabytes, megabytes, "measured: most of this process, all widths loaded")
    return figures


def to_text(
    bundle: Bundle, measured: Mapping[str, Figure], powers: Mapping[str, float | None], *, name: str, like: str
) -> str:
    """The file: what was measured, powers that were given in W, and the ready class that has the rest."""
    given = {key: Figure(0.95 * w, w, 1.05 * w, "given by hand") for key, w in powers.items() if w is not None}
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    top: dict[str, str | int] = {
        "name": name,
        "title": board(),
        "cores": os.cpu_count() or 1,
        "memory_mb": memory_mb,
        "bundle": bundle.short_id,
        "like": like,
    }
    return to_toml(top, {**measured, **given})


def nearest_class() -> str:
    """The ready class that is nearest to this board, for what is not measured."""
    return next((name for title, name in _BOARDS.items() if title in board()), "mini-pc")


def board() -> str:
    """What this machine calls itself."""
    tree = Path("/proc/device-tree/model")
    if tree.is_file():
        return tree.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


class _Steps:
    """Runs pictures through every step, and keeps their times in ms by the file's keys."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        exit_ = LocalExit(bundle, None, threads=threads, answers=False) if bundle.manifest.exit else None
        self._maker = FrameMaker(bundle, threads, exit_)
        self._exit = exit_ is not None
        self._jpeg = _jpeg()
        self._whole = whole_model(bundle, threads)

    def run(self, modes: Mapping[float, int], seconds: float) -> dict[str, list[float]]:
        """Take turns until the time is up."""
        times: dict[str, list[float]] = defaultdict(list)
        until_s, turns = time.monotonic() + seconds, 0
        while turns < LEAST_TURNS or time.monotonic() < until_s:
            for width, mode in modes.items():
                for coded in turn(partial(self._frame, mode)):
                    times["prepare_ms"].append(coded.seen.prepare_ms)
                    times[head_key(width)].append(coded.seen.head_ms)
                    times["code_ms"].append(coded.code_ms)
                    if self._exit:
                        times["exit_ms"].append(coded.seen.exit_ms)
            if self._whole is not None:
                times["whole_ms"] += turn(partial(self._whole_ms, self._whole))
            turns += 1
        return times

    def _picture(self) -> Image.Image:
        return Image.open(io.BytesIO(self._jpeg))

    def _frame(self, mode: int) -> Coded:
        return self._maker.make(self._picture(), mode)

    def _whole_ms(self, whole: Callable[[NDArray[np.uint8]], object]) -> float:
        return timed_ms(whole, self._maker.head.input.apply(self._picture()))


def _jpeg() -> bytes:
    """A picture with shapes of all sizes, as a JPEG."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(CAMERA, Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def _figure(times: Sequence[float]) -> Figure:
    low, mid, high = (float(value) for value in np.quantile(times, (0.1, 0.5, 0.95)))
    return Figure(low, mid, high, f"measured, 10th, 50th and 95th percentile of {len(times)} runs")


@contextmanager
def _another_core_busy() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
