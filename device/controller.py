"""Which mode to use for the next frame.

A controller is pure: it is told what was measured and says what to do. No clock, no socket: the agent, a simulation
and a test run the same code::

    decision = controller.choose(situation)                         # before each frame
    decision = controller.refine(decision, situation, confidence)   # of one to be sent, after its head has run
    controller.observe(observation)                                 # after each answer, or failure to get one

:class:`FixedController` does as it was told. :class:`RateController` takes the most accurate mode that the link has
room for and that arrives by the deadline, judged by the slow end of what the last frames took.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Mode

OVERHEAD_BYTES = 80
"""What a frame costs on the wire beside its own bytes: IP, TCP, HTTP/2, gRPC and protobuf headers, both ways."""
MEMORY = 32
"""Frames that an estimate looks back on."""
SLOW_QUANTILE = 0.95
LEAST_FOR_LINE = 6
"""Frames from which on a straight line is drawn through sizes and times."""
SCATTERS = 2.0
"""How many of their standard deviations the line's upper end is above it."""
PROBE_AFTER = 16
"""Frames in the same mode after which one in a better mode is tried, if it would likely be in time."""


Action = Literal["send", "local", "whole", "skip"]
"""What is done with a picture: code it for the server, answer it by the local exit, run the whole model on the device,
or leave it unanswered."""
Outcome = Literal["answered", "late", "local", "whole", "skipped", "expired", "failed"]


@dataclass(frozen=True)
class Situation:
    """What is known when a mode has to be chosen. Times in ms, sizes in bytes, 0 where nothing is known."""

    deadline_ms: float | None = None
    """From taking the picture to having its answer, less what the agent needs to hand it on; None without one."""
    age_ms: float = 0.0
    """How much of it has passed already."""
    interval_ms: float | None = None
    """Between two pictures, where there is a frame rate."""
    frames_unanswered: int = 0
    """Own frames that wait or are on their way."""
    bytes_unanswered: int = 0
    silent_ms: float = 0.0
    """Since the last sign of life of the server, while frames were unanswered."""
    held_ms: float = 0.0
    """How long writing is held yet because the server was full."""
    connected: bool = True
    max_bytes: int | None = None
    """The server's wish: no mode whose mean frame is larger, where there is one."""
    max_groups: int | None = None
    """The server's wish: no more channel groups."""
    time_s: float = 0.0
    """Monotonic seconds of an unknown start: for budgets, pauses and forgetting."""
    oldest_ms: float = 0.0
    """How long the oldest unanswered frame has been on its way."""
    exit_available: bool = False
    """The local exit can answer what is asked."""
    whole_ms: float | None = None
    """Slow end of the whole model's time on this device when it has the processor to itself; None: not available."""


@dataclass(frozen=True)
class Decision:
    """What to do with a picture."""

    mode: int
    """Index into the manifest's modes; its width is what the head runs at where anything but "whole" is done."""
    groups: int | None = None
    """Channel groups to send; None for all."""
    action: Action = "send"
    most_bytes: int | None = None
    """The longest frame that is still foretold to be in time: a longer one is coded again at a lower gain."""
    reason: str = ""
    """A few words for records and the screen."""


@dataclass(frozen=True)
class Observation:
    """What one frame took. Times in ms.

    A frame that was sent and had to be answered by the local exit is told of twice: with the outcome "local", ``sent``
    and ``waited_ms`` when the device answers, and with "late" when the server's answer comes after all; the device's
    own times are in the first only.
    """

    mode: int
    sent_bytes: int
    """Of the frame, without OVERHEAD_BYTES."""
    prepare_ms: float
    head_ms: float
    """The network on the device: the head, or with the outcome "whole" the whole model."""
    code_ms: float
    outcome: Outcome
    """"answered": by the server, in time. "late": by the server, when it was no longer waited for. "local", "whole":
    by the device. "skipped": not at all, nor was it tried. "expired": no answer by the deadline. "failed": refused for
    good."""
    attempts: int = 1
    """How often the frame was written; more than 1 after a broken connection or a full server."""
    round_trip_ms: float | None = None
    """From writing the frame for the last time to its answer; None where none came."""
    server_ms: float = 0.0
    """What of it the server took: queue, decode and run."""
    batch: int = 0
    bytes_ahead: int = 0
    """Own bytes that were unanswered when this frame was written."""
    exit_ms: float = 0.0
    """What the local exit took, where there is one."""
    time_s: float = 0.0
    """When this was observed, by the clock of :attr:`Situation.time_s`."""
    waited_ms: float = 0.0
    """Of a frame that flew and has no answer: how long. What it takes is longer than that."""
    confidence: float | None = None
    """The local exit's score of its own answer, where it has judged."""
    sent: bool = False
    """A frame of outcome "local" flew."""


