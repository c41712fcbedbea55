"""What a frame will take, learnt from what the last ones took: on the device, and to the server and back.

Each estimate has two parts. A *centre* foretells the next time from the recent ones and follows a change at once. A
:class:`~headwater.device.control.margin.Margin` keeps how far off the centre was, as time over forecast, and turns that
into chances.

No clock: times come with the measurements. Times in ms, sizes in bytes on the wire, that is with OVERHEAD_BYTES.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from headwater.device.control.kernel import compiled, device_estimate_type, round_trip_type
from headwater.device.control.line import GUESS, Line
from headwater.device.control.margin import Margin
from headwater.device.control.ways import Fear

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwater.device.control.controller import Observation
    from headwater.device.control.kernel import Implementation

LEAST_MS = 1e-3
NEAR, FAR = 1.25, 4.0
"""An error up to the one is no change, however small the usual ones are; one beyond the other is a change at once, and
so are two in a row that the margin does not hold."""

# ------------------------------------------------------------ to the server and back

FOLLOW, FOLLOW_SERVER = 0.5, 0.2
"""Share of the newest frame in the scale, and in the server's time."""
QUEUED = 5
"""Frames behind others that say how fast a queue is through."""
LASTING = 0.8
"""Of the least time a frame ever took, what is thought at most to be there whatever the rate."""
STALE = 1.005
"""How far that least time is forgotten with each frame."""
UNDELAYED = 1.1
"""Of it: a frame that took no more waited for no other, though others were on their way: there the delay is long."""

DROP = 10.0
"""The fall of the rate that is hedged against, in times."""
FALLS, FRAMES = 1.0, 100.0
"""Before anything is known: the rate falls once in so many frames."""
MOST_FRAMES = 2000.0
"""That are looked back on for it."""
DOUBTED = 0.5
"""Chance that one slow frame, or one that is overdue, is a fall of the rate and no hiccup."""


class Sent(NamedTuple):
    """Of a frame that was sent, sizes on the wire."""

    wire_bytes: float
    foretold_bytes: float
    """That were reckoned with before it was coded."""
    queued: bool
    """Others were unanswered when it was written."""


class Odd(NamedTuple):
    """A frame that was unusually slow, or unusually quick."""

    size: float
    own_ms: float
    alone: bool
    """Nothing was ahead of it: its time was measured, and not reckoned with the line."""


