"""The ways to answer a picture, and what each is worth by the chance that it is in time.

All of it runs for every picture, so what does not depend on the way is reckoned once, in :class:`Room`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from headwater.device.control.controller import Action
from headwater.device.control.kernel import Implementation, compiled, scales_type
from headwater.device.control.options import Option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.device.control.controller import Decision, Situation
    from headwater.device.control.margin import Margin
    from headwater.device.control.options import Table
    from headwater.device.control.policy import Cost

QUEUE_SHARE = 0.3
"""Of the time to spare until the deadline, the most that frames may pile up."""
HOPELESS = 0.1
"""Chance below which a frame is sent to explore only."""
NOISE = 0.002
"""An accuracy that is better by less is no reason to change the way."""
STEADY = 0.5
"""Chance from which on a frame's way may be kept for being nearly as good."""
Key = tuple[Action, int, int | None]
"""What makes a way the same for the next picture: action, mode, channel groups."""
Exits = tuple[float | None, ...]
MOST_LOST = 5.0
"""Pictures, the most that a frame is thought to cost if the link carries less: the next ones are chosen by then."""


class Fear(NamedTuple):
    """What the link would be if it carried less than it does, as far as is known: a hedge against that."""

    share: float
    """How likely that is."""
    base_ms: float
    """Of a frame then, beside its bytes: with what is yet to come of those on their way."""
    byte_ms: float
    interval_ms: float
    """Between two pictures."""

    def lost(self, left_ms: float, wire_bytes: float) -> float:
        """Pictures without an answer in time then, if a frame of this size was sent: its own, and those behind it."""
        over_ms = self.base_ms + self.byte_ms * wire_bytes - left_ms
        return min(1.0 + over_ms / self.interval_ms, MOST_LOST) if over_ms > 0 else 0.0


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
    beyond: float
    """So many times the middling time the first of them has been on its way. The link is to all frames what it is to
    that one, so that if it is overdue it takes its share of all chances."""
    margin: Margin
    """Of the forecast."""
    fear: Fear

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


class Work(NamedTuple):
    """What the device takes for a picture, and has for it."""

    left_ms: float
    """Until the deadline. Of the narrowest width no margin is asked: there is nothing quicker."""
    wider_ms: float
    """The most that another width may take."""
    prepare_ms: float
    """While nothing else runs."""
    factor: float
    """How much longer everything takes at present."""
    heads_ms: list[float]
    """Of the head and exit of each width, while nothing else runs."""


class Wanted(NamedTuple):
    """What is asked of a way."""

    level: float
    """Least chance of a frame where no exit can step in."""
    slack: float
    """A way that is worth less than the best so far by more is of no interest."""
    near: float
    """Where nothing is sure, ways whose chance is less than the best one's by no more are as likely."""
    affordable: float
    """Bytes that may be sent now."""
    each: float
    """Bytes there are for each picture: a frame that has more can be sent for a share of them only."""
    doubt: float = 1.0
    """How much more than the mean picture this one gains from the server."""
    other: float = 0.0
    """What the best of ways that are not weighed here is worth."""


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
    def key(self) -> Key:
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


# ------------------------------------------------------------ all of them

Asked = tuple[Exits, Way | None, Work, Room | None, Wanted]
"""See :meth:`_Scales.all`."""


class Ways:
    """What may be done with a picture by a table, or by one of its widths.

    :meth:`_Scales.all` and :meth:`_Scales.best` say what ``all`` and ``best`` do.
    """

    def __init__(self, table: Table, widths: Sequence[float], implementation: Implementation | None = None) -> None:
        """Weigh with the compiled kernel or in Python, "c" or "python"; None takes what there is.

        ``widths``: of the device's estimates, narrowest first, of which the table has some.
        """
        self.widest_first = [(widths.index(width), options) for width, options in reversed(table.items())]
        """Number of the width, and its options."""
        self._arguments = table, widths, implementation
        self.scales = scales_type()(Way, self.widest_first) if compiled(implementation) else _Scales(self.widest_first)
        self.all, self.best = self.scales.all, self.scales.best  # bound, not wrapped: they run for every picture

    def __reduce__(self) -> tuple[type[Ways], tuple[object, ...]]:
        """Made anew where it is unpickled."""
        return Ways, self._arguments