class Controller(Protocol):
    """Anything that chooses modes; `tests/device/test_controller.py` holds what every controller must do."""

    def choose(self, situation: Situation) -> Decision:
        """Say what to do with the next picture."""

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:
        """Say it again when the head has run: the width stays, gain and groups may change, or it ends as "local".

        ``decision`` is what :meth:`choose` said and was to be sent; ``situation`` has the age by now; ``confidence``
        is the local exit's score, None where there is none.
        """

    def observe(self, observation: Observation) -> None:
        """Learn from a frame that is done with."""


class FixedController:
    """Always the same mode, but for a server's wish to send fewer groups."""

    def __init__(self, mode: int) -> None:
        self.mode = mode

    @classmethod
    def of(cls, bundle: Bundle, width: float | None = None, gain: int | None = None) -> FixedController:
        """Take the mode of this width and gain; what is not given is the greatest. Raises :class:`BundleError`."""
        modes = bundle.manifest.modes
        width = bundle.manifest.widths[-1] if width is None else width
        gain = max((mode.gain for mode in modes if mode.width == width), default=0) if gain is None else gain
        return cls(bundle.mode(width, gain).index)

    def choose(self, situation: Situation) -> Decision:
        """The mode that was set."""
        return Decision(self.mode, situation.max_groups)

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:  # noqa: ARG002
        """The same again."""
        return decision

    def observe(self, observation: Observation) -> None:
        """Nothing to learn."""


class RateController:
    """The most accurate mode that fits the link and the deadline; the one with the fewest bytes before it knows any.

    From the answers of the last frames it keeps the head's time by width, the server's time, and for each frame its
    size and its time on the network. What another size would take is foretold on the safe side in two ways, and the
    lower of the two counts. One is in proportion: a larger frame as if all the time were transmission, a smaller one
    saving only what is above the shortest time seen, and of that the slow end (95 %). The other is a straight line
    through sizes and times, with an upper end that moves away from it where nothing was seen yet. So it climbs to
    larger modes in steps that each confirm the last; where jitter hides what a larger frame would take, one frame now
    and then tries it. Between two pictures there must be time to transmit one, or frames would pile up.
    """

    def __init__(self, modes: Sequence[Mode], memory: int = MEMORY) -> None:
        self._modes = sorted(modes, key=lambda mode: (-fmean(mode.accuracy.values()), mode.mean_bytes))
        self._by_index = {mode.index: mode for mode in modes}
        self._sizes = np.array([[mode.p95_bytes + OVERHEAD_BYTES] for mode in self._modes])
        self._widths = sorted({mode.width for mode in modes})
        self._width_of = np.array([self._widths.index(mode.width) for mode in self._modes])
        self._macs = {mode.width: mode.head_macs for mode in modes}
        self._device_ms: dict[float, deque[float]] = {width: deque(maxlen=memory) for width in self._widths}
        self._server_ms: deque[float] = deque(maxlen=memory)
        self._seen = np.zeros((2, memory))  # a ring: sizes on the wire, times on the network
        self._count = 0
        self._head_ms = np.zeros(len(modes))
        self._same_mode = 0
        self._last_mode: int | None = None

    def choose(self, situation: Situation) -> Decision:
        """Pick from the bundle's table of measured accuracy; there is always a cheapest mode."""
        allowed = self._within(situation.max_bytes)
        if self._count:
            chosen = self._best(allowed, situation, SLOW_QUANTILE)
            if self._same_mode >= PROBE_AFTER:
                self._same_mode = 0
                chosen = self._one_up(chosen, self._best(allowed, situation, 0.5), allowed)
        else:
            chosen = min(allowed, key=lambda at: self._modes[at].mean_bytes)
        return Decision(self._modes[chosen].index, situation.max_groups)

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:  # noqa: ARG002
        """The same again."""
        return decision

    def _within(self, max_bytes: int | None) -> list[int]:
        """Modes whose mean frame has at most so many bytes; the smallest, where none has."""
        everything = list(range(len(self._modes)))
        if max_bytes is None:
            return everything
        smallest = min(everything, key=lambda at: self._modes[at].mean_bytes)
        return [at for at in everything if self._modes[at].mean_bytes <= max_bytes] or [smallest]

    def observe(self, observation: Observation) -> None:
        """Take the times of an answered frame; others say nothing of the link.

        A frame that the device answered does not count as one in the same mode either: to try a better mode tells
        something only if the frame is sent.
        """
        device_ms = observation.prepare_ms + observation.head_ms + observation.exit_ms + observation.code_ms
        self._device_ms[self._by_index[observation.mode].width].append(device_ms)
        self._head_ms = np.array([self._width_ms(width) for width in self._widths])[self._width_of]
        if observation.outcome == "local":
            return
        self._same_mode = self._same_mode + 1 if observation.mode == self._last_mode else 1
        self._last_mode = observation.mode
        if observation.round_trip_ms is None or observation.outcome != "answered":
            return
        self._server_ms.append(observation.server_ms)
        size = observation.sent_bytes + observation.bytes_ahead + OVERHEAD_BYTES
        network_ms = max(observation.round_trip_ms - observation.server_ms, 0.0)
        self._seen[:, self._count % self._seen.shape[1]] = size, network_ms
        self._count += 1

    def _best(self, allowed: list[int], situation: Situation, quantile: float) -> int:
        """Position of the most accurate mode that fits, reckoning with this quantile; of the quickest if none does."""
        known, times_ms = self._seen[:, : self._count]  # [N] each
        sizes = self._sizes + situation.bytes_unanswered  # [M, 1]
        network_ms = _in_proportion(sizes, known, times_ms, quantile)
        network_ms = np.minimum(network_ms, _by_line(sizes[:, 0], known, times_ms))
        total_ms = self._head_ms + network_ms + _quantile(self._server_ms, SLOW_QUANTILE)
        fits = np.ones(len(self._modes), np.bool_)
        if situation.interval_ms is not None:
            fits &= np.maximum(network_ms - times_ms.min(), self._head_ms) <= situation.interval_ms
        if situation.deadline_ms is not None:
            fits &= situation.age_ms + total_ms <= situation.deadline_ms
        fitting = next((at for at in allowed if fits[at]), None)
        return min(allowed, key=total_ms.__getitem__) if fitting is None else fitting

    def _one_up(self, chosen: int, promising: int, allowed: list[int]) -> int:
        """The next mode above the chosen one, if a better one looks promising; it costs one frame to see."""
        better = [
            at
            for at in allowed
            if promising <= at < chosen and self._modes[at].mean_bytes > self._modes[chosen].mean_bytes
        ]
        return min(better, key=lambda at: self._modes[at].mean_bytes, default=chosen)

    def _width_ms(self, width: float) -> float:
        """Slow end of the width's own times, or the nearest known width's median scaled by the multiply-adds."""
        if self._device_ms[width]:
            return _quantile(self._device_ms[width], SLOW_QUANTILE)
        nearest = min((known for known in self._widths if self._device_ms[known]), key=lambda known: abs(known - width))
        return _quantile(self._device_ms[nearest], 0.5) * self._macs[width] / max(self._macs[nearest], 1)


