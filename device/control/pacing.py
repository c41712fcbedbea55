"""When, not what: a budget of bytes a second, when to explore a link, when to try a larger frame, whom to doubt.

State machines of a few numbers each; times are seconds from outside.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque

# ------------------------------------------------------------ a budget


class Budget:
    """Bytes that may be sent now: a token bucket, full at first; with an infinite rate, any."""

    def __init__(self, bytes_per_s: float = math.inf, capacity: float = math.inf) -> None:
        self.left = self._capacity = capacity
        self.each = math.inf
        """Bytes there are for each picture: a frame that has more can be sent for a share of them only."""
        self._limited = bytes_per_s < math.inf
        self._bytes_per_s = bytes_per_s
        self._time_s: float | None = None
        self._period_s = 0.0
        """Mean time between two pictures."""

    @classmethod
    def of(cls, bytes_per_s: float | None, burst_s: float, least: float) -> Budget:
        """Of so many bytes a second, None for any, and so many seconds of it at once, but never below the least."""
        return cls() if bytes_per_s is None else cls(bytes_per_s, max(bytes_per_s * burst_s, least))

    def picture(self, time_s: float) -> None:
        """Let time pass until the next picture."""
        if not self._limited:
            return
        if self._time_s is not None:
            passed_s = max(time_s - self._time_s, 0.0)
            self.left = min(self.left + passed_s * self._bytes_per_s, self._capacity)
            newest = 0.1 if self._period_s else 1.0
            self._period_s += newest * (passed_s - self._period_s)
            self.each = self._bytes_per_s * self._period_s or math.inf
        self._time_s = time_s

    def spend(self, wire_bytes: float) -> None:
        """Count what was sent; what goes beyond is paid back from what comes."""
        self.left -= wire_bytes


# ------------------------------------------------------------ exploring

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 1.0
OUTAGE_MS = 1000.0
"""An answer that took longer says that the link was away, and that it is back now."""


class Explorer:
    """When to send a frame on a link on which nothing is known to be in time.

    One at a time, with pauses that double until one is answered in time; a frame that stays on its way longer than the
    longest pause is waited for no more.
    """

    def __init__(self) -> None:
        self._pause_s = FIRST_PAUSE_S
        self._last_s = self._next_s = self._heard_s = -math.inf

    def due(self, time_s: float, unanswered: int) -> bool:
        """Whether a frame may go now."""
        return time_s >= (self._last_s + LONGEST_PAUSE_S if unanswered else self._next_s)

    def sent(self, time_s: float) -> None:
        """Count one that goes now."""
        self._last_s, self._next_s = time_s, time_s + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def answered(self, time_s: float) -> None:
        """A frame was answered in time."""
        self._pause_s, self._heard_s = FIRST_PAUSE_S, time_s

    def late(self, time_s: float, round_trip_ms: float) -> None:
        """A frame was answered when it was late; that one of a queue was says nothing of the link."""
        if min(round_trip_ms, (time_s - self._heard_s) * 1e3) > OUTAGE_MS:
            self.back(time_s)
        self._heard_s = time_s

    def back(self, time_s: float) -> None:
        """The link is there again: the next frame may go at once."""
        self._pause_s, self._next_s, self._last_s = FIRST_PAUSE_S, time_s, -math.inf


FIRST_TRY, LAST_TRY = 16, 512
LONG = 64
"""Frames in the same option after which one may be lost to learn whether there is room for more."""


class Climber:
    """When to try a larger frame: after so many in the same option, and twice as many after each that did not help."""

    def __init__(self) -> None:
        self.frames = 0
        """In the same option."""
        self.gap = FIRST_TRY
        """After so many one is tried."""

    @property
    def due(self) -> bool:
        """Whether it is time."""
        return self.frames >= self.gap

    @property
    def long(self) -> bool:
        """Whether it has been the same option for so long that a frame may be lost for another."""
        return self.frames >= LONG

    def same(self) -> None:
        """Count a frame in the same option."""
        self.frames += 1

    def tried(self) -> None:
        """Count one that is tried now."""
        self.frames = 0
        self.gap = min(2 * self.gap, LAST_TRY)

    def moved(self) -> None:
        """Begin anew with another option."""
        self.frames, self.gap = 0, FIRST_TRY


# ------------------------------------------------------------ doubt

CONFIDENCES = 64
LEAST_CONFIDENCES = 16


class Doubt:
    """How much more than on average a frame gains from the server, by the local exit's confidence in it.

    The confidence's rank among the recent ones counts, so that its scale does not matter. Errors of a classifier gather
    where it is least sure: a frame of rank u (1 the surest) gains ``3 (1 - u)^2`` times what the mean one does; the
    mean of that is 1.
    """

    def __init__(self) -> None:
        self._order: deque[float] = deque(maxlen=CONFIDENCES)
        self._sorted: list[float] = []

    def add(self, confidence: float) -> None:
        """Learn a frame's."""
        if len(self._order) == CONFIDENCES:
            self._sorted.pop(bisect_left(self._sorted, self._order[0]))
        self._order.append(confidence)
        insort(self._sorted, confidence)

    def factor(self, confidence: float | None) -> float:
        """Times the mean gain; 1 while too little is known."""
        if confidence is None or len(self._sorted) < LEAST_CONFIDENCES:
            return 1.0
        middle = (bisect_left(self._sorted, confidence) + bisect_right(self._sorted, confidence)) / 2
        surer = 1 - middle / len(self._sorted)
        return 3 * surer * surer
