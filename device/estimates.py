"""What a frame will take, learnt from what the last ones took: on the device, and to the server and back.

Each estimate has two parts. A *centre* foretells the next time from the recent ones and follows a change at once. A
:class:`Margin` keeps how far off the centre was, as time over forecast, and turns that into chances: the
share of the recent errors below a bound is the chance to keep it, and a high quantile of them is corrected by the
misses seen. Nothing is assumed of the errors' distribution. The correction is that of adaptive conformal inference
(Gibbs and Candès, "Adaptive Conformal Inference Under Distribution Shift", NeurIPS 2021), on the bound itself in place
of its level (Angelopoulos, Candès, Tibshirani, "Conformal PID Control for Time Series Prediction", NeurIPS 2023): a
miss moves the bound up by a step times the level, a hit down by the step times what the level lacks to one, so that in
the long run the share of misses is what the level allows, whatever the link does.

No clock: times come with the measurements. Times in ms, sizes in bytes on the wire, that is with OVERHEAD_BYTES.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LEAST_MS = 1e-3
NEAR, FAR = 1.25, 4.0
"""An error up to the one is no change, however small the usual ones are; one beyond the other is a change at once, and
so are two in a row that the margin does not hold."""

# ------------------------------------------------------------ errors of a forecast

MEMORY = 64
"""Errors that a margin looks back on."""
BODY = 0.9
"""The quantile that so few errors can tell; what lies beyond it is the correction's."""
STEP = 0.2
"""How far a miss moves the bound: by a fifth of the forecast."""
FIRST_CORRECTION, LEAST_CORRECTION, MOST_CORRECTION = 0.3, 0.02, 2.0


class Margin:
    """Errors of a forecast, as times over what was foretold: chances, and an upper bound."""

    __slots__ = ("_body", "_correction", "_moves", "_order", "_sorted", "upper")

    def __init__(self, level: float, memory: int = MEMORY) -> None:
        """Bound errors with the probability `level`."""
        self._moves = STEP * level, STEP * (level - 1)
        """Of the correction, by a miss and by a hit."""
        self._order: deque[float] = deque(maxlen=memory)
        self._sorted: list[float] = []
        self._body = 0
        """Rank of the body's quantile."""
        self._correction = FIRST_CORRECTION
        self.upper = math.exp(FIRST_CORRECTION)
        """What an error is at most, with the probability of the level."""

    def __len__(self) -> int:
        return len(self._order)

    def add(self, error: float) -> None:
        """Learn the error of a forecast that was made before its outcome was known; above 0."""
        miss, hit = self._moves
        correction = self._correction + (miss if error > self.upper else hit)
        self._correction = correction = min(max(correction, LEAST_CORRECTION), MOST_CORRECTION)
        order, ranked = self._order, self._sorted
        if len(ranked) == order.maxlen:
            del ranked[bisect_right(ranked, order[0]) - 1]
        else:
            self._body = min(math.ceil(BODY * (len(ranked) + 2)), len(ranked) + 1) - 1
        order.append(error)
        insort(ranked, error)
        self.upper = ranked[self._body] * math.exp(correction)

    def chance(self, error: float) -> float:
        """Probability that an error is at most so large.

        One more error is reckoned with than was seen, so that little is sure while little is known: it is as likely
        above 1 as below, and one that has grown to k times is as likely to grow to m times that with chance 1 / m.
        """
        guess = 1 - 0.5 / error if error > 1 else 0.5 * error
        return (bisect_right(self._sorted, error) + guess) / (len(self._sorted) + 1)

    def chances(self, beyond: float) -> Callable[[float], float]:
        """:meth:`chance` of an error that is known to be `beyond` another one."""
        gone = self.chance(beyond)

        def chance(error: float) -> float:
            return (self.chance(error) - gone) / (1 - gone) if error > beyond else 0.0

        return chance

    @property
    def noise(self) -> float:
        """Half of the width of the errors' middle, relative."""
        ranked = self._sorted
        return math.log(ranked[int(0.8 * len(ranked))] / ranked[int(0.2 * len(ranked))]) / 2 if ranked else 0.0

    def quantile(self, share: float) -> float:
        """The error that this share of the recent ones does not exceed; 1 where there is none."""
        return self._sorted[int(share * len(self._sorted))] if self._sorted else 1.0


SLOWLY = 0.002


class Level:
    """The chance to ask of a frame so that in the long run the share in time is what is wanted.

    Forecasts may be off in ways that their own errors do not show. So each frame that is late makes the next ones more
    careful, and each that is in time a little bolder: adaptive conformal inference as it was first stated.
    """

    def __init__(self, wanted: float) -> None:
        self.wanted = self.asked = wanted
        self._miss, self._hit = SLOWLY * wanted, SLOWLY * (wanted - 1)
        self._least = wanted - 5 * (1 - wanted)

    def add(self, *, in_time: bool) -> None:
        """Learn what became of a frame."""
        asked = self.asked + (self._hit if in_time else self._miss)
        self.asked = min(max(asked, self._least), 1.0)


