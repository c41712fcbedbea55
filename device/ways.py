"""The ways to answer a picture, and what each is worth by the chance that it is in time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from headwater.device.options import Option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater.device.controller import Action
    from headwater.device.pacing import Budget

QUEUE_SHARE = 0.3
"""Of the time to spare until the deadline, the most that frames may pile up."""
HOPELESS = 0.1
"""Chance below which a frame is sent to explore only."""


class Room(NamedTuple):
    """What there is for a frame on its way to the server and back."""

    left_ms: float
    """For it, and for what the device is yet to do, until the deadline."""
    base_ms: float
    byte_ms: float
    """Middling time: of a frame beside its bytes, and of each byte."""
    most_ms: float
    """That its bytes may occupy the link, so that frames do not pile up."""
    ahead_bytes: float
    """Of the frames on their way, on the wire."""
    oldest_ms: float
    """How long the first of them has been on its way."""
    within: Callable[[float], float]
    """The chance of so many times the middling time. The link is to all frames what it is to the first on its way, so
    that one which is overdue takes its share of all chances."""

    def chance(self, wire_bytes: float, device_ms: float = 0.0) -> float:
        """That a frame of so many bytes, on which the device works for so long yet, is answered in time.

        Those on their way go first: with them, as one, it has all the time since the first of them was written.
        """
        left_ms = self.left_ms - device_ms
        if left_ms <= 0:
            return 0.0
        own_ms = self.base_ms + self.byte_ms * wire_bytes
        times = left_ms / own_ms
        if self.ahead_bytes:
            together = (self.left_ms + self.oldest_ms) / (own_ms + self.byte_ms * self.ahead_bytes)
            times = min(times, together)
        return self.within(times)

    def steady(self, wire_bytes: float) -> bool:
        """Whether frames of so many bytes do not pile up; for a while they may, where the deadline is far."""
        sending_ms = self.byte_ms * wire_bytes
        if sending_ms <= self.most_ms:
            return True
        queue_ms = max(self.byte_ms * self.ahead_bytes - self.oldest_ms, 0.0)
        spare_ms = self.left_ms - self.base_ms - sending_ms - queue_ms
        return self.left_ms < math.inf and sending_ms + queue_ms <= self.most_ms + QUEUE_SHARE * spare_ms

    def most_bytes(self, wire_bytes: float, upper: float) -> float:
        """On the wire, of the longest frame if times are `upper` of the middling ones, or if that is too much, those.

        It is if a frame of `wire_bytes` would be longer.
        """
        if self.left_ms == math.inf or not self.byte_ms:
            return math.inf
        surely = self._most(1 / upper)
        return surely if wire_bytes <= surely else self._most(1.0)

    def _most(self, share: float) -> float:
        """The longest frame if times are what was foretold over `share`."""
        alone_ms, all_ms = self.left_ms * share, (self.left_ms + self.oldest_ms) * share
        most = (alone_ms - self.base_ms) / self.byte_ms
        return min(most, (all_ms - self.base_ms) / self.byte_ms - self.ahead_bytes) if self.ahead_bytes else most


class Way(NamedTuple):
    """A way to answer a picture."""

    action: Action
    option: Option
    """Of a way that sends nothing, the width's smallest, to name a width."""
    worth: float
    """Expected accuracy, 0 to 1."""
    chance: float
    """That this very way answers in time."""
    sure: bool
    """It does with the level's probability, or a local exit steps in."""
    compute_ms: float = 0.0
    wire_bytes: float = 0.0
    """That it sends on average."""
    room: Room | None = None

    @property
    def key(self) -> tuple[Action, int, int | None]:
        """What makes it the same way for the next picture."""
        return self.action, self.option.mode, self.option.groups

    @property
    def sending_ms(self) -> float:
        """How long its bytes occupy the link."""
        return 0.0 if self.room is None else self.room.byte_ms * self.wire_bytes


class Wanted(NamedTuple):
    """What a frame has to be worth."""

    local: float | None
    """Accuracy of the local exit, which steps in when time is up; None where there is none."""
    level: float
    """Least chance where there is none."""
    best: float
    """What the best way so far is worth."""
    slack: float
    """A way that is worth less than that by more is of no interest."""
    doubt: float = 1.0
    """How much more than the mean picture this one gains from the server."""
    always: bool = True
    """The smallest frame may be sent even if such frames would pile up."""


def sends(
    ways: list[Way], options: Sequence[Option], room: Room, budget: Budget, wanted: Wanted, compute_ms: float = 0.0
) -> float:
    """Add the ways to send a frame of one width that link and budget have room for; what the best is worth by now.

    The first that would not be worth enough even if it was in time ends the search: those below it are less accurate.
    """
    local, level, best, slack, doubt, always = wanted
    instead = 0.0 if local is None else local
    smallest = options[0] if always else None
    for option in reversed(options):
        wire_bytes, gain = option.mean_bytes, doubt * (option.accuracy - instead)
        if gain <= 0 or instead + gain < best - slack:
            break
        if wire_bytes > budget.left or (option is not smallest and not room.steady(wire_bytes)):
            continue
        chance = room.chance(wire_bytes, compute_ms)
        share = budget.share(wire_bytes) if budget.limited else 1.0
        if local is None:
            worth, sure = share * gain, chance >= level
        else:
            worth, sure = local + share * chance * gain, chance >= HOPELESS
        if sure and worth > best:
            best = worth
        ways.append(Way("send", option, worth, chance, sure, compute_ms, wire_bytes, room))
    return best


def promising(way: Way) -> tuple[float, float]:
    """For the way that is right most often if late is wrong, of equals the one with the fewest bytes."""
    return way.chance * way.worth, -way.wire_bytes


def worthiest(ways: Sequence[Way]) -> Way:
    """The way that is worth most, of equals the one with the fewest bytes, of these the last."""
    best = ways[0]
    for way in ways:
        if way.worth > best.worth or (way.worth == best.worth and way.wire_bytes <= best.wire_bytes):
            best = way
    return best
