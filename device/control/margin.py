"""How far off a forecast is, learnt from how far off it was: chances, and bounds that hold as often as they should.

A :class:`Margin` keeps the recent errors, as time over forecast, and turns them into chances: the share of them below a
bound is the chance to keep it, and a high quantile of them is corrected by the misses seen. Nothing is assumed of the
errors' distribution. The correction is that of adaptive conformal inference (Gibbs and Candès, "Adaptive Conformal
Inference Under Distribution Shift", NeurIPS 2021), on the bound itself in place of its level (Angelopoulos, Candès,
Tibshirani, "Conformal PID Control for Time Series Prediction", NeurIPS 2023): a miss moves the bound up by a step times
the level, a hit down by the step times what the level lacks to one, so that in the long run the share of misses is what
the level allows, whatever the link does.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque

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

    def __init__(self, level: float) -> None:
        """Bound errors with the probability `level`."""
        self._moves = STEP * level, STEP * (level - 1)
        """Of the correction, by a miss and by a hit."""
        self._order: deque[float] = deque(maxlen=MEMORY)
        self._sorted: list[float] = []
        self._body = 0
        """Rank of the body's quantile."""
        self._correction = FIRST_CORRECTION
        self.upper = math.exp(FIRST_CORRECTION)
        """What an error is at most, with the probability of the level."""

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

    def chance(self, error: float, beyond: float = 0.0) -> float:
        """Probability that an error is at most so large, where it is known to be `beyond` another one.

        One more error is reckoned with than was seen, so that little is sure while little is known: it is as likely
        above 1 as below, and one that has grown to k times is as likely to grow to m times that with chance 1 / m.
        """
        guess = 1 - 0.5 / error if error > 1 else 0.5 * error
        chance = (bisect_right(self._sorted, error) + guess) / (len(self._sorted) + 1)
        if not beyond:
            return chance
        gone = self.chance(beyond)
        return (chance - gone) / (1 - gone) if error > beyond else 0.0

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
        self.miss, self.hit = SLOWLY * wanted, SLOWLY * (wanted - 1)
        """What each moves it by."""
        self.least = wanted - 5 * (1 - wanted)

    def add(self, *, in_time: bool) -> None:
        """Learn what became of a frame."""
        asked = self.asked + (self.hit if in_time else self.miss)
        self.asked = min(max(asked, self.least), 1.0)
