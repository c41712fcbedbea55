"""What one device may ask of the server, and how many may come at a time: plain numbers, the time comes from outside.

A *meter* is a token bucket, kept as a single number: the time at which everything taken so far would be through at the
steady rate (the generic cell rate algorithm of ITU-T I.371, "virtual scheduling"). It refuses what would run ahead of
that by more than the burst, and knows exactly when there is room again.

    requests    calls and frames of a device     beyond the rate: refused, with the time to wait
    reading     messages and bytes of a device   beyond the rate: read later, so that the transport holds it back
    urgent      its frames with a priority       beyond the rate: served with everybody's, not before them
    greetings   its streams, one after another   beyond the rate: refused, with the time to wait
    turnstile   greetings of all devices         beyond the rate: each is given a moment of its own to come back
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

_EXACT_S = 1e-6
"""What sums of floating-point seconds are allowed to be off by: a burst of N lets N through, not one less."""
MESSAGES_A_REQUEST = 2
"""Heartbeats, reports and refused frames are read as well: so many messages for each request that is allowed."""
GREETINGS_PER_S, GREETINGS_AT_ONCE = 5.0, 20
"""Streams that one device may open: a link that flaps opens two a second."""
LOOKED_AT = 4
"""Devices of which it is seen, when a new one comes, whether they can be forgotten: more than come."""
LATE_S = 30.0
"""So long after its moment a device that was given one at the turnstile may come."""


class Meter:
    """So many a second, and a burst of them at once; a rate of 0 lets everything through.

    Args:
        rate: a second, in the long run.
        burst: at once, after a pause.
    """

    __slots__ = ("_burst_s", "_due_s", "_period_s")

    def __init__(self, rate: float, burst: float) -> None:
        self._period_s = 1 / rate if rate else 0.0
        self._burst_s = burst * self._period_s + _EXACT_S
        self._due_s = -math.inf

    def take(self, now_s: float, count: float = 1) -> bool:
        """Take `count` if there is room for them now."""
        due_s = max(now_s, self._due_s)
        due_s += count * self._period_s
        if due_s - now_s > self._burst_s:
            return False
        self._due_s = due_s
        return True

    def charge(self, now_s: float, count: float = 1) -> float:
        """Take `count` whether there is room or not; the seconds until what was taken is within the burst again."""
        due_s = max(now_s, self._due_s)
        self._due_s = due_s = due_s + count * self._period_s
        late_s = due_s - now_s - self._burst_s
        return late_s if late_s > 0 else 0.0

    def rests(self, now_s: float) -> bool:
        """Whether it is as if nothing had ever been taken."""
        return self._due_s <= now_s

    def wait_s(self, now_s: float, count: float = 1) -> float:
        """Seconds until :meth:`take` would succeed, if nothing else is taken meanwhile."""
        return max(self._due_s + count * self._period_s - self._burst_s - now_s, 0.0)


@dataclass(frozen=True)
class DeviceLimits:
    """What one device may take; 0 a second is no limit."""

    requests_per_s: float = 1000
    bytes_per_s: float = 8 << 20
    urgent_per_s: float = 20
    streams: int = 4
    calls: int = 64
    """Calls that are open at a time, streams included."""
    unanswered: int = 64
    """Frames of all of its streams that wait or run, or whose answers are unread."""
    stream_bytes: int = 8 << 20
    """Of one stream: frames that wait, answers that are unread, and answers that are remembered, each."""


class Allowance:
    """What one device has taken of what it may."""

    __slots__ = (
        *("_bytes", "_clock", "_messages", "calls", "greetings", "limits"),
        *("requests", "streams", "unanswered", "urgent"),
    )

    def __init__(self, limits: DeviceLimits, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.requests = Meter(limits.requests_per_s, limits.requests_per_s)
        self.urgent = Meter(limits.urgent_per_s, limits.urgent_per_s)
        self.greetings = Meter(GREETINGS_PER_S, GREETINGS_AT_ONCE)
        messages_per_s = MESSAGES_A_REQUEST * limits.requests_per_s
        self._messages = Meter(messages_per_s, messages_per_s)
        self._bytes = Meter(limits.bytes_per_s, limits.bytes_per_s)
        self._clock = clock
        self.streams = 0
        """That are open."""
        self.calls = 0
        """That are open, streams included."""
        self.unanswered = 0
        """Frames that wait or run."""

    @property
    def idle(self) -> bool:
        """Whether nothing of the device is open."""
        return not (self.calls or self.streams or self.unanswered)

    @property
    def fresh(self) -> bool:
        """Whether it is as good as a new one."""
        meters, now_s = (self.requests, self.urgent, self.greetings, self._messages, self._bytes), self._clock()
        return self.idle and all(meter.rests(now_s) for meter in meters)

    def request(self) -> bool:
        """Count a call or a frame; False if it is one too many."""
        return self.requests.take(self._clock())

    def request_wait_s(self) -> float:
        """Seconds until the next :meth:`request` is granted."""
        return self.requests.wait_s(self._clock())

    def rush(self) -> bool:
        """Count a frame that wants to go before others; False if it has to wait with them."""
        return self.urgent.take(self._clock())

    def read(self, size: int) -> float:
        """Count a message of `size` bytes; the seconds for which nothing more is to be read."""
        now_s = self._clock()
        messages_s, bytes_s = self._messages.charge(now_s), self._bytes.charge(now_s, size)
        return max(bytes_s, messages_s)


class Allowances:
    """Those of every device that was here lately; a device that opens another connection goes on with its own.

    One that is as good as new is forgotten when others come.

    Args:
        limits: of each device.
        most: devices that are remembered; the one that came least recently is forgotten first, unless it is here.
        clock: monotonic seconds.
    """

    def __init__(self, limits: DeviceLimits, most: int, clock: Callable[[], float]) -> None:
        self.limits = limits
        self.clock = clock
        self._most = most
        self._of: OrderedDict[str, Allowance] = OrderedDict()

    def __len__(self) -> int:
        return len(self._of)

    def of(self, device: str) -> Allowance:
        """The device's own, a fresh one if it has not been here lately."""
        allowance = self._of.get(device)
        if allowance is None:
            self._make_room()
            allowance = self._of[device] = Allowance(self.limits, self.clock)
        else:
            self._of.move_to_end(device)
        return allowance

    def _make_room(self) -> None:
        for device, allowance in list(islice(self._of.items(), LOOKED_AT)):
            if allowance.fresh:
                del self._of[device]
            elif not allowance.idle:
                self._of.move_to_end(device)
        if len(self._of) >= self._most:
            idle = next((device for device, one in self._of.items() if one.idle), None)
            if idle is not None:
                del self._of[idle]


