"""What happens next: events in order of time, among a hundred thousand that are far off.

A heap of all of them would cost more the more devices wait for their next picture. So time is cut into slices; events
of later slices lie unsorted in their slice's list, and only those of the slice at hand are a heap (a calendar queue;
Brown, CACM 1988). Events at the same time come in the order in which they were put in.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Agenda:
    """Events to come; ``do(what, time)`` is called for each when it is time."""

    def __init__(self, slice_s: float) -> None:
        """``slice_s``: some hundred events are in a slice, best of all; the order does not depend on it."""
        self.now_s = 0.0
        self.events = 0
        """Done so far."""
        self._per_s = 1 / slice_s
        self._number = 0
        self._slice = 0
        self._heap: list[tuple[float, int, Callable[[Any, float], None], Any]] = []
        self._later: dict[int, list[tuple[float, int, Callable[[Any, float], None], Any]]] = {}
        self._slices: list[int] = []
        """Of those in `_later`, as a heap."""

    def at(self, time_s: float, do: Callable[[Any, float], None], what: Any) -> None:  # noqa: ANN401 - whatever `do` takes
        """Let something happen at a time from now on; at infinity it never does."""
        if time_s == math.inf:
            return
        self._number += 1
        at = int(time_s * self._per_s)
        if at <= self._slice:
            heappush(self._heap, (time_s, self._number, do, what))
            return
        later = self._later.get(at)
        if later is None:
            self._later[at] = [(time_s, self._number, do, what)]
            heappush(self._slices, at)
        else:
            later.append((time_s, self._number, do, what))

    def run(self) -> None:
        """Do all that is to be done, until nothing is left."""
        heap = self._heap
        while True:
            while heap:
                self.now_s, _, do, what = heappop(heap)
                self.events += 1
                do(what, self.now_s)
            if not self._slices:
                return
            self._slice = heappop(self._slices)
            heap.extend(self._later.pop(self._slice))
            heapify(heap)
