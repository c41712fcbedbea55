"""What a frame's time has to do with its size: a straight line through the recent frames."""

from __future__ import annotations

FORGET = 0.97
"""Share of its weight that a frame keeps, in the line through sizes and times, with each one that follows."""
GUESS, GUESS_OFF = 0.4, 0.2
"""Share of a frame's time that its bytes have no part in, before frames of several sizes tell, and how far off that may
be. The noisier the times, the longer this guess counts."""
LEAST_NOISE = 0.01
MOST_BASE = 0.9
"""Share of a frame's time that the guess may come to, lest a longer frame be taken for as quick."""
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
        off = max(noise, LEAST_NOISE) / GUESS_OFF
        anchor = off * off / (mean_ms * mean_ms)
        guess_ms = GUESS * mean_ms if self._guess_ms is None else self._guess_ms
        spread, whole = n * ss - s * s, (n + anchor) * ss - s * s
        base_ms = ((t + anchor * guess_ms) * ss - s * st) / whole
        tells = spread > TOLD * whole
        self.base_ms = base_ms = min(max(base_ms, 0.0), mean_ms if tells or self.told else MOST_BASE * mean_ms)
        self.byte_ms = (mean_ms - base_ms) * n / s
        if tells:
            self.told, self._guess_ms = True, base_ms

    def at(self, size: float) -> float:
        """Time of a frame of this size."""
        return self.base_ms + self.byte_ms * size
