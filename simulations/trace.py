"""What a link can carry over time, as data: constant, in steps, from a seeded generator, or recorded.

A :class:`Trace` is a rate that is constant within each of its segments and begins again when the last one ends. Its
integral, the bytes that could have crossed since time 0, is all that a link needs: a chunk of n bytes whose first bit
starts at t has crossed at the time when the integral has grown by n. Nothing here has a clock or a socket, so the proxy
(`link.py`), a simulation and an oracle that knows the future compute with the very same numbers.

Recorded traces are in the format of Mahimahi (Netravali et al., "Mahimahi: Accurate Record-and-Replay for HTTP", USENIX
ATC 2015): one line for each 1,500-byte packet that may cross, holding the millisecond at which it may; past the last
line the file begins again. A packet is spread over the millisecond that ends at its time, and a rate factor makes it
smaller: the same fading, on a slower kind of link.

Times are seconds, rates bits per second (bytes inside).
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from headwater.compression.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

PACKET_BYTES = 1500
MAX_TRACE_MS = 7 * 24 * 3_600_000
"""A recording that is longer than a week is taken for something else than a recording."""


class Trace:
    """A rate over time that repeats; immutable.

    Made by :meth:`constant`, :meth:`steps`, :meth:`markov` or :meth:`mahimahi`.
    """

    def __init__(self, seconds: NDArray[np.float64], bytes_per_s: NDArray[np.float64]) -> None:
        """Take the length and the rate of each segment, [N] each; raises :class:`DataError`."""
        if len(seconds) == 0 or len(seconds) != len(bytes_per_s):
            raise DataError(
                f"a trace has {len(seconds)} lengths and {len(bytes_per_s)} rates; want one of each a segment"
            )
        if not (np.isfinite(seconds).all() and (seconds > 0).all()):
            raise DataError(f"a segment of a trace lasts {seconds.min()} s; each must last longer than 0 s")
        if not (np.isfinite(bytes_per_s).all() and (bytes_per_s >= 0).all()):
            raise DataError(f"a rate in a trace is {8 * bytes_per_s.min()} bit/s; none may be negative or infinite")
        self._seconds, self._rates = seconds, bytes_per_s
        ends, carried = np.cumsum(seconds), np.cumsum(seconds * bytes_per_s)
        # Lists, as one number at a time is asked for, a hundred thousand times: bisect is ten times as fast as numpy.
        self._ends: list[float] = [0.0, *ends.tolist()]  # N + 1
        self._bytes: list[float] = [0.0, *carried.tolist()]  # N + 1
        self._rate_list: list[float] = bytes_per_s.tolist()

    # ------------------------------------------------------------ making one

    @classmethod
    def constant(cls, bits_per_s: float) -> Self:
        """Always the same rate; 0 for a link that is dead."""
        return cls.steps([(1.0, bits_per_s)])

    @classmethod
    def steps(cls, segments: Iterable[tuple[float, float]]) -> Self:
        """Segments of (seconds, bits per second), one after another; raises :class:`DataError`."""
        table = np.array(list(segments), np.float64).reshape(-1, 2)
        return cls(table[:, 0], table[:, 1] / 8)

    @classmethod
    def markov(cls, seed: int, states: Sequence[tuple[float, float]], seconds: float = 600.0) -> Self:
        """A walk between neighbouring states of (bits per second, mean seconds of a stay), the same for the same seed.

        Stays are exponentially distributed (at least 1 ms), and each step goes up or down by one state with equal
        chances, so that a link fades through the states between good and bad. Order the states by their rate; a rate
        of 0 is a black-out.

        Raises :class:`DataError` for less than two states or a time that is not positive.
        """
        if len(states) < 2 or seconds <= 0 or any(stay <= 0 for _, stay in states):
            raise DataError("a generated trace needs at least two states, a length and stays longer than 0 s")
        chance = random.Random(seed)  # noqa: S311 - a link's weather, not a secret
        at, now, segments = chance.randrange(len(states)), 0.0, []
        while now < seconds:
            bits_per_s, mean_stay = states[at]
            stay = min(max(chance.expovariate(1 / mean_stay), 1e-3), max(seconds - now, 1e-3))
            segments.append((stay, bits_per_s))
            now += stay
            step = 1 if at == 0 else -1 if at == len(states) - 1 else chance.choice((-1, 1))
            at += step
        return cls.steps(segments)

    @classmethod
    def mahimahi(cls, path: Path | str, factor: float = 1.0) -> Self:
        """Read a recorded trace; see the module's text. Raises :class:`DataError` for a file that is none.

        Args:
            path: a file in Mahimahi's format.
            factor: of the recorded rate, such as 1 / 20 for the same shape on a link of LTE-M's kind.
        """
        times_ms = _read_times(Path(path))
        # A packet at t crosses within (t - 1, t]; one at 0 has no millisecond before it and gets the first.
        busy_ms, packets = np.unique(np.maximum(times_ms, 1) - 1, return_counts=True)
        edges = np.unique(np.concatenate([[0], busy_ms, busy_ms + 1]))  # two numbers can say a week of silence
        rates = np.zeros(len(edges) - 1)
        rates[edges.searchsorted(busy_ms)] = packets
        changes = np.concatenate([[True], np.diff(rates) != 0])
        lengths_ms = np.diff(np.append(edges[:-1][changes], edges[-1]))
        return cls(lengths_ms / 1e3, rates[changes] * (PACKET_BYTES * 1e3 * _positive(factor)))

    def scaled(self, factor: float) -> Trace:
        """The same shape at a multiple of the rate; raises :class:`DataError` unless the factor is above 0."""
        return Trace(self._seconds, self._rates * _positive(factor))

    def later(self, seconds: float) -> Trace:
        """The same trace from a later moment on; what came before that comes at the period's end."""
        begin = seconds % self.period_s
        old = np.array(self._ends)
        ends = np.unique(np.append(old, begin))
        lengths, middles = np.diff(ends), (ends[:-1] + ends[1:]) / 2
        rates = self._rates[old.searchsorted(middles, side="right") - 1]
        first = int(ends.searchsorted(begin))
        return Trace(np.roll(lengths, -first), np.roll(rates, -first))

    # ------------------------------------------------------------ asking it

    def __len__(self) -> int:
        """Segments of one period."""
        return len(self._rate_list)

    @property
    def period_s(self) -> float:
        """Seconds until it begins again."""
        return self._ends[-1]

    @property
    def mean_bits_per_s(self) -> float:
        """Mean rate of one period."""
        return self._bytes[-1] / self._ends[-1] * 8

    def segments(self) -> tuple[list[float], list[float], list[float]]:
        """Ends of the segments and bytes by then, both [N + 1] from 0, and bytes a second of each, [N]."""
        return self._ends, self._bytes, self._rate_list

    def bits_per_s(self, time_s: float) -> float:
        """Rate at a time."""
        within = time_s % self.period_s
        return self._rate_list[bisect_right(self._ends, within) - 1] * 8

    def capacity(self, time_s: float) -> float:
        """Bytes that could cross from time 0 until a time."""
        ends, carried, rates = self._ends, self._bytes, self._rate_list
        rounds, within = divmod(time_s, ends[-1])
        at = min(bisect_right(ends, within), len(rates)) - 1
        return rounds * carried[-1] + carried[at] + (within - ends[at]) * rates[at]

    def finish(self, start_s: float, size: float) -> float:
        """When `size` bytes have crossed whose first starts at `start_s`; infinity if the link is dead for good."""
        if size <= 0:
            return start_s
        ends, carried, total = self._ends, self._bytes, self._bytes[-1]
        within = start_s % ends[-1]
        rates = self._rate_list
        at = bisect_right(ends, within, 0, len(rates)) - 1
        rate = rates[at]
        if rate and size <= (ends[at + 1] - within) * rate:  # mostly so: it does not outlast the segment
            return start_s + size / rate
        if total == 0:
            return math.inf
        rounds, within = divmod(self.capacity(start_s) + size, total)
        if within == 0:  # exactly at a period's end: the last moment at which a byte crossed, not the first of the next
            rounds, within = rounds - 1, total
        at = bisect_left(carried, within) - 1
        when = rounds * ends[-1] + ends[at] + (within - carried[at]) / rates[at]
        return max(when, start_s)  # rounding must not let a chunk arrive before it was sent