# ------------------------------------------------------------ to the server and back

FORGET = 0.97
"""Share of its weight that a frame keeps, in the line through sizes and times, with each one that follows."""
GUESS, GUESS_OFF = 0.4, 0.2
"""Share of a frame's time that its bytes have no part in, before frames of several sizes tell, and how far off that may
be. The noisier the times, the longer this guess counts."""
LEAST_NOISE = 0.01
TOLD = 0.9
"""Share of what the frames of several sizes say, beside the guess, from which on they make the guess: there may be but
one size again for long."""


class Line:
    """Time over size as a straight line: least squares of the relative errors, the recent ones weighing more.

    Relative, because a fading link spreads its times in proportion: the quick frames tell what is there always.
    """

    __slots__ = ("_guess_ms", "_sums", "base_ms", "byte_ms", "told")

    def __init__(self, guess_ms: float | None = None) -> None:
        """Begin with nothing, or with a guess of the base."""
        self._guess_ms = guess_ms
        self._sums = 0.0, 0.0, 0.0, 0.0, 0.0
        """Weighted: of frames, sizes, times, sizes squared, sizes by times."""
        self.base_ms = self.byte_ms = 0.0
        """Time of a frame beside that of its bytes, and of a byte; neither is below 0."""
        self.told = False
        """Frames of several sizes say so, and not the guess."""

    def add(self, size: float, time_ms: float, noise: float) -> None:
        """Learn a frame of a link whose times scatter by this share."""
        weight = 1 / (time_ms * time_ms)
        sized = weight * size
        n, s, t, ss, st = self._sums
        n, s, t = FORGET * n + weight, FORGET * s + sized, FORGET * t + weight * time_ms
        ss, st = FORGET * ss + sized * size, FORGET * st + sized * time_ms
        self._sums = n, s, t, ss, st
        mean_ms = t / n
        anchor = (max(noise, LEAST_NOISE) / GUESS_OFF) ** 2 / (mean_ms * mean_ms)
        guess_ms = GUESS * mean_ms if self._guess_ms is None else self._guess_ms
        spread, whole = n * ss - s * s, (n + anchor) * ss - s * s
        base_ms = ((t + anchor * guess_ms) * ss - s * st) / whole
        self.base_ms = base_ms = min(max(base_ms, 0.0), mean_ms)
        self.byte_ms = (mean_ms - base_ms) * n / s
        if spread > TOLD * whole:
            self.told, self._guess_ms = True, base_ms

    def at(self, size: float) -> float:
        """Time of a frame of this size."""
        return self.base_ms + self.byte_ms * size


FOLLOW, FOLLOW_SERVER = 0.5, 0.2
"""Share of the newest frame in the scale, and in the server's time."""
QUEUED = 8
"""Frames behind others that say how fast a queue is through."""


class Sent(NamedTuple):
    """Of a frame that was sent, sizes on the wire."""

    wire_bytes: float
    foretold_bytes: float
    """That were reckoned with before it was coded."""
    queued: bool
    """Others were unanswered when it was written."""


