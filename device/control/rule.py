"""The rule that keeps the deadline: what to do with a picture, by what the last ones took.

A picture can be answered by the local exit at one of the widths, by the whole model on the device, or by the server
from a frame in one of the options of :mod:`~headwater.device.control.options`. For each of these *ways* the estimates
give the chance that the answer is there by the deadline:

    age ── prepare, head, exit ── code ── hold, queue ── network ── server ──> deadline
           └── DeviceEstimate ──┘                        └── RoundTrip: the chance of no more than is left

A frame that is sent where a local exit can step in is worth ``chance * its accuracy + (1 - chance) * the exit's``, and
the most of that is the best. Where there is no exit, the chance has to reach the policy's level, which is corrected by
the misses seen, and of the ways that do the most accurate is taken; if none does, the most accurate of those that are
nearly as likely as the likeliest. The policy may ask for the fewest bytes or the least energy instead, within some
points of the best, and for a budget of bytes a second: a frame that can only be sent now and then counts for that
share.

A link may carry a tenth from one moment to the next, and what was sent just before is then late, and so is what is
behind it. So each frame counts for less by what it would cost then, times how often the rate has fallen so far; where
the last frame was slow, or one is overdue, the rate may have fallen already: that is
:class:`~headwater.device.control.ways.Fear`. It is a hedge: while little is known of the link, or after a fall, frames
are smaller than they could be.

Nobody knows what a link would carry on which nothing is sent. So where nothing is worth sending by what is known, now
and then a frame is sent nevertheless; and where a larger one would likely be in time, but not surely, one is tried
after a while (:mod:`~headwater.device.control.pacing`), as it is where frames have had one size only, which do not tell
how much of their time is their bytes'. All are live frames with their fallback. Where there is none, a picture that is
not sent is lost for sure: it is sent, in the smallest frame of the quickest head, unless those on their way would delay
others.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from headwater.device.control.controller import OVERHEAD_BYTES, Decision
from headwater.device.control.estimates import Sent, device_estimate, observe_work, round_trip
from headwater.device.control.margin import Level
from headwater.device.control.offers import IN_TIME, NO_DEADLINE, Offers
from headwater.device.control.pacing import Budget, Climber, Doubt, Explorer
from headwater.device.control.policy import Policy
from headwater.device.control.ways import NOISE, QUEUE_SHARE, Fear, Plan, Room, Wanted, Way, Work, steady

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwater.compression.manifest import Mode
    from headwater.device.control.controller import Observation, Situation
    from headwater.device.control.offers import Wish
    from headwater.device.control.options import Option
    from headwater.device.control.policy import Cost
    from headwater.device.control.ways import Asked, Exits, Key

LIKELY, LIKELIER = 0.5, 0.8
"""Chance from which on a larger frame may be tried: with a fallback, and without one."""
LEAST_TIMES, MOST_TIMES = 1.2, 4.0
"""The bytes of a frame that is tried to learn what bytes take, times those of the last ones."""
MOVING = 0.8
"""Of the time that the first frame on its way was foretold to take: until then the link is taken to carry it."""
UNHEARD = 8
"""Frames on their way, the most on a link that nothing has come back from yet."""
LINK_SHARE = 0.9
"""The most of the time between two pictures that a frame may occupy the link."""
EXPLORING, TRYING = "exploring the link", "trying a larger frame"


class Rule:
    """Chooses by the chance to be in time; see the module's text."""

    def __init__(
        self,
        modes: Sequence[Mode],
        policy: Policy | None = None,
        *,
        exit_accuracy: Mapping[float, float] | None = None,
        whole_accuracy: float | None = None,
        offers: Offers | None = None,
    ) -> None:
        """Begin without knowing anything.

        Args:
            modes: of the manifest.
            policy: what the user wants; None for the most right answers.
            exit_accuracy: of the local exit by width, 0 to 1; None where there is none.
            whole_accuracy: of the whole model; None where the device does not have it.
            offers: what may be chosen from; None for all modes and tasks. Controllers of the same may share one.
        """
        self.policy = policy or Policy()
        self._offers = offers or Offers(modes, self.policy)
        level, implementation = self.policy.level, self._offers.implementation
        self.link = round_trip(level, implementation)
        self.device = device_estimate(self._offers.macs, level, implementation)
        self._modes = modes
        self._exit = exit_accuracy or {}
        self._exits: Exits = tuple(self._exit.get(width) for width in self._offers.widths)
        self._no_exits: Exits = (None,) * len(self._exits)
        self._idle = Work(math.inf, math.inf, 0.0, 0.0, [0.0] * len(self._exits))
        """When the head has run: it takes no more, and is not asked how long it may."""
        self._whole = whole_accuracy
        self._wish: Wish = (None, None)
        self._level = Level(self.policy.level)
        self._slack = NOISE if self.policy.objective == "accuracy" else self.policy.slack / 100
        self._near = 2 * (1 - self.policy.level)
        self._offer()
        smallest = min(options[0].slow_bytes for options in self._table.values())
        self._budget = Budget.of(self.policy.max_bytes_per_s, self.policy.burst_s, smallest)
        self._explorer = Explorer()
        self._climber = Climber()
        self._doubt = Doubt()
        self._kept: Key | None = None
        self._connected = True
        self._worth = 0.0
        """Of the best way to answer the picture at hand."""
        self._silence: tuple[float, float] | None = None
        """Bytes on the wire, and ms, of a frame that had no answer; while it flies, the situation says so too."""
        self._plan: Plan | None = None
        """Of the picture at hand, where nothing was learnt since it was chosen."""
        self._foretold = self._offers.mean_bytes.copy()
        """Bytes on the wire that were last reckoned with, by mode."""

    def _offer(self) -> None:
        """See what may be chosen from."""
        self._offered = self._offers.at(self._wish)
        self._table = self._offered.table
        self._narrowest = next(iter(self._table.values()))

    # ------------------------------------------------------------ before a frame

    def choose(self, situation: Situation) -> Decision:
        """Say what to do with the next picture; there is always something."""
        self._heed(situation)
        left_ms = situation.left_ms
        now = self._room(situation, left_ms)
        asked = self._asked(situation, left_ms, now)
        best, self._worth = self._offered.ways.best(*asked, self._kept, self._cost(now))
        if best is None or best.action != "send":
            reason = "" if situation.connected else "no connection"
            return self._explore(best, situation, now) or self._done(best or self._last_resort(situation), now, reason)
        if self._climber.due and self.link.calm and (larger := self._larger(best, asked, situation)):
            self._climber.tried()
            return self._decision(larger, now, TRYING)
        decision = self._done(best, now)
        if now is not None and self.policy.objective == "accuracy":
            self._plan = Plan(decision, best, now, situation.frames_unanswered)
        return decision

    def _heed(self, situation: Situation) -> None:
        """Take note of the time, of the server's wishes and of a connection that is back."""
        self._plan = None
        wish = situation.max_groups, situation.max_bytes
        if wish != self._wish:
            self._wish = wish
            self._offer()
        if situation.connected and not self._connected:
            self._explorer.back(situation.time_s)
            self._silence = None
        if self._silence is not None and not situation.frames_unanswered:
            self.link.waited(*self._silence)
        self._connected = situation.connected
        self._budget.picture(situation.time_s)

    def _asked(self, situation: Situation, left_ms: float, now: Room | None) -> Asked:
        """What the ways are weighed by; see :meth:`headwater.device.control.ways.Ways.all`."""
        device = self.device
        wider_ms = min(left_ms / device.margin.upper, situation.interval_ms or math.inf) if device.known else -1.0
        exits = self._exits if situation.exit_available else self._no_exits
        work = Work(left_ms, wider_ms, device.prepare_ms, device.factor, device.heads_ms)
        return exits, self._whole_way(situation, left_ms), work, now, self._wanted()

    def _wanted(self, doubt: float = 1.0, other: float = 0.0) -> Wanted:
        budget = self._budget
        return Wanted(self._level.asked, self._slack, self._near, budget.left, budget.each, doubt, other)

    def _cost(self, now: Room | None) -> Cost | None:
        """What the policy wants little of; None where it is the most accurate way that it wants."""
        if self.policy.objective == "accuracy":
            return None
        return self.policy.cost(0.0 if now is None else now.byte_ms)

    def _local(self, width: float, situation: Situation) -> float | None:
        return self._exit.get(width) if situation.exit_available else None

    def _room(self, situation: Situation, left_ms: float) -> Room | None:
        """What there is for a frame that is written now; None where the link is not known or not there."""
        link, frames = self.link, situation.frames_unanswered
        if not (situation.connected and link.known):
            return None
        left_ms -= self.device.code_ms + situation.held_ms
        interval_ms = situation.interval_ms or math.inf
        most_ms = LINK_SHARE * interval_ms
        base_ms, byte_ms = link.line
        if not frames:
            most_bytes = steady(most_ms, left_ms - base_ms, byte_ms, 0.0)
            fear = Fear(*link.fear(0.0, 0, 0.0, interval_ms))
            return Room(left_ms, base_ms, byte_ms, 0.0, 0.0, most_bytes, 0.0, link.margin, fear)
        ahead_bytes = situation.bytes_unanswered + frames * OVERHEAD_BYTES
        ahead_ms, oldest_ms = link.queue_ms(ahead_bytes), link.begun_ms(situation.oldest_ms, situation.time_s)
        most_bytes = steady(most_ms, left_ms - base_ms, byte_ms, max(ahead_ms - oldest_ms, 0.0))
        beyond = link.overdue(ahead_bytes / frames, oldest_ms)
        fear = Fear(*link.fear(ahead_bytes, frames, oldest_ms, interval_ms))
        return Room(left_ms, base_ms, byte_ms, ahead_ms, oldest_ms, most_bytes, beyond, link.margin, fear)

    def _whole_way(self, situation: Situation, left_ms: float) -> Way | None:
        if situation.whole_ms is None or self._whole is None:
            return None
        time_ms = self.device.whole_ms(situation.whole_ms)
        if time_ms * self.device.margin.upper > left_ms or time_ms > (situation.interval_ms or math.inf):
            return None
        _, widest = self._offered.ways.widest_first[0]
        return Way("whole", widest[0], self._whole, 1.0, sure=True, compute_ms=time_ms)

    # ------------------------------------------------------------ which of them

    def _larger(self, best: Way, asked: Asked, situation: Situation) -> Way | None:
        """The next larger frame that is likely in time, if that or one above it would be better."""
        enough = best.worth + self._slack
        if self._offered.above[best.option] > enough:
            ways, _ = self._offered.ways.all(*asked)
            larger = [way for way in ways if best.wire_bytes < way.wire_bytes <= self._budget.each]
            likely = LIKELY if situation.exit_available else LIKELIER
            fit = [way for way in larger if way.chance >= likely]
            if fit and any(way.option.accuracy > enough for way in larger):
                return min(fit, key=lambda way: way.wire_bytes)
        return self._telling(best, situation)

    def _telling(self, best: Way, situation: Situation) -> Way | None:
        """A larger frame that shows what bytes take, where no more than a guess says that there is no room for it.

        Where no exit can step in, one that is in time even if bytes are all that takes time, for long.
        """
        if self.link.told:
            return None
        safe = not (situation.exit_available or self._climber.long)
        spare_ms = situation.left_ms - best.compute_ms if safe else math.inf
        times = min(spare_ms / self.link.usual_ms(best.wire_bytes), MOST_TIMES)
        most = min(best.wire_bytes * times, self._budget.each, self._budget.left)
        for option in self._table[best.option.width]:
            longer = best.wire_bytes * LEAST_TIMES <= option.mean_bytes <= most
            if longer and option.accuracy > best.option.accuracy + self._slack:
                return Way("send", option, 0.0, 0.0, sure=False, compute_ms=best.compute_ms)
        return None

    def _explore(self, best: Way | None, situation: Situation, now: Room | None) -> Decision | None:
        """A frame that shows what the link carries, where that could be of use and it is time for one."""
        if not situation.connected or situation.held_ms > 0:
            return None
        without = not situation.exit_available
        if without and now is not None and 0 < now.beyond <= MOVING:
            return None
        alone = best is None and without and self._room_for_one_more(situation)
        if not alone and not self._explorer.due(situation.time_s, situation.frames_unanswered):
            return None
        option = self._cheapest_better(best, situation, widths=1 if alone else None)
        if option is None:
            return None
        self._explorer.sent(situation.time_s)
        return self._decision(Way("send", option, 0.0, 0.0, sure=False), None, EXPLORING)

    def _room_for_one_more(self, situation: Situation) -> bool:
        """Whether a frame more hardly delays others, or would be in time itself, if the link was again what it was.

        A stall may be over any moment; after a drop of the rate the frames on their way take long at the new one.
        """
        frames, link = situation.frames_unanswered, self.link
        if not (frames and link.known):
            return frames < UNHEARD
        ahead_ms = link.queue_ms(situation.bytes_unanswered + frames * OVERHEAD_BYTES)
        spare_ms = situation.left_ms - link.usual_ms(self._narrowest[0].mean_bytes)
        return ahead_ms <= max(QUEUE_SHARE * (situation.deadline_ms or math.inf), spare_ms)

    def _cheapest_better(self, best: Way | None, situation: Situation, widths: int | None) -> Option | None:
        """The smallest frame of so many widths whose answer would be worth more than what there is.

        At the same width if it can be.
        """
        left_ms, most_bytes = situation.left_ms, self._budget.left
        of = list(self._table)[: widths if self.device.known else 1]
        possible = (width for width in of if self.device.expected_ms(width) <= left_ms)
        options = [option for width in possible for option in self._table[width] if option.mean_bytes <= most_bytes]
        if best is not None:
            options = [option for option in options if option.accuracy > best.worth + self._slack]
            options = [option for option in options if option.width == best.option.width] or options
        return min(options, key=lambda option: option.mean_bytes, default=None)

    def _last_resort(self, situation: Situation) -> Way:
        """What is done where no way is known to be in time: the quickest, if it can be at all.

        A picture that is too old already gets the exit's answer all the same: late is better than none, and what waits
        behind it does not pile up, as a live source keeps its newest picture only. Without a deadline nothing is late:
        a picture is sent though nobody has answered yet, and waits for its turn.
        """
        options, width = self._narrowest, self._narrowest[0].width
        if self._local(width, situation) is not None:
            return Way("local", options[0], self._exit[width], 0.0, sure=False)
        left_ms = situation.left_ms
        quick_ms = self.device.expected_ms(width) * self.device.least_factor / self.device.factor
        possible = left_ms > 0 and (quick_ms <= left_ms or not self.device.fresh(situation.time_s))
        waits = situation.deadline_ms is None or (possible and not situation.connected)
        sent = waits and options[0].mean_bytes <= self._budget.left
        return Way("send" if sent else "skip", options[0], 0.0, 0.0, sure=False)

    def _done(self, way: Way, now: Room | None, reason: str = "") -> Decision:
        if way.key == self._kept:
            self._climber.same()
        else:
            self._kept = way.key
            self._climber.moved()
        return self._decision(way, now, reason if way.action in {"local", "send"} else "")

    # ------------------------------------------------------------ after the head

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:
        """Choose the gain again with the time that is left, and what the local exit thinks of its own answer."""
        if decision.action != "send":
            return decision
        width, plan = self._modes[decision.mode].width, self._plan
        local, left_ms = self._local(width, situation), situation.left_ms
        if plan is not None and plan.decision is decision and plan.holds(situation, left_ms - self.device.code_ms):
            most_bytes = self._most_bytes(plan.way, plan.room, local)
            return Decision(decision.mode, decision.groups, "send", most_bytes, decision.reason)
        now = self._room(situation, left_ms)
        if now is None or decision.reason in {EXPLORING, TRYING} or width not in self._table:
            gone = local is not None and not situation.connected
            return replace(decision, action="local", reason="no connection") if gone else decision
        doubt = 1.0 if self.policy.objective == "accuracy" else self._doubt.factor(confidence)
        could_be = self._worth if local is None else local + doubt * (self._worth - local)
        exits = self._exits if situation.exit_available else self._no_exits
        asked = exits, None, self._idle, now, self._wanted(doubt, could_be)
        best, _ = self._offered.of_width[width].best(*asked, self._kept, self._cost(now))
        if best is None:
            return decision
        return self._decision(best, now, most_bytes=self._most_bytes(best, now, local))

    def _decision(self, way: Way, now: Room | None, reason: str = "", most_bytes: int | None = None) -> Decision:
        mode, action, groups = way.option.mode, way.action, way.option.groups
        if action == "send":
            self._foretold[mode] = way.option.mean_bytes
            in_time = now is not None and now.left_ms < math.inf
            reason = reason or (IN_TIME[round(100 * way.chance)] if in_time else NO_DEADLINE)
        else:
            reason, groups = reason or _REASONS[action if way.sure else "skip"], None
        decide = _decided if most_bytes is None else Decision
        return decide(mode, groups, action, most_bytes, reason)

    def _most_bytes(self, way: Way, room: Room, local: float | None) -> int | None:
        """The longest frame; None where a shorter one is of no use, as the exit does better, or length is no matter."""
        below = self._offered.below[way.option]
        if below is None or below.accuracy <= (local or 0.0):
            return None
        most = room.most_bytes(way, self.link.margin.upper) - OVERHEAD_BYTES
        return None if most == math.inf else max(int(most), 1)

    # ------------------------------------------------------------ after an answer

    def observe(self, observation: Observation) -> None:
        """Learn from a frame that is done with."""
        outcome, flew, self._plan = observation.outcome, observation.attempts > 0, None
        observe_work(self.device, observation, self._modes[observation.mode].width)
        if observation.confidence is not None and outcome != "late" and self.policy.objective != "accuracy":
            self._doubt.add(observation.confidence)
        if flew and outcome in {"answered", "failed", "expired", "local"}:
            self._budget.spend((observation.sent_bytes + OVERHEAD_BYTES) * observation.attempts)
            if outcome != "failed":
                self._level.add(in_time=outcome == "answered")
        if observation.round_trip_ms is not None and outcome in {"answered", "late"}:
            self._learn_link(observation, observation.round_trip_ms)
        elif observation.waited_ms:
            size = observation.sent_bytes + observation.bytes_ahead + OVERHEAD_BYTES
            self._silence = size, observation.waited_ms

    def _learn_link(self, observation: Observation, round_trip_ms: float) -> None:
        wire_bytes, server_ms = observation.sent_bytes + OVERHEAD_BYTES, min(observation.server_ms, round_trip_ms)
        sent = Sent(wire_bytes, self._foretold[observation.mode], queued=observation.bytes_ahead > 0)
        self.link.answered(sent, round_trip_ms - server_ms, server_ms, observation.time_s)
        self._silence = None
        if observation.outcome == "answered":
            self._explorer.answered(observation.time_s)
        else:
            self._explorer.late(observation.time_s, round_trip_ms)


_REASONS = {
    "local": "the local exit does best",
    "whole": "the whole model fits",
    "skip": "nothing can be in time",
}


_decided = lru_cache(maxsize=4096)(Decision)
"""A decision that may have been made before: they are the same again and again, and nobody can change them."""
