"""A device of the twin of whose run everything is known but how long things take: its moments, pictures and link.

The link carries the very bytes (wire.py), in the order of rate and delay that the proxy has (simulations/lane.py), and
remembers what has been received since the last write, as gRPC does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater.simulations.fleet.arrivals import Clock
from headwater.simulations.fleet.calibrated import CalibratedCrew
from headwater.simulations.fleet.model import LEAST_BYTES
from headwater.simulations.fleet.tally import Tally
from headwater.simulations.fleet.wire import ACK_BYTES, frame_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.device.control.controller import Decision
    from headwater.simulations.fleet.content import Content
    from headwater.simulations.fleet.flight import Flight
    from headwater.simulations.fleet.links import Line, Used
    from headwater.simulations.fleet.member import Device
    from headwater.simulations.fleet.outcome import ClassOutcome
    from headwater.simulations.fleet.scenario import Arrivals
    from headwater.simulations.fleet.traffic import Traffic
    from headwater.simulations.trace import LinkTrace

LONG_SEQUENCE = 128
"""From this number on, an answer takes a byte more to say whose it is."""


class Moments(Clock):
    """When a device of a run takes its pictures."""

    def __init__(self, traffic: Traffic, device: int, arrivals: Arrivals) -> None:
        """``arrivals`` at the run's rate."""
        super().__init__(arrivals, 0.0)
        self.begin_s = traffic.due_s(device)
        self.end_s = traffic.due_s(device, traffic.frames) - 0.5 / traffic.fps
        """After the last picture."""
        self._fps = traffic.fps

    def first(self, luck: float) -> float:
        """The same whatever the luck."""
        del luck
        return self.begin_s

    def number(self, taken_s: float) -> int:
        """Of the picture that was taken then, from 0."""
        return round((taken_s - self.begin_s) * self._fps)


class Latencies(Tally):
    """Remembers every answer time, which a simulation of millions only sorts into bins."""

    def __init__(self, outcome: ClassOutcome, deadline_ms: float | None) -> None:
        """As :class:`Tally`."""
        super().__init__(outcome, deadline_ms)
        self.all_ms: list[float] = []

    def _answered(self, taken_s: float, latency_ms: float, right: float) -> int:
        self.all_ms.append(latency_ms)
        return super()._answered(taken_s, latency_ms, right)


class KnownLink:
    """One device's link, with the bytes that messages take."""

    def __init__(self, trace: LinkTrace, used: Used, answer_bytes: float) -> None:
        """``answer_bytes``: of an answer to a frame of a number below 128, mean."""
        self.sequence, self.deadline_ms = 1, 0
        """Of the frame that is written next: its number, and the ms that its deadline leaves."""
        self.tasks: Sequence[str] = ()
        """That it asks for."""
        self._trace, self._used, self._answer_bytes = trace, used, answer_bytes
        self._at_server: list[float] = [-math.inf]
        """When messages came that nothing was written after; the first is the device's hello."""
        self._at_device: list[float] = [-math.inf]
        self._numbers: list[int] = []

    def up(self, line: Line, now_s: float, size: int) -> float:
        """When a frame of `size` bytes that is written now is at the server."""
        whole = frame_bytes(size, self.sequence, self.deadline_ms, self.tasks) + self._given_back(
            self._at_device, now_s
        )
        self._used.up_bytes += whole
        line.up_s = self._trace.up.finish(max(now_s, line.up_s), whole)
        at_s = line.up_s + self._trace.up_delay_s
        self._at_server.append(at_s)
        return at_s

    def down(self, line: Line, now_s: float) -> float:
        """When an answer that the server gives now is at the device."""
        longer = self.sequence >= LONG_SEQUENCE
        whole = self._answer_bytes + longer + self._given_back(self._at_server, now_s)
        self._used.down_bytes += whole
        line.down_s = self._trace.down.finish(max(now_s, line.down_s), whole)
        at_s = line.down_s + self._trace.down_delay_s
        self._at_device.append(at_s)
        return at_s

    @staticmethod
    def _given_back(came_s: list[float], now_s: float) -> int:
        """Bytes that say what has been received since the last write; from now on, nothing has."""
        some = any(at_s <= now_s for at_s in came_s)
        came_s[:] = [at_s for at_s in came_s if at_s > now_s]
        return ACK_BYTES if some else 0

    def loss(self, size: int) -> float:
        """None: it is TCP's."""
        del size
        return 0.0

    def rest(self, line: Line, end_s: float) -> None:
        """Nothing sleeps."""

    def bulk_end(self, line: Line, *, up: bool) -> float:
        """There is none: it is done."""
        del line, up
        return 0.0


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a device's run."""

    content: Content
    order: Sequence[int]
    """Which picture each frame is of."""
    tasks: Sequence[str]
    clock: Moments
    link: KnownLink

    def number(self, flight: Flight) -> int:
        """Of a frame, from 0."""
        return self.clock.number(flight.taken_s)

    def confidence(self, flight: Flight, mode: int) -> float:
        """Of the exit in its own answer; below any where there is none."""
        confidence = self.content.confidence(self.order[self.number(flight)], mode)
        return -math.inf if confidence is None else confidence

    def size(self, flight: Flight, mode: int, groups: int | None) -> int:
        """Of the frame in a mode, cut after so many channel groups."""
        return max(self.content.size(self.order[self.number(flight)], mode, groups), LEAST_BYTES)


class KnownCrew(CalibratedCrew):
    """One device."""

    def __init__(self, *crew: Any, known: Known, **calibrated: Any) -> None:  # noqa: ANN401 - what the others take
        """``crew``, ``calibrated``: see :class:`CalibratedCrew`."""
        super().__init__(*crew, **calibrated)
        self._known = known

    def _work(self, device: Device, flight: Flight, decision: Decision) -> float:
        device.ease = self._known.confidence(flight, decision.mode)
        return super()._work(device, flight, decision)

    def _code(self, device: Device, flight: Flight, decision: Decision) -> None:
        del device
        mode, most, groups = decision.mode, decision.most_bytes, decision.groups
        size = self._known.size(flight, mode, groups)
        while most is not None and size > most and (below := self.model.below[mode]) is not None:
            mode = below
            size = self._known.size(flight, mode, groups)
        flight.mode, flight.groups, flight.size = mode, groups, size

    def _write(self, flight: Flight, now_s: float) -> None:
        link = self._known.link
        link.sequence, link.tasks = self._known.number(flight) + 1, self._known.tasks
        link.deadline_ms = 0 if flight.due_s == math.inf else max(int((flight.due_s - now_s) * 1e3), 1)
        super()._write(flight, now_s)
