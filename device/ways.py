"""The ways to answer a picture, and what each is worth by the chance that it is in time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from headwater.device.options import Option

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headwater.device.controller import Action
    from headwater.device.estimates import Margin
    from headwater.device.pacing import Budget

QUEUE_SHARE = 0.3
"""Of the time to spare until the deadline, the most that frames may pile up."""
HOPELESS = 0.1
"""Chance below which a frame is sent to explore only."""


class Room(NamedTuple):
    """What there is for a frame of one width on its way to the server and back."""

    left_ms: float
    """For it, until the deadline."""
    base_ms: float
    byte_ms: float
    """Middling time: of a frame beside its bytes, and of each byte."""
    most_ms: float
    """That its bytes may occupy the link, so that frames do not pile up."""
    local: float | None
    """Accuracy of the local exit, which steps in when time is up; None where there is none."""
    ahead_bytes: float = 0.0
    """Of the frames on their way, on the wire."""
    oldest_ms: float = 0.0
    """How long the first of them has been on its way when this one joins them."""
    beyond: float = -math.inf
    """How far that frame is overdue, as an error of its forecast."""

    def after(self, device_ms: float, local: float | None) -> Room:
        """The same for a frame that the device is yet to work on for so long."""
        left_ms, oldest_ms = self.left_ms - device_ms, self.oldest_ms + device_ms
        return Room(left_ms, self.base_ms, self.byte_ms, self.most_ms, local, self.ahead_bytes, oldest_ms, self.beyond)

    def chance(self, wire_bytes: float, margin: Margin) -> float:
        """That a frame of so many bytes is answered in time.

        Those on their way go first: with them, as one, it has all the time since the first of them was written. The
        link is to all of them what it is to the first, so that one which is overdue takes its share of all chances.
        """
        if self.left_ms == math.inf:
            return 1.0
        if self.left_ms <= 0:
            return 0.0
        own_ms = self.base_ms + self.byte_ms * wire_bytes
        times = self.left_ms / own_ms
        if self.ahead_bytes:
            times = min(times, (self.left_ms + self.oldest_ms) / (own_ms + self.byte_ms * self.ahead_bytes))
        return margin.chance(math.log(times), self.beyond)

    def steady(self, wire_bytes: float) -> bool:
        """Whether frames of so many bytes do not pile up; for a while they may, where the deadline is far."""
        sending_ms = self.byte_ms * wire_bytes
        if sending_ms <= self.most_ms:
            return True
        queue_ms = max(self.byte_ms * self.ahead_bytes - self.oldest_ms, 0.0)
        spare_ms = self.left_ms - self.base_ms - sending_ms - queue_ms
        return self.left_ms < math.inf and sending_ms + queue_ms <= self.most_ms + QUEUE_SHARE * spare_ms

    def most_bytes(self, wire_bytes: float, margin: Margin) -> float:
        """On the wire, of the longest frame for the time left: at the level, if one of `wire_bytes` is; else even."""
        if self.left_ms == math.inf or not self.byte_ms:
            return math.inf
        surely = self._most(math.exp(-margin.upper))
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
    room: Room | None = None

    @property
    def key(self) -> tuple[Action, int, int | None]:
        """What makes it the same way for the next picture."""
        return self.action, self.option.mode, self.option.groups

    @property
    def wire_bytes(self) -> float:
        """That it sends on average."""
        return self.option.mean_bytes if self.room is not None else 0.0

    @property
    def sending_ms(self) -> float:
        """How long its bytes occupy the link."""
        return self.room.byte_ms * self.option.mean_bytes if self.room is not None else 0.0


def sends(
    options: Sequence[Option],
    room: Room,
    margin: Margin,
    budget: Budget,
    *,
    level: float,
    compute_ms: float = 0.0,
    doubt: float = 1.0,
) -> Iterator[Way]:
    """Ways to send a frame of one width, those that the link and the budget have room for.

    Args:
        options: of the width, by their bytes.
        room: for the width.
        margin: of the network's times.
        level: least chance where no local exit steps in.
        budget: of bytes; a frame that it lets pass now and then counts for that share.
        compute_ms: what the device takes.
        doubt: how much more than the mean picture this one gains from the server.
    """
    local = room.local
    for number, option in enumerate(options):
        if option.mean_bytes > budget.left or (number and not room.steady(option.mean_bytes)):
            return
        chance = room.chance(option.mean_bytes, margin)
        share = budget.share(option.mean_bytes)
        if local is None:
            worth, sure = share * option.accuracy, chance >= level
        else:
            worth, sure = local + share * chance * doubt * (option.accuracy - local), chance >= HOPELESS
        yield Way("send", option, worth, chance, sure, compute_ms, room)


def promising(way: Way) -> tuple[float, float]:
    """For the way that is right most often if late is wrong, of equals the one with the fewest bytes."""
    return way.chance * way.worth, -way.wire_bytes


def worthiest(way: Way) -> tuple[float, float]:
    """For the way that is worth most, of equals the one with the fewest bytes."""
    return way.worth, -way.wire_bytes
