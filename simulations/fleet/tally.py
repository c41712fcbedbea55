"""Counts of one class of devices while it runs; an :class:`~headwater.simulations.fleet.outcome.ClassOutcome` after."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headwater.simulations.fleet.links import Used
from headwater.simulations.fleet.outcome import BINS_PER_DECADE, LEAST_MS, ClassOutcome, Histogram, Hour

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.simulations.fleet.flight import Flight

_PER_LOG = BINS_PER_DECADE / math.log(10)
_OFFSET = _PER_LOG * math.log(LEAST_MS) + 1e-9


class Tally:
    """What happened to the pictures of a class; plain numbers, as it is told of every one."""

    def __init__(self, outcome: ClassOutcome, deadline_ms: float | None) -> None:
        """``deadline_ms``: what the user asked for; None for no limit."""
        self.outcome = outcome
        self.used = Used()
        self._deadline_ms = math.inf if deadline_ms is None else deadline_ms
        self._latency: dict[int, int] = {}
        self._server_latency: dict[int, int] = {}
        self.head_s = self.exit_s = self.prepare_s = self.code_s = self.whole_s = self.train_s = 0.0
        self._stages = [0.0] * 9
        self._hour, self._hour_number = Hour(), -1

    def taken(self, taken_s: float) -> None:
        """A picture was taken."""
        self.outcome.frames += 1
        self._of(taken_s).frames += 1

    def sent(self, taken_s: float, mode: int, size: int) -> None:
        """It was coded and sent."""
        outcome, hour = self.outcome, self._hour
        if int(taken_s / 3600) != self._hour_number:
            hour = self._of(taken_s)
        outcome.sent += 1
        outcome.frame_bytes += size
        outcome.modes[mode] = outcome.modes.get(mode, 0) + 1
        hour.sent += 1
        hour.frame_bytes += size

    def here(self, taken_s: float, answered_s: float, right: float) -> None:
        """It was answered on the device; which of its ways did is counted by the caller."""
        self._answered(taken_s, (answered_s - taken_s) * 1e3, right)

    def missed(self, taken_s: float) -> None:
        """It has no answer."""
        self.outcome.missed += 1
        self._of(taken_s).missed += 1

    def served(self, flight: Flight, right: float, started_s: float, done_s: float) -> None:
        """The server answered it, between these moments, and that was waited for."""
        self.outcome.server += 1
        at = self._answered(flight.taken_s, (flight.back_s - flight.taken_s) * 1e3, right)
        self._server_latency[at] = self._server_latency.get(at, 0) + 1
        self._hour.server += 1
        stages, sent_s, arrived_s = self._stages, flight.sent_s, flight.arrived_s
        up_s, queue_s, run_s = arrived_s - sent_s, started_s - arrived_s, done_s - started_s
        stages[0] += sent_s - flight.work_s - flight.taken_s
        stages[1] += flight.prepare_ms
        stages[2] += flight.head_ms
        stages[3] += flight.exit_ms
        stages[4] += flight.code_ms
        stages[5] += up_s
        stages[6] += queue_s
        stages[7] += run_s
        stages[8] += flight.back_s - sent_s - up_s - queue_s - run_s

    def came(self, latency_ms: float) -> None:
        """The server's answer came, and nobody waited for it any more."""
        at = _bin(latency_ms)
        self._server_latency[at] = self._server_latency.get(at, 0) + 1

    def _answered(self, taken_s: float, latency_ms: float, right: float) -> int:
        """Count an answer in its hour; its bin."""
        at = _bin(latency_ms)
        self._latency[at] = self._latency.get(at, 0) + 1
        hour = self._of(taken_s)
        hour.latency_ms += latency_ms
        if latency_ms <= self._deadline_ms:
            self.outcome.right += right
        else:
            self.outcome.missed += 1
            hour.missed += 1
        return at

    def _of(self, time_s: float) -> Hour:
        number = int(time_s / 3600)
        if number != self._hour_number:
            self._hour = self.outcome.hours.setdefault(number, Hour())
            self._hour_number = number
        return self._hour

    def close(self, device_s: float) -> ClassOutcome:
        """Everything in one."""
        outcome = self.outcome
        outcome.latency, outcome.server_latency = Histogram(self._latency), Histogram(self._server_latency)
        add_times(self, self._stages, device_s)
        return outcome


def add_times(tally: Tally, stages: Sequence[float], device_s: float) -> None:
    """Write what was summed beside the outcome into it."""
    outcome, used = tally.outcome, tally.used
    outcome.device_s = device_s
    outcome.up_bytes += used.up_bytes
    outcome.down_bytes += used.down_bytes
    outcome.wakes = used.wakes
    names = ("prepare", "head", "exit", "code", "whole", "train")
    outcome.busy_s |= {name: getattr(tally, f"{name}_s") for name in names}
    outcome.busy_s |= {"send": used.send_s, "receive": used.receive_s, "tail": used.tail_s}
    scales = (1.0, 1e-3, 1e-3, 1e-3, 1e-3, 1.0, 1.0, 1.0, 1.0)
    for name, total, scale in zip(outcome.stage_s, stages, scales, strict=True):
        outcome.stage_s[name] = total * scale


def _bin(ms: float) -> int:
    """As :func:`headwater.simulations.fleet.outcome.bin_of`, quicker."""
    return max(math.ceil(_PER_LOG * math.log(ms) - _OFFSET), 0) if ms > LEAST_MS else 0
