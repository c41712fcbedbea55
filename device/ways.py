"""The ways to answer a picture, and what each is worth by the chance that it is in time.

All of it runs for every picture, so what does not depend on the way is reckoned once, in :class:`Room`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from headwater.device.options import Option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater.device.controller import Action, Decision, Situation
    from headwater.device.pacing import Budget
    from headwater.device.policy import Cost

QUEUE_SHARE = 0.3
"""Of the time to spare until the deadline, the most that frames may pile up."""
HOPELESS = 0.1
"""Chance below which a frame is sent to explore only."""
NOISE = 0.002
"""An accuracy that is better by less is no reason to change the way."""
STEADY = 0.5
"""Chance from which on a frame's way may be kept for being nearly as good."""


class Room(NamedTuple):
    """What there is for a frame on its way to the server and back."""

    left_ms: float
    """For it, and for what the device is yet to do, until the deadline."""
    base_ms: float
    byte_ms: float
    """Middling time: of a frame beside its bytes, and of each byte."""
    ahead_ms: float
    """Middling time of the frames on their way, from the first one's beginning on."""
    oldest_ms: float
    """How much of it has passed."""
    steady_bytes: float
    """The longest frames that do not pile up; see :func:`steady`."""
    within: Callable[[float], float]
    """The chance of so many times the middling time. The link is to all frames what it is to the first on its way, so
    that one which is overdue takes its share of all chances."""

    def most_bytes(self, way: Way, upper: float) -> float:
        """On the wire, of the longest frame if times are `upper` of the middling ones, or if that is too much, those.

        It is if the way's mean frame would be longer.
        """
        if self.left_ms == math.inf or not self.byte_ms:
            return math.inf
        left_ms = self.left_ms - way.compute_ms
        surely = self._most(left_ms, 1 / upper)
        return surely if way.wire_bytes <= surely else self._most(left_ms, 1.0)

    def _most(self, left_ms: float, share: float) -> float:
        """The longest frame if times are what was foretold over `share`."""
        most_ms = left_ms * share
        if self.ahead_ms:
            most_ms = min(most_ms, (self.left_ms + self.oldest_ms) * share - self.ahead_ms)
        return (most_ms - self.base_ms) / self.byte_ms


def steady(most_ms: float, spare_ms: float, byte_ms: float, queue_ms: float) -> float:
    """The longest frame that may be sent again and again: its bytes occupy the link for ``most_ms`` at most.

    For a while they may pile up, where the deadline is far: to the :data:`QUEUE_SHARE` of what is to spare of
    ``spare_ms`` when the bytes and those in the queue have been sent.
    """
    if not byte_ms:
        return math.inf
    if spare_ms < math.inf:
        most_ms = max(most_ms, (most_ms + QUEUE_SHARE * spare_ms) / (1 + QUEUE_SHARE) - queue_ms)
    return most_ms / byte_ms


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

    @property
    def key(self) -> tuple[Action, int, int | None]:
        """What makes it the same way for the next picture."""
        return self.action, self.option.mode, self.option.groups


ON_TIME = 0.02
"""How far off what is left when the head has run may be from what was foretold, for the choice to stand unweighed."""


class Plan(NamedTuple):
    """What was chosen to be sent."""

    decision: Decision
    way: Way
    room: Room
    frames_unanswered: int

    def holds(self, situation: Situation, left_ms: float) -> bool:
        """Whether the device took about as long as was foretold, and nothing happened meanwhile."""
        planned_ms = self.room.left_ms - self.way.compute_ms
        same = situation.connected and situation.frames_unanswered == self.frames_unanswered and not situation.held_ms
        return same and (1 - ON_TIME) * planned_ms <= left_ms <= (1 + ON_TIME) * planned_ms


class Wanted(NamedTuple):
    """What a frame has to be worth."""

    level: float
    """Least chance where no exit can step in."""
    slack: float
    """A way that is worth less than the best so far by more is of no interest."""
    smallest: Option
    """May be sent even if such frames would pile up."""
    doubt: float = 1.0
    """How much more than the mean picture this one gains from the server."""


