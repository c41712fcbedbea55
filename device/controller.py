"""Which mode to use for the next frame.

A controller is pure: it is told what was measured and says what to do. No clock, no socket: the agent, a simulation
and a test run the same code::

    decision = controller.choose(situation)          # before each frame
    controller.observe(observation)                  # after each answer, or failure to get one

:class:`FixedController` does as it was told. :class:`RateController` takes the most accurate mode that the link has
room for and that arrives by the deadline, judged by the slow end of what the last frames took.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Mode

OVERHEAD_BYTES = 80
"""What a frame costs on the wire beside its own bytes: IP, TCP, HTTP/2, gRPC and protobuf headers, both ways."""
MEMORY = 32
"""Frames that an estimate looks back on."""
SLOW_QUANTILE = 0.95


@dataclass(frozen=True)
class Situation:
    """What is known when a mode has to be chosen. Times in ms, sizes in bytes, 0 where nothing is known."""

    deadline_ms: float | None = None
    """From taking the picture to having its answer; None without a deadline."""
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
    max_mode: int | None = None
    """The server's wish: no mode of a higher index."""
    max_groups: int | None = None
    """The server's wish: no more channel groups."""


@dataclass(frozen=True)
class Decision:
    """What to do with a picture."""

    mode: int
    """Index into the manifest's modes."""
    groups: int | None = None
    """Channel groups to send; None for all."""


@dataclass(frozen=True)
class Observation:
    """What one frame took. Times in ms."""

    mode: int
    sent_bytes: int
    """Of the frame, without OVERHEAD_BYTES."""
    prepare_ms: float
    head_ms: float
    code_ms: float
    outcome: Literal["answered", "expired", "failed"]
    """"expired": no answer by the deadline. "failed": refused for good."""
    attempts: int = 1
    """How often the frame was written; more than 1 after a broken connection or a full server."""
    round_trip_ms: float | None = None
    """From writing the frame for the last time to its answer; None where none came."""
    server_ms: float = 0.0
    """What of it the server took: queue, decode and run."""
    batch: int = 0
    bytes_ahead: int = 0
    """Own bytes that were unanswered when this frame was written."""


class Controller(Protocol):
    """Anything that chooses modes; `tests/device/test_controller.py` holds what every controller must do."""

    def choose(self, situation: Situation) -> Decision:
        """Say what to do with the next picture."""

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

    def observe(self, observation: Observation) -> None:
        """Nothing to learn."""


class RateController:
    """The most accurate mode that fits the link and the deadline; the one with the fewest bytes before it knows any.

    From the answers of the last frames it keeps the head's time by width, the server's time, and for each frame its
    size and its time on the network. What another size would have taken is foretold on the safe side: a larger frame in
    proportion, as if all the time were transmission, a smaller one saving only what is above the shortest time seen. So
    it climbs to larger modes in steps that each confirm the last, and never leaps. Of what the last frames foretell,
    the slow end (95 %) counts. Between two pictures there must be time to transmit one, or frames would pile up.
    """

    def __init__(self, modes: Sequence[Mode], memory: int = MEMORY) -> None:
        self._modes = sorted(modes, key=lambda mode: (-fmean(mode.accuracy.values()), mode.mean_bytes))
        self._by_index = {mode.index: mode for mode in modes}
        self._sizes = np.array([[mode.p95_bytes + OVERHEAD_BYTES] for mode in self._modes])
        self._device_ms: dict[float, deque[float]] = defaultdict(lambda: deque(maxlen=memory))
        self._server_ms: deque[float] = deque(maxlen=memory)
        self._network: deque[tuple[float, float]] = deque(maxlen=memory)

    def choose(self, situation: Situation) -> Decision:
        """Pick from the bundle's table of measured accuracy; there is always a cheapest mode."""
        most = len(self._modes) if situation.max_mode is None else situation.max_mode
        allowed = [at for at, mode in enumerate(self._modes) if mode.index <= most]
        if not self._network:
            chosen = min(allowed, key=lambda at: self._modes[at].mean_bytes)
            return Decision(self._modes[chosen].index, situation.max_groups)
        network_ms = self._network_ms(situation.bytes_unanswered)
        server_ms = _slow(self._server_ms)
        total_ms = [self._head_ms(mode) + server_ms + network_ms[at] for at, mode in enumerate(self._modes)]
        fitting = (at for at in allowed if self._fits(at, total_ms[at], network_ms[at], situation))
        chosen = next(fitting, min(allowed, key=total_ms.__getitem__))
        return Decision(self._modes[chosen].index, situation.max_groups)

    def observe(self, observation: Observation) -> None:
        """Take the times of an answered frame; others say nothing of the link."""
        device_ms = observation.prepare_ms + observation.head_ms + observation.code_ms
        self._device_ms[self._by_index[observation.mode].width].append(device_ms)
        if observation.round_trip_ms is None or observation.outcome != "answered":
            return
        self._server_ms.append(observation.server_ms)
        size = observation.sent_bytes + observation.bytes_ahead + OVERHEAD_BYTES
        self._network.append((size, max(observation.round_trip_ms - observation.server_ms, 0.0)))

    def _network_ms(self, bytes_ahead: int) -> NDArray[np.float64]:
        """Time on the network that each mode has to reckon with, [M], in the order of `_modes`."""
        sizes, times_ms = np.array(self._network).T  # [N] each
        fastest_ms = times_ms.min()
        ratio = (self._sizes + bytes_ahead) / sizes  # [M, N]
        foretold = np.where(ratio >= 1, times_ms * ratio, fastest_ms + (times_ms - fastest_ms) * ratio)
        foretold.sort(axis=1)
        slow: NDArray[np.float64] = foretold[:, _slow_rank(len(sizes))]
        return slow

    def _fits(self, at: int, total_ms: float, network_ms: float, situation: Situation) -> bool:
        fastest_ms = min(time_ms for _, time_ms in self._network)
        busy_ms = max(network_ms - fastest_ms, self._head_ms(self._modes[at]))
        if situation.interval_ms is not None and busy_ms > situation.interval_ms:
            return False
        return situation.deadline_ms is None or situation.age_ms + total_ms <= situation.deadline_ms

    def _head_ms(self, mode: Mode) -> float:
        """Slow end of the width's own times, or another width's scaled by the multiply-adds."""
        if self._device_ms[mode.width]:
            return _slow(self._device_ms[mode.width])
        known = [m for m in self._modes if self._device_ms[m.width]]
        if not known:
            return 0.0
        nearest = min(known, key=lambda m: abs(m.width - mode.width))
        return median(self._device_ms[nearest.width]) * mode.head_macs / max(nearest.head_macs, 1)


def _slow(values: Iterable[float]) -> float:
    """The 95 % quantile, 0 for nothing: one of the values themselves, and the greatest of fewer than 20."""
    ordered = sorted(values)
    return ordered[_slow_rank(len(ordered))] if ordered else 0.0


def _slow_rank(count: int) -> int:
    return math.ceil(SLOW_QUANTILE * count) - 1
