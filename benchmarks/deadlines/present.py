"""What one could do who knows what the link carries now, but not what it will carry: between the oracle and us.

Nobody can save the frames that are on their way when a link falls, nor foresee the end of a stall, which the oracle
does. So how much of what the oracle has could a controller have at best? This one is told, at each picture, the present
rate of both directions and what of its own frames is still on the way there, exactly, and reckons with the medians of
the oracle; each frame then takes what the link's future, and a draw from the times of devices side by side, make of it.

It hedges, as that loses fewest: it takes the most accurate option that would be in time even at a tenth of the present
rates, if there is none, at a third, and so on. When the link stands still it sends the smallest frame as long as those
on their way would be through soon at the last known rate; when it moves, a frame that would be late is sent only where
nothing waits for it. It is one sensible controller, not the best there can be: a limit by example, not by proof.

Times in s, sizes in bytes, rates in bytes a second.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.deadlines.oracle import Chosen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.deadlines.oracle import Costs, Option
    from headwater.simulations.trace import LinkTrace, Trace

HEDGES = 10.0, 3.0, 1.5, 1.0
"""The rates' falls that an option is to be in time after, tried in turn."""
AROUND_S = 0.1
"""Over so long a time a rate is the present one; half of it is the future's, which is generous."""
SOON = 0.3
"""Of the deadline: what is on its way may take that long while the link stands still."""


class Rates(NamedTuple):
    """Of the two directions, at one moment."""

    up: float
    down: float

    @property
    def moving(self) -> bool:
        """Neither stands still."""
        return self.up > 0 and self.down > 0


class Queue(NamedTuple):
    """Bytes of own frames that are yet to cross, at one moment."""

    up: float
    down: float


@dataclass(frozen=True)
class _Crossing:
    """One direction of a frame's way: from its first byte's start to its last byte's end."""

    begin_s: float
    end_s: float
    size: float

    def left(self, trace: Trace, now_s: float) -> float:
        """Bytes that are yet to cross."""
        if self.end_s <= now_s:
            return 0.0
        return self.size if self.begin_s >= now_s else trace.capacity(self.end_s) - trace.capacity(now_s)


class Present:
    """Knows a link's present."""

    def __init__(
        self,
        link: LinkTrace,
        options: Iterable[Option],
        costs: Costs,
        scatter: Sequence[tuple[float, float]],
        seed: int,
    ) -> None:
        self._link = link
        self._options = sorted((option for option in options if option.action == "send"), key=lambda o: -o.accuracy)
        self._costs = costs
        self._scatter, self._chance = scatter, random.Random(seed)
        self._device_free = 0.0
        self._up: list[_Crossing] = []
        self._down: list[_Crossing] = []
        self._known = Rates(math.inf, math.inf)

    @classmethod
    def choose(
        cls,
        link: LinkTrace,
        options: Iterable[Option],
        costs: Costs,
        frames: Sequence[tuple[float, Mapping[int, int]]],
        deadline_s: float,
        scatter: Sequence[tuple[float, float]],
        seed: int = 0,
    ) -> list[Chosen]:
        """Decide about every frame; those as for :meth:`benchmarks.deadlines.oracle.Oracle.choose`, no exit.

        ``scatter`` has pairs of what device and server took, over the median. A frame whose latency is beyond the
        deadline was sent in vain.
        """
        one = cls(link, options, costs, scatter, seed)
        return [one._next(due_s, sizes, deadline_s) for due_s, sizes in frames]

    def _next(self, due_s: float, sizes: Mapping[int, int], deadline_s: float) -> Chosen:
        device, server = self._chance.choice(self._scatter)  # drawn for every picture, sent or not
        now_s = max(due_s, self._device_free)
        option = self._best(now_s, sizes, due_s + deadline_s - now_s)
        if option is None:
            return Chosen(None)
        self._device_free = now_s + option.device_s * device
        back_s = self._send(self._device_free, sizes[option.mode], self._costs.server_s * server)
        return Chosen(option, back_s - due_s, sizes[option.mode])

    def _best(self, now_s: float, sizes: Mapping[int, int], left_s: float) -> Option | None:
        rates, queue = self._rates(now_s), self._queue(now_s)
        for hedge in HEDGES if rates.moving else ():
            fallen = Rates(rates.up / hedge, rates.down / hedge)
            for option in self._options:
                if self._takes_s(option, sizes, fallen, queue) <= left_s:
                    return option
        smallest = min(self._options, key=lambda option: sizes[option.mode])
        return smallest if self._worth_a_try(smallest, sizes, rates, queue, left_s) else None

    def _worth_a_try(self, option: Option, sizes: Mapping[int, int], rates: Rates, queue: Queue, left_s: float) -> bool:
        """Whether a frame that would be late by what is known delays no other, or may be in time when a stall ends."""
        if rates.moving:
            return not any(queue)
        through_s = max(queue.up / self._known.up, queue.down / self._known.down)
        spare_s = left_s - self._takes_s(option, sizes, self._known, Queue(0.0, 0.0))
        return through_s <= max(SOON * left_s, spare_s)

    def _takes_s(self, option: Option, sizes: Mapping[int, int], rates: Rates, queue: Queue) -> float:
        """From choosing an option to its answer, if the rates stay as they are."""
        link, costs = self._link, self._costs
        up_s = (queue.up + sizes[option.mode] + costs.up_bytes) / rates.up + link.up_delay_s + costs.server_s
        return option.device_s + max(up_s, queue.down / rates.down) + costs.down_bytes / rates.down + link.down_delay_s

    def _rates(self, now_s: float) -> Rates:
        rates = Rates(_rate(self._link.up, now_s), _rate(self._link.down, now_s))
        self._known = Rates(rates.up or self._known.up, rates.down or self._known.down)
        return rates

    def _queue(self, now_s: float) -> Queue:
        self._up = [one for one in self._up if one.end_s > now_s]
        self._down = [one for one in self._down if one.end_s > now_s]
        return Queue(
            sum(one.left(self._link.up, now_s) for one in self._up),
            sum(one.left(self._link.down, now_s) for one in self._down),
        )

    def _send(self, coded_s: float, size: float, server_s: float) -> float:
        """Let a frame cross, and its answer come back; when that is there."""
        link, costs = self._link, self._costs
        up = _crossed(link.up, self._up, coded_s, size + costs.up_bytes)
        down = _crossed(link.down, self._down, up.end_s + link.up_delay_s + server_s, costs.down_bytes)
        return down.end_s + link.down_delay_s


def _rate(trace: Trace, now_s: float) -> float:
    """Around a moment: a recording is packets, with nothing between them."""
    begin_s, end_s = max(now_s - AROUND_S / 2, 0.0), now_s + AROUND_S / 2
    return (trace.capacity(end_s) - trace.capacity(begin_s)) / (end_s - begin_s)


def _crossed(trace: Trace, before: list[_Crossing], at_s: float, size: float) -> _Crossing:
    """A crossing behind those before it, with which it is from now on."""
    begin_s = max(at_s, before[-1].end_s if before else 0.0)
    before.append(_Crossing(begin_s, trace.finish(begin_s, size), size))
    return before[-1]