@dataclass(frozen=True)
class LinkTrace:
    """Both directions of a link: `up` from the device to the server, `down` back."""

    name: str
    up: Trace
    down: Trace
    up_delay_s: float = 0.0
    """From a byte's leaving the device's modem to its arrival at the server, beside the time that the rate takes."""
    down_delay_s: float = 0.0

    @classmethod
    def constant(cls, name: str, bits_per_s: float, delay_s: float = 0.0) -> Self:
        """The same constant rate and delay both ways."""
        trace = Trace.constant(bits_per_s)
        return cls(name, trace, trace, delay_s, delay_s)

    def scaled(self, factor: float) -> LinkTrace:
        """Both directions at a multiple of the rate; delays stay."""
        name = f"{self.name} x{factor:g}"
        return LinkTrace(name, self.up.scaled(factor), self.down.scaled(factor), self.up_delay_s, self.down_delay_s)

    def later(self, seconds: float) -> LinkTrace:
        """Both directions from a later moment on."""
        return replace(self, up=self.up.later(seconds), down=self.down.later(seconds))


def load_folder(folder: Path | str, factor: float = 1.0, delay_s: float = 0.0) -> list[LinkTrace]:
    """Read every recording of a folder, by name; raises :class:`DataError` if there is none or one is damaged.

    ``NAME.up`` and ``NAME.down`` are the two directions of one link; one that is missing is taken to be like the other.
    Files of other suffixes are left alone.
    """
    folder = Path(folder)
    files = {(path.stem, path.suffix): path for path in sorted(folder.glob("*")) if path.suffix in {".up", ".down"}}
    if not files:
        raise DataError(f"{folder} holds no recorded trace; want files NAME.up and NAME.down in Mahimahi's format")
    traces = {key: Trace.mahimahi(path, factor) for key, path in files.items()}
    links = []
    for name in sorted({name for name, _ in files}):
        up, down = traces.get((name, ".up")), traces.get((name, ".down"))
        either = up or down
        assert either is not None
        links.append(LinkTrace(name, up or either, down or either, delay_s, delay_s))
    return links


def _read_times(path: Path) -> NDArray[np.int64]:
    """Times of a recording in ms, ascending, [N] with N >= 1."""
    try:
        words = path.read_bytes().split()
    except OSError as error:
        raise DataError(f"the trace {path} cannot be read: {error.strerror}") from error
    for number, word in enumerate(words, 1):
        if not word.isdigit() or len(word) > len(str(MAX_TRACE_MS)) or int(word) > MAX_TRACE_MS:
            raise DataError(f"{path}, entry {number}: {word[:40]!r} is no time in ms from 0 to {MAX_TRACE_MS}")
    times = np.array([int(word) for word in words], np.int64)
    if len(times) == 0:
        raise DataError(f"the trace {path} is empty; want a line for each packet: the ms at which it may cross")
    if (np.diff(times) < 0).any():
        line = int(np.argmax(np.diff(times) < 0)) + 2
        raise DataError(f"{path}, entry {line}: {times[line - 1]} comes after {times[line - 2]}; times must not fall")
    return times


def _positive(factor: float) -> float:
    if not (np.isfinite(factor) and factor > 0):
        raise DataError(f"the rate factor is {factor}; it must be above 0")
    return factor
