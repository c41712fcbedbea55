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

    def chance(self, wire_bytes: float, margin: Margin) -> tuple[float, bool]:
        """That a frame of so many bytes is answered in time, and whether the margin's level is reached."""
        if self.left_ms == math.inf:
            return 1.0, True
        if self.left_ms <= 0:
            return 0.0, False
        error = math.log(self.left_ms / (self.base_ms + self.byte_ms * wire_bytes))
        return margin.chance(error), error >= margin.upper

    def most_bytes(self, wire_bytes: float, margin: Margin) -> float:
        """On the wire, of the longest frame for the time left: at the level, if one of `wire_bytes` is; else even."""
        if self.left_ms == math.inf or not self.byte_ms:
            return math.inf
        surely = (self.left_ms * math.exp(-margin.upper) - self.base_ms) / self.byte_ms
        return surely if wire_bytes <= surely else (self.left_ms - self.base_ms) / self.byte_ms


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
    options: Sequence[Option], room: Room, margin: Margin, budget: Budget, compute_ms: float = 0.0, doubt: float = 1.0
) -> Iterator[Way]:
    """Ways to send a frame of one width, those that the link and the budget have room for.

    Args:
        options: of the width, by their bytes.
        room: for the width.
        margin: of the network's times.
        budget: of bytes; a frame that it lets pass now and then counts for that share.
        compute_ms: what the device takes.
        doubt: how much more than the mean picture this one gains from the server.
    """
    local = room.local
    for number, option in enumerate(options):
        if option.mean_bytes > budget.left or (number and room.byte_ms * option.mean_bytes > room.most_ms):
            return
        chance, sure = room.chance(option.mean_bytes, margin)
        share = budget.share(option.mean_bytes)
        if local is None:
            worth = share * option.accuracy
        else:
            worth, sure = local + share * chance * doubt * (option.accuracy - local), chance >= HOPELESS
        yield Way("send", option, worth, chance, sure, compute_ms, room)


def likeliest(way: Way) -> tuple[float, float]:
    """For the way with the best chance, of equals the one with the fewest bytes."""
    return way.chance, -way.wire_bytes


def worthiest(way: Way) -> tuple[float, float]:
    """For the way that is worth most, of equals the one with the fewest bytes."""
    return way.worth, -way.wire_bytes