def sends(
    ways: list[Way],
    options: Sequence[Option],
    room: Room,
    budget: Budget,
    wanted: Wanted,
    local: float | None,
    best: float,
    compute_ms: float = 0.0,
) -> float:
    """Add the ways to send a frame of one width that link and budget have room for.

    Frames on their way go first: with them, as one, a frame has all the time since the first of them was written. The
    first option that would not be worth enough even if it was in time ends the search: those below are less accurate.

    Args:
        ways: are added to.
        options: of the width.
        room: on the link.
        budget: of bytes.
        wanted: of a way.
        local: accuracy of the exit at this width, which steps in when time is up; None where there is none.
        best: what the best way so far is worth.
        compute_ms: that the device has yet to do.

    Returns:
        What the best way is worth by now.
    """
    level, slack, smallest, doubt = wanted
    instead, least = (0.0, level) if local is None else (local, HOPELESS)
    all_ms, base_ms, byte_ms, ahead_ms, oldest_ms, most, within = room
    left_ms, affordable, each = all_ms - compute_ms, budget.left, budget.each
    if left_ms <= 0:
        return best
    for option in reversed(options):
        wire_bytes, gain = option.mean_bytes, doubt * (option.accuracy - instead)
        if gain <= 0 or instead + gain < best - slack:
            break
        if wire_bytes > affordable or (wire_bytes > most and option is not smallest):
            continue
        if wire_bytes > each:
            gain *= each / wire_bytes  # now and then such a frame can be sent
            if instead + gain < best - slack:
                continue
        own_ms = base_ms + byte_ms * wire_bytes
        times = left_ms / own_ms
        if ahead_ms:
            times = min(times, (all_ms + oldest_ms) / (own_ms + ahead_ms))
        chance = within(times)
        worth, sure = gain if local is None else local + chance * gain, chance >= least
        if sure and worth > best:
            best = worth
        ways.append(Way("send", option, worth, chance, sure, compute_ms, wire_bytes))
    return best


# ------------------------------------------------------------ which of them


def worthiest(ways: Sequence[Way], kept: tuple[Action, int, int | None] | None) -> Way | None:
    """Of those that are sure the one that is worth most, of equals that with the fewest bytes, of these the last.

    The one that was kept to so far stays while it is hardly worse. None where none is sure.
    """
    best = same = None
    mode = None if kept is None else kept[1]
    for way in ways:
        if not way.sure:
            continue
        if best is None or way.worth > best.worth or (way.worth == best.worth and way.wire_bytes <= best.wire_bytes):
            best = way
        if way.option.mode == mode and way.chance >= STEADY and way.key == kept:
            same = way
    return same if best is not None and same is not None and same.worth >= best.worth - NOISE else best


def cheapest(ways: Sequence[Way], enough: float, cost: Cost) -> Way | None:
    """Of those that are sure and worth enough the one that costs least, of equals the more accurate."""
    best, least = None, math.inf
    per_ms, per_frame, per_byte = cost
    for way in ways:
        if not way.sure or way.worth < enough:
            continue
        costs = per_ms * way.compute_ms
        if way.wire_bytes:
            costs += per_frame + per_byte * way.wire_bytes
        if best is None or costs < least or (costs == least and way.worth > best.worth):
            best, least = way, costs
    return best


def likeliest(ways: Sequence[Way], within: float) -> Way | None:
    """Where nothing is sure: of those that are nearly as likely as the likeliest the one that is right most often.

    Late is wrong; of equals the one with the fewest bytes. None where all are hopeless.
    """
    chance = max((way.chance for way in ways), default=0.0)
    if chance < HOPELESS:
        return None
    near = (way for way in ways if way.chance >= chance - within)
    return max(near, key=lambda way: (way.chance * way.worth, -way.wire_bytes))