class _Scales:
    """What weighs: see ``_ways.c`` for the same in C."""

    def __init__(self, widest_first: Sequence[tuple[int, Sequence[Option]]]) -> None:
        self._widest_first = widest_first

    def all(
        self, exits: Exits, whole: Way | None, work: Work, room: Room | None, wanted: Wanted
    ) -> tuple[list[Way], float]:
        """Every way that the device has the time for and that may be worth it; what the best of the sure is worth.

        Args:
            exits: accuracy of the local exit by number of the width; None where it cannot answer.
            whole: the way to run the whole model, if there is one.
            work: of the device.
            room: on the link; None where it is not known or not there.
            wanted: of a way.
        """
        ways, best = ([], 0.0) if whole is None else ([whole], whole.worth)
        narrowest = self._widest_first[-1][1]
        for at, options in self._widest_first:  # the best are mostly there, and spare weighing the others
            local = exits[at]
            if max(options[-1].accuracy, local or 0.0) < best - wanted.slack:
                continue
            device_ms = (work.prepare_ms + work.heads_ms[at]) * work.factor
            if device_ms > (work.left_ms if options is narrowest else work.wider_ms):
                continue
            if local is not None and local >= best - wanted.slack:
                ways.append(Way("local", options[0], local, 1.0, True, device_ms))  # noqa: FBT003 - a tuple's field
                best = max(best, local)
            if room is not None:
                smallest = narrowest[0]
                best = _sends(ways, options, room, wanted, smallest, local, best, device_ms)
        return ways, best

    def best(
        self,
        exits: Exits,
        whole: Way | None,
        work: Work,
        room: Room | None,
        wanted: Wanted,
        kept: Key | None,
        cost: Cost | None,
    ) -> tuple[Way | None, float]:
        """The way that is wanted most, None where there is nothing but the hopeless; what the best is worth.

        Args:
            exits: as for :meth:`all`, and so are the next four.
            whole: the same.
            work: the same.
            room: the same.
            wanted: the same.
            kept: what was done last, for which it is taken where hardly better is to be had.
            cost: what is wanted least of those that are worth about as much; None if it is worth that is wanted most.
        """
        ways, worth = self.all(exits, whole, work, room, wanted)
        if cost is None:
            best = worthiest(ways, kept)
        else:
            best = cheapest(ways, max(worth, wanted.other) - wanted.slack, cost) or worthiest(ways, None)
        return best or likeliest(ways, wanted.near), worth


def _sends(
    ways: list[Way],
    options: Sequence[Option],
    room: Room,
    wanted: Wanted,
    smallest: Option,
    local: float | None,
    best: float,
    compute_ms: float,
) -> float:
    """Add the ways to send a frame of one width that link and budget have room for; what the best is worth by now.

    Frames on their way go first: with them, as one, a frame has all the time since the first of them was written. The
    first option that would not be worth enough even if it was in time ends the search: those below are less accurate.
    The smallest of all may be sent even if such frames would pile up.
    """
    level, slack, _, affordable, each, doubt, _ = wanted
    instead, least = (0.0, level) if local is None else (local, HOPELESS)
    all_ms, base_ms, byte_ms, ahead_ms, oldest_ms, most, beyond, margin, fear = room
    left_ms = all_ms - compute_ms
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
        chance = margin.chance(times, beyond)
        kept = max((1.0 if local is None else chance) - fear.share * fear.lost(left_ms, wire_bytes), 0.0)
        worth, sure = instead + kept * gain, chance >= least
        if sure and worth > best:
            best = worth
        ways.append(Way("send", option, worth, chance, sure, compute_ms, wire_bytes))
    return best


# ------------------------------------------------------------ which of them


def worthiest(ways: Sequence[Way], kept: Key | None) -> Way | None:
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