class Turnstile:
    """Lets devices in at a steady rate, and gives each that comes too soon a moment of its own to come back.

    Two hundred devices that lost the server in the same instant come back in the same instant, and all of them again
    after the same pause. Here a burst goes in at once; of the others each is told a different moment, one period after
    the other, and is let in when it comes then. Who comes before its moment is told the same one again.

    Args:
        rate: greetings a second; 0 lets everybody in.
        burst: at once, after a pause.
        most: devices that are given a moment; one more is told when the last of them is, and has none.
    """

    def __init__(self, rate: float, burst: int, most: int) -> None:
        self._meter = Meter(rate, burst)
        self._most = most
        self._moments: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._moments)

    def enter(self, device: str, now_s: float) -> float:
        """0 if the device may come in now, else the seconds after which it may."""
        self._forget(now_s)
        moment_s = self._moments.get(device)
        if moment_s is None:
            if self._meter.take(now_s):
                return 0.0
            if len(self._moments) >= self._most:
                return max(next(reversed(self._moments.values())) - now_s, _EXACT_S)
            moment_s = self._moments[device] = now_s + self._meter.charge(now_s)
        if moment_s > now_s:
            return moment_s - now_s
        del self._moments[device]
        return 0.0

    def _forget(self, now_s: float) -> None:
        """Drop the moments that nobody came for; they are in order of time."""
        while self._moments:
            device, moment_s = next(iter(self._moments.items()))
            if moment_s + LATE_S > now_s:
                return
            del self._moments[device]