class RoundTrip:
    """Time from writing a frame to its answer: the network's, a line over the size times a scale, and the server's.

    The scale follows the last frames. A frame that was written behind others waited for them, unless it was as quick as
    any: a link is a queue, so its own time begins when the one before it was through. That is known from the answers'
    times, and no guess at what was still ahead is needed. The margin's errors are those of what was foretold before the
    frame was coded, so that they hold what its size differed from the mode's mean, and the server's whims, too.
    """

    def __init__(self, level: float) -> None:
        self.margin = Margin(level)
        self.scale = 1.0
        self.server_ms = 0.0
        """From queue to answer, which the server's load and batches shape: a mean of the last answers."""
        self.known = False
        """A frame has been answered."""
        self._line = Line()
        self._through_s = -math.inf
        self._apart: deque[float] = deque(maxlen=QUEUED)
        """Of frames that were written behind others: time for each byte that they were through after them."""
        self._apart_ms = math.inf
        """The middle one of these."""
        self._usual_scale = 1.0
        """As it was when the last frame was no odd one."""
        self._odd: list[Odd] = []
        """The last frames, if they were all unusually slow, or all unusually quick."""
        self._odd_is_slow = False
        self._least_ms = math.inf
        """That a frame took from begin to end."""
        self._falls, self._frames = FALLS, FRAMES
        """How often the link became slower, of how many frames."""

    def answered(self, sent: Sent, network_ms: float, server_ms: float, time_s: float) -> None:
        """Learn a frame that was answered at a time, what it took on the network, and what at the server."""
        through_s, own_ms = time_s - server_ms / 1e3, network_ms
        self._least_ms = min(self._least_ms * STALE, max(network_ms, LEAST_MS))
        if sent.queued and through_s >= self._through_s:
            apart_ms = (through_s - self._through_s) * 1e3
            if network_ms > UNDELAYED * self._least_ms:
                own_ms = min(own_ms, apart_ms + self.scale * self._line.base_ms)
            self._apart.append(apart_ms / sent.wire_bytes)
            self._apart_ms = sorted(self._apart)[len(self._apart) // 2]
        self._through_s = through_s
        frame = Odd(sent.wire_bytes, max(own_ms, LEAST_MS), own_ms == network_ms)
        self._learn(frame, sent.foretold_bytes, server_ms)

    def _learn(self, frame: Odd, foretold_bytes: float, server_ms: float) -> None:
        size, own_ms, alone = frame
        if not self.known:
            self._begin_anew([frame])
            self.server_ms, self.known = server_ms, True
            return
        changed = self._judge(frame)
        self.margin.add((own_ms + server_ms) / (self.expected_ms(foretold_bytes) + self.server_ms))
        self._count(fell=changed and self._odd_is_slow)
        if changed:
            self._begin_anew([odd for odd in self._odd if odd.alone] or self._odd)
        else:
            self._follow(size, own_ms, alone=alone)
        self.server_ms += FOLLOW_SERVER * (server_ms - self.server_ms)

    def _count(self, *, fell: bool) -> None:
        self._frames, self._falls = self._frames + 1, self._falls + fell
        if self._frames > MOST_FRAMES:
            self._frames, self._falls = self._frames / 2, self._falls / 2

    def waited(self, size: float, waited_ms: float) -> None:
        """Learn that a frame of this size has had no answer for so long."""
        if self.known:
            self.scale = max(self.scale, (waited_ms - self.server_ms) / self._line.at(size))

    def _judge(self, frame: Odd) -> bool:
        """Whether a frame says that the link is not what it was: so odd a one, or the second one that is odd."""
        error, slow = frame.own_ms / (self._usual_scale * self._line.at(frame.size)), self.margin.upper
        low = self.margin.quantile(0.05) if error < 1 / NEAR else 1.0
        if 1 / NEAR <= error <= NEAR or low <= error <= slow:
            if self._odd:  # it was a hiccup: half of it is forgotten at once
                self._odd, self.scale = [], math.sqrt(self.scale * self._steady_scale)
            return False
        if self._odd_is_slow is not (error > 1):
            self._odd.clear()
        self._odd_is_slow = error > 1
        self._odd.append(frame)
        return len(self._odd) > 1 or not 1 / FAR <= error <= FAR

    def _follow(self, size: float, own_ms: float, *, alone: bool) -> None:
        """Have the scale follow a frame's time, and mend the line by it, unless it is odd: then it may be a hiccup.

        What seems odd may be the guess of a line that nothing has told yet. A frame that was in a queue tells of its
        bytes only: its own time was reckoned with the very line.
        """
        line, told, odd = self._line, self._line.told, bool(self._odd)
        expected_ms = self.scale * line.at(size)
        if alone and not (odd and told):
            line.add(size, own_ms, self.margin.noise)
        # The first frame of another size corrects the line; that it was foretold badly says nothing of the link.
        now_ms = expected_ms + FOLLOW * (own_ms - expected_ms)
        self.scale = now_ms / line.at(size) if told or not line.told else 1.0
        if not odd:
            self._usual_scale = self.scale

    def _begin_anew(self, frames: Sequence[Odd]) -> None:
        """Begin another line with these frames, of which the last says what it is like now."""
        size, own_ms, _ = frames[-1]
        self._line = Line(self._lasting_ms())
        for each in frames:
            self._line.add(each.size, each.own_ms, self.margin.noise)
        self.scale = self._usual_scale = own_ms / self._line.at(size)
        self._odd = []

    def _lasting_ms(self) -> float:
        """What a frame takes beside its bytes, after a change: as before, for it is the rate that changes mostly."""
        if not self._line.told:
            return GUESS * self._least_ms
        return min(self._line.base_ms * min(self.scale, 1.0), LASTING * self._least_ms)

    @property
    def line(self) -> tuple[float, float]:
        """Middling time of a frame with nothing ahead of it: beside its bytes, and of a byte."""
        return self.scale * self._line.base_ms + self.server_ms, self.scale * self._line.byte_ms

    @property
    def told(self) -> bool:
        """It is known what of a frame's time is its bytes', since the link changed."""
        return self._line.told

    @property
    def calm(self) -> bool:
        """The last frame took about what was foretold."""
        return not self._odd

    def fear(self, ahead_bytes: float, frames: int, oldest_ms: float, interval_ms: float) -> Fear:
        """What there is to be hedged against: that the rate falls now, or that it has, where a frame says so.

        Args:
            ahead_bytes: on the wire, of the frames on their way.
            frames: so many they are.
            oldest_ms: how long the first of them has been on its way on its own.
            interval_ms: between two pictures.
        """
        scale = self._steady_scale
        base_ms, byte_ms = scale * self._line.base_ms, scale * self._line.byte_ms
        around_ms, slow_ms = base_ms + self.server_ms, 0.0
        if frames or self._odd:
            slow_ms = self._slow_ms(base_ms, byte_ms, ahead_bytes / frames if frames else 0.0, oldest_ms)
        if slow_ms > byte_ms:
            queue_ms = max(slow_ms * ahead_bytes - max(oldest_ms - base_ms, 0.0), 0.0)
            return Fear(DOUBTED, around_ms + queue_ms, slow_ms, interval_ms)
        byte_ms *= DROP
        return Fear(self._falls / self._frames, around_ms + byte_ms * ahead_bytes, byte_ms, interval_ms)

    def _slow_ms(self, base_ms: float, byte_ms: float, first_bytes: float, oldest_ms: float) -> float:
        """What a byte takes if the last slow frame, or the one that is overdue, is no hiccup; 0 if there is none."""
        slow_ms = 0.0
        if self._odd and self._odd_is_slow:
            slow_ms = (self._odd[-1].own_ms - base_ms) / self._odd[-1].size
        around_ms = base_ms + self.server_ms
        if first_bytes and oldest_ms > NEAR * (around_ms + byte_ms * first_bytes):
            slow_ms = max(slow_ms, (oldest_ms - around_ms) / first_bytes)
        return slow_ms

    def queue_ms(self, wire_bytes: float) -> float:
        """How long frames one after another keep the link busy when it carries what it did, as far as is known."""
        return wire_bytes * min(self._steady_scale * self._line.byte_ms, self._apart_ms)

    def usual_ms(self, size: float) -> float:
        """Middling time of a frame of this size with nothing ahead of it, when the link is what it was."""
        return self._steady_scale * self._line.at(size) + self.server_ms

    @property
    def _steady_scale(self) -> float:
        """The scale without what odd frames, or long silence, added to it."""
        return min(self.scale, self._usual_scale)

    def begun_ms(self, waiting_ms: float, time_s: float) -> float:
        """How much of that time a frame has waited on its own, and not for the one before it to be through."""
        return min(waiting_ms, (time_s - self._through_s) * 1e3 + self.scale * self._line.base_ms)

    def expected_ms(self, size: float) -> float:
        """Middling time on the network of a frame of this size with nothing ahead of it."""
        line = self._line
        return self.scale * (line.base_ms + line.byte_ms * size)

    def overdue(self, wire_bytes: float, waiting_ms: float) -> float:
        """The least error of a frame that has been on its way for so long: how far it is beyond what was foretold."""
        return waiting_ms / (self.expected_ms(wire_bytes) + self.server_ms)


# ------------------------------------------------------------ the device

RECENT, LEAST_RECENT, RECENT_S = 8, 3, 1.0
"""Frames, and seconds, that say how busy the processor is at present."""
RISE, FALL = 1.005, 0.5
"""How far one frame moves a pace: it is that of an idle processor, so down quickly, up slowly, and by no busy one."""


def paced(pace_ms: float, time_ms: float) -> float:
    """What a piece of work takes while nothing else runs, as it is seen after one more time."""
    if time_ms < pace_ms:
        return max(time_ms, pace_ms * FALL, LEAST_MS)
    return min(pace_ms * RISE, time_ms) if time_ms <= NEAR * pace_ms else pace_ms


class DeviceEstimate:
    """Time of head and exit by width: each width's own pace, and a common factor for what else the processor does.

    The factor is the second largest of the last second: one slow frame is a hiccup, two are a second process,
    which is believed then, and forgotten as soon, at whatever width. A width that has not run yet is reckoned by its
    multiply-adds from the nearest one that has.
    """

    def __init__(self, macs: Mapping[float, int], level: float) -> None:
        self.margin = Margin(level)
        self.factor = self.least_factor = 1.0
        self.code_ms = 0.0
        """Slow end of coding."""
        self.prepare_ms = 0.0
        self.heads_ms = [0.0] * len(macs)
        """Of head and exit by width, narrowest first: like `prepare_ms` while nothing else runs, 0 before any ran."""
        self._macs = macs
        self._widths = sorted(macs)
        self._ran: dict[float, float] = {}
        """Of the widths that have run."""
        self._like: dict[float, list[tuple[int, float]]] = {}
        """Numbers of the widths that each of these stands for, and times how much."""
        self._whole_ms: float | None = None
        self._recent: deque[float] = deque(maxlen=RECENT)
        """Time over pace, and when."""
        self._recent_s: deque[float] = deque(maxlen=RECENT)

    @property
    def known(self) -> bool:
        """A head has run."""
        return bool(self._ran)

    def ran(self, width: float, prepare_ms: float, head_ms: float, time_s: float) -> None:
        """Learn what a picture took: preparing it, and head and exit of a width."""
        if not self._ran:
            self.prepare_ms = max(prepare_ms / self.factor, LEAST_MS)
        new = width not in self._ran
        if new:
            self._ran[width] = max(head_ms / self.factor, LEAST_MS)
            self._share_out()
        pace_ms = self._ran[width]
        self._learn(prepare_ms + head_ms, self.prepare_ms + pace_ms, time_s, new=new)
        self.prepare_ms = paced(self.prepare_ms, prepare_ms)
        self._ran[width] = pace_ms = paced(pace_ms, head_ms)
        for number, times in self._like[width]:
            self.heads_ms[number] = pace_ms * times

    def ran_whole(self, time_ms: float, time_s: float) -> None:
        """Learn what the whole model took, with preparing the picture."""
        new = self._whole_ms is None
        pace_ms = max(time_ms / self.factor, LEAST_MS) if self._whole_ms is None else self._whole_ms
        self._learn(time_ms, pace_ms, time_s, new=new)
        self._whole_ms = paced(pace_ms, time_ms)

    def coded(self, time_ms: float) -> None:
        """Learn what coding took."""
        self.code_ms = max(time_ms, 0.9 * self.code_ms)

    def _learn(self, time_ms: float, pace_ms: float, time_s: float, *, new: bool) -> None:
        ratio = max(time_ms, LEAST_MS) / pace_ms
        if not new:
            self.margin.add(ratio / self.factor)
        recent, recent_s = self._recent, self._recent_s
        recent.append(ratio)
        recent_s.append(time_s)
        while len(recent) > LEAST_RECENT and recent_s[0] < time_s - RECENT_S:
            recent.popleft()
            recent_s.popleft()
        ratios = sorted(recent)
        self.least_factor = ratios[0]
        self.factor = ratios[-2] if len(ratios) > 1 else ratios[0]

    def _share_out(self) -> None:
        """Say again which of the widths that have run stands for which."""
        self._like = {width: [] for width in self._ran}
        for number, width in enumerate(self._widths):
            near = min(self._ran, key=lambda known: abs(known - width))
            times = self._macs[width] / max(self._macs[near], 1)
            self._like[near].append((number, times))
            self.heads_ms[number] = self._ran[near] * times

    def expected_ms(self, width: float) -> float:
        """What the next picture takes at a width, at the present factor; 0 where nothing is known."""
        return (self.prepare_ms + self.heads_ms[self._widths.index(width)]) * self.factor

    def fresh(self, time_s: float) -> bool:
        """Whether the factor is of the last second."""
        return bool(self._recent_s) and self._recent_s[-1] >= time_s - RECENT_S

    def whole_ms(self, alone_ms: float) -> float:
        """What the whole model takes at the present factor; ``alone_ms`` until it has run."""
        return (alone_ms if self._whole_ms is None else self._whole_ms) * self.factor


def observe_work(device: DeviceEstimate, observation: Observation, width: float) -> None:
    """Learn what a picture took that ran at a width, if anything did."""
    if observation.outcome == "whole":
        device.ran_whole(observation.prepare_ms + observation.head_ms, observation.time_s)
    elif observation.head_ms > 0 and observation.outcome not in {"late", "skipped"}:
        head_ms = observation.head_ms + observation.exit_ms
        device.ran(width, observation.prepare_ms, head_ms, observation.time_s)
        if observation.code_ms > 0:
            device.coded(observation.code_ms)


# ------------------------------------------------------------ in C, where there is a compiler


def round_trip(level: float, implementation: Implementation | None = None) -> RoundTrip:
    """A :class:`RoundTrip`, or what is the same in C."""
    return (round_trip_type() if compiled(implementation) else RoundTrip)(level)


def device_estimate(
    macs: Mapping[float, int], level: float, implementation: Implementation | None = None
) -> DeviceEstimate:
    """A :class:`DeviceEstimate`, or what is the same in C."""
    return (device_estimate_type() if compiled(implementation) else DeviceEstimate)(macs, level)