def _in_proportion(
    sizes: NDArray[np.float64], known: NDArray[np.float64], times_ms: NDArray[np.float64], quantile: float
) -> NDArray[np.float64]:
    """A quantile of what each frame's time says of other sizes, on the safe side; [M, 1] -> [M]."""
    fastest_ms = times_ms.min()
    ratio = sizes / known  # [M, N]
    foretold = np.where(ratio >= 1, times_ms * ratio, fastest_ms + (times_ms - fastest_ms) * ratio)
    foretold.sort(axis=1)
    at_quantile: NDArray[np.float64] = foretold[:, _rank(len(known), quantile)]
    return at_quantile


def _by_line(
    sizes: NDArray[np.float64], known: NDArray[np.float64], times_ms: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Upper end of a straight line's prediction interval, [M]; infinite where there is too little to draw one through.

    It widens with the distance from the sizes that were seen, and with the scatter of the times.
    """
    count = len(known)
    mean, mean_ms = float(known.sum()) / count, float(times_ms.sum()) / count
    off = known - mean
    spread = float(off @ off)
    if count < LEAST_FOR_LINE or spread == 0:
        return np.full(len(sizes), np.inf)
    slope = max(float(off @ times_ms) / spread, 0.0)
    residuals = times_ms - mean_ms - slope * off
    scatter = math.sqrt(float(residuals @ residuals) / (count - 2))
    away = sizes - mean
    line = np.maximum(mean_ms + slope * away, times_ms.min())
    upper: NDArray[np.float64] = line + SCATTERS * scatter * np.sqrt(1 + 1 / count + away * away / spread)
    return upper


def _quantile(values: Collection[float], quantile: float) -> float:
    """By rank: one of the values themselves; 95 % of fewer than 20 is the greatest."""
    return sorted(values)[_rank(len(values), quantile)]


def _rank(count: int, quantile: float) -> int:
    return math.ceil(quantile * count) - 1