class RoundTrip:
    """Time from writing a frame to its answer: the network's, a line over the size times a scale, and the server's.

    The scale follows the last frames. A frame that was written behind others waited for them: a link is a queue, so its
    own time begins when the one before it was through. That is known from the answers' times, and no guess at what was
    still ahead is needed. The margin's errors are those of what was foretold before the frame was coded, so that they
    hold what its size differed from the mode's mean, and the server's whims, too.
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
        self._off = 0
        """Frames in a row whose error was no usual one: above 0 slower, below 0 quicker."""

    def answered(self, sent: Sent, network_ms: float, server_ms: float, time_s: float) -> None:
        """Learn a frame that was answered at a time, what it took on the network, and what at the server."""
        through_s, own_ms = time_s - server_ms / 1e3, network_ms
        if sent.queued and through_s >= self._through_s:
            apart_ms = (through_s - self._through_s) * 1e3
            own_ms = min(own_ms, apart_ms + self.scale * self._line.base_ms)
            self._apart.append(apart_ms / sent.wire_bytes)
        self._through_s = through_s
        own_ms = max(own_ms, LEAST_MS)
        if self.known:
            expected_ms = self.expected_ms(sent.wire_bytes)
            changed = self._judge(own_ms / expected_ms)
            self.margin.add((own_ms + server_ms) / (self.expected_ms(sent.foretold_bytes) + self.server_ms))
            now_ms = own_ms if changed else expected_ms + FOLLOW * (own_ms - expected_ms)
            self._follow(sent.wire_bytes, own_ms, now_ms, changed=changed)
            self.server_ms += FOLLOW_SERVER * (server_ms - self.server_ms)
        else:
            self._follow(sent.wire_bytes, own_ms, own_ms, changed=True)
            self.server_ms, self.known = server_ms, True

    def waited(self, size: float, waited_ms: float) -> None:
        """Learn that a frame of this size has had no answer for so long."""
        if self.known:
            self.scale = max(self.scale, (waited_ms - self.server_ms) / self._line.at(size))

    def _judge(self, error: float) -> bool:
        """Whether a frame's error says that the link is not what it was."""
        if 1 / NEAR <= error <= NEAR:
            self._off = 0
            return False
        usual, low = max(self.margin.upper, NEAR), min(self.margin.quantile(0.05), 1 / NEAR)
        direction = (error > usual) - (error < low)
        self._off = self._off + direction if direction * self._off > 0 else direction
        return abs(self._off) >= 2 or (direction != 0 and not 1 / FAR <= error <= FAR)

    def _follow(self, size: float, own_ms: float, now_ms: float, *, changed: bool) -> None:
        """Mend the line by a frame's time, and have the scale say that one of this size takes so long now."""
        if changed:
            self._line = Line(self._lasting_ms(own_ms))
        line, told = self._line, self._line.told
        line.add(size, own_ms, self.margin.noise)
        # The first frame of another size corrects the line; that it was foretold badly says nothing of the link.
        self.scale = now_ms / line.at(size) if told or not line.told else 1.0

    def _lasting_ms(self, own_ms: float) -> float | None:
        """What a frame takes beside its bytes, after a change: as before, for it is the rate that changes mostly."""
        base_ms = self._line.base_ms * min(self.scale, 1.0)
        return base_ms if 0 < base_ms < own_ms else None

    @property
    def line(self) -> tuple[float, float]:
        """Middling time of a frame with nothing ahead of it: beside its bytes, and of a byte."""
        return self.scale * self._line.base_ms + self.server_ms, self.scale * self._line.byte_ms

    @property
    def told(self) -> bool:
        """It is known what of a frame's time is its bytes', since the link changed."""
        return self._line.told

    def queue_ms(self, wire_bytes: float) -> float:
        """How long frames on their way keep the link busy when it carries again what it did, as far as is known."""
        apart = sorted(self._apart)
        usual = self._line.byte_ms if not apart else min(self._line.byte_ms, apart[len(apart) // 2])
        return usual * wire_bytes

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


class Pace:
    """What a piece of work takes while nothing else runs."""

    __slots__ = ("ms",)

    def __init__(self, first_ms: float) -> None:
        self.ms = max(first_ms, LEAST_MS)

    def add(self, time_ms: float) -> None:
        """Learn what it took."""
        now_ms = self.ms
        risen_ms = now_ms * RISE if time_ms <= NEAR * now_ms else now_ms
        self.ms = max(min(risen_ms, time_ms), now_ms * FALL, LEAST_MS)


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
        self._macs = macs
        self._prepare: Pace | None = None
        self._heads: dict[float, Pace] = {}
        self._like: dict[float, tuple[Pace, float]] = {}
        """Whose pace stands for a width's, and times how much."""
        self._whole: Pace | None = None
        self._recent: deque[float] = deque(maxlen=RECENT)
        """Time over pace, and when."""
        self._recent_s: deque[float] = deque(maxlen=RECENT)

    @property
    def known(self) -> bool:
        """A head has run."""
        return bool(self._heads)

    def ran(self, width: float, prepare_ms: float, head_ms: float, time_s: float) -> None:
        """Learn what a picture took: preparing it, and head and exit of a width."""
        if self._prepare is None:
            self._prepare = Pace(prepare_ms / self.factor)
        head, prepare = self._heads.get(width), self._prepare
        new = head is None
        if head is None:
            self._heads[width] = head = Pace(head_ms / self.factor)
            self._like = {other: self._nearest(other) for other in self._macs}
        self._learn(prepare_ms + head_ms, prepare.ms + head.ms, time_s, new=new)
        prepare.add(prepare_ms)
        head.add(head_ms)

    def ran_whole(self, time_ms: float, time_s: float) -> None:
        """Learn what the whole model took, with preparing the picture."""
        new = self._whole is None
        self._whole = self._whole or Pace(time_ms / self.factor)
        self._learn(time_ms, self._whole.ms, time_s, new=new)
        self._whole.add(time_ms)

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

    def _nearest(self, width: float) -> tuple[Pace, float]:
        near = min(self._heads, key=lambda known: abs(known - width))
        return self._heads[near], self._macs[width] / max(self._macs[near], 1)

    def expected_ms(self, width: float) -> float:
        """What the next picture takes at a width, at the present factor; 0 where nothing is known."""
        if self._prepare is None or not self._like:
            return 0.0
        pace, times = self._like[width]
        return (self._prepare.ms + pace.ms * times) * self.factor

    def fresh(self, time_s: float) -> bool:
        """Whether the factor is of the last second."""
        return bool(self._recent_s) and self._recent_s[-1] >= time_s - RECENT_S

    def whole_ms(self, alone_ms: float) -> float:
        """What the whole model takes at the present factor; ``alone_ms`` until it has run."""
        return (alone_ms if self._whole is None else self._whole.ms) * self.factor
