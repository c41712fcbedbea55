"""When a device takes its next picture: a clock with a phase of its own, events at random, bursts, day and night."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater.simulations.fleet.scenario import Arrivals

DAY_S = 86_400.0


class Clock:
    """Gives the devices of a class their next pictures; ``luck`` is a number from 0 to below 1, a new one each time."""

    def __init__(self, arrivals: Arrivals, start_h: float) -> None:
        """``start_h``: the time of day at the start of the simulation."""
        self._arrivals = arrivals
        self._start_s = start_h * 3600.0
        self._from_s, self._to_s = arrivals.day_from_h * 3600.0, arrivals.day_to_h * 3600.0
        self._always = arrivals.day_from_h == 0.0 and arrivals.day_to_h == 24.0
        self._interval_s = arrivals.interval_s
        self._periodic = arrivals.kind == "periodic"
        self.simple = self._always and self._periodic and not arrivals.jitter
        """The next picture comes one interval after this one."""

    @property
    def interval_s(self) -> float:
        """Between two pictures in a series, as the agent knows it."""
        return self._arrivals.burst_interval_s if self._arrivals.kind == "bursts" else self._interval_s

    @property
    def pictures_a_burst(self) -> int:
        """1 where there are none."""
        return self._arrivals.burst_frames if self._arrivals.kind == "bursts" else 1

    def first(self, luck: float) -> float:
        """The first moment; infinite for never. Jitter is added by :meth:`moment`."""
        if not self._periodic:
            return self.after(0.0, luck)
        return self._open(luck * self._interval_s, luck)

    def after(self, base_s: float, luck: float) -> float:
        """The moment after one."""
        if self.simple:
            return base_s + self._interval_s
        waits = 1.0 if self._periodic else -math.log(1.0 - luck)
        while True:
            interval_s, until_s = self._now(base_s)
            if interval_s is not None and base_s + waits * interval_s < until_s:
                return base_s + waits * interval_s
            if until_s == math.inf:
                return math.inf
            # What is left of the wait goes on in the next part of the day; a clock begins there with its phase.
            waits = luck if self._periodic else waits - ((until_s - base_s) / interval_s if interval_s else 0.0)
            base_s = until_s

    def moment(self, base_s: float, luck: float) -> float:
        """When the picture is taken that is due at a moment."""
        jitter = self._arrivals.jitter
        return max(base_s + (luck - 0.5) * jitter * self._interval_s, 0.0) if jitter and self._periodic else base_s

    def _open(self, base_s: float, luck: float) -> float:
        """The first moment from one on at which pictures are taken, with the clock's phase."""
        interval_s, until_s = self._now(base_s)
        if interval_s is not None or until_s == math.inf:
            return base_s if interval_s is not None else math.inf
        return until_s + luck * (self._now(until_s)[0] or 0.0)

    def _now(self, time_s: float) -> tuple[float | None, float]:
        """The interval at a time, None for no pictures, and until when that holds."""
        if self._always:
            return self._interval_s, math.inf
        days, of_day_s = divmod(time_s + self._start_s, DAY_S)
        midnight_s = days * DAY_S - self._start_s
        night_s = self._arrivals.night_interval_s
        from_s, to_s = self._from_s, self._to_s
        if from_s == to_s:
            return night_s, math.inf
        is_day = from_s <= of_day_s < to_s if from_s < to_s else not to_s <= of_day_s < from_s
        ends = sorted(end for end in (from_s, to_s, from_s + DAY_S, to_s + DAY_S) if end > of_day_s)
        return self._interval_s if is_day else night_s, midnight_s + ends[0]
