"""When virtual devices are connected, in simulated time; the same for the same seed, whoever asks and how often.

A trace is a table, CSV, of when devices are connected; a device may have many lines, and where there are more virtual
devices than in the table, these begin again with its first. After its last moment it begins anew:

    device,from_s,to_s
    0,0,21600
    0,64800,86400
    1,0,86400

Legend: N devices.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from headwater.compression.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

_MOST_SLOTS = 10_000
_NEAR = 1e-6
"""Moments that are so near to an edge are beyond it: they were computed from it, and rounded."""


class Availability(Protocol):
    """Who is connected when; moments are seconds from the simulation's beginning."""

    def awake(self, at: float) -> NDArray[np.bool_]:
        """Whether each device is connected, [N]."""

    def wakes(self, device: int, at: float) -> float:
        """The first moment from `at` on at which a device is connected; infinite if it never is again."""

    def next_change(self, at: float) -> float:
        """The first moment after `at` at which others may be connected; infinite if it stays so."""


class Always:
    """Everybody, all the time."""

    def __init__(self, devices: int) -> None:
        self._devices = devices

    def awake(self, at: float) -> NDArray[np.bool_]:
        """All of them."""
        del at
        return np.ones(self._devices, np.bool_)

    def wakes(self, device: int, at: float) -> float:
        """Now."""
        del device
        return at

    def next_change(self, at: float) -> float:
        """Never."""
        del at
        return math.inf


class Sleepers:
    """At any time a share sleeps, chosen anew each slot."""

    def __init__(self, devices: int, share: float, slot_s: float, seed: int) -> None:
        self._devices, self._count, self._slot_s, self._seed = devices, round(share * devices), slot_s, seed
        self._known: tuple[int, NDArray[np.bool_]] = (-1, np.ones(0, np.bool_))

    def awake(self, at: float) -> NDArray[np.bool_]:
        """All but those of the slot."""
        slot = math.floor(at / self._slot_s + _NEAR)
        if self._known[0] != slot:
            found = np.ones(self._devices, np.bool_)
            found[np.random.default_rng([self._seed, slot]).permutation(self._devices)[: self._count]] = False
            self._known = slot, found
        return self._known[1]

    def wakes(self, device: int, at: float) -> float:
        """At the beginning of the first slot in which it is not among the sleepers."""
        for _ in range(_MOST_SLOTS):
            if self.awake(at)[device]:
                return at
            at = self.next_change(at)
        return math.inf

    def next_change(self, at: float) -> float:
        """The next slot."""
        return (math.floor(at / self._slot_s + _NEAR) + 1) * self._slot_s


class Trace:
    """As a table says."""

    def __init__(self, devices: int, windows: Sequence[Sequence[tuple[float, float]]]) -> None:
        """`windows`: of each device of the table, from and to, ascending."""
        self._of: NDArray[np.int64] = np.arange(devices) % len(windows)
        self._windows = windows
        self._period: float = max(to for own in windows for _, to in own)
        self._edges = sorted({0.0, *(edge for own in windows for window in own for edge in window)} - {self._period})

    @classmethod
    def read(cls, path: Path, devices: int) -> Trace:
        """Read a table; raises :class:`DataError` with the line that is wrong."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"the availability of devices cannot be read from {path}: {error}") from error
        reader = csv.DictReader(lines)
        if reader.fieldnames != ["device", "from_s", "to_s"]:
            raise DataError(f"the first line of {path} is {lines[:1]}; want device,from_s,to_s")
        windows: dict[str, list[tuple[float, float]]] = {}
        for row in reader:
            windows.setdefault(str(row["device"]), []).append(_window(path, reader.line_num, row))
        if not windows:
            raise DataError(f"{path} names no device")
        return cls(devices, [sorted(own) for own in windows.values()])

    def awake(self, at: float) -> NDArray[np.bool_]:
        """Those in a window."""
        within = (at + _NEAR) % self._period
        own = np.array([any(start <= within < end for start, end in windows) for windows in self._windows], np.bool_)
        return own[self._of]

    def wakes(self, device: int, at: float) -> float:
        """At the beginning of its next window, unless it is in one."""
        turn, within = divmod(at + _NEAR, self._period)
        windows = self._windows[int(self._of[device])]
        for start, end in windows:
            if within < end:
                return max(at, turn * self._period + start)
        return (turn + 1) * self._period + windows[0][0]

    def next_change(self, at: float) -> float:
        """The next edge of any window."""
        turn, within = divmod(at + _NEAR, self._period)
        later = [edge for edge in self._edges if edge > within]
        return turn * self._period + later[0] if later else (turn + 1) * self._period


def _window(path: Path, line: int, row: Mapping[str, str | None]) -> tuple[float, float]:
    try:
        start, end = float(row["from_s"] or ""), float(row["to_s"] or "")
    except ValueError as error:
        raise DataError(f"line {line} of {path}: from_s and to_s have to be numbers, not {dict(row)}") from error
    if not 0 <= start < end < math.inf:
        raise DataError(f"line {line} of {path}: a window from {start:g} to {end:g} s is none")
    return start, end
