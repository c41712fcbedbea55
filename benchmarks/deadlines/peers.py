"""What others do about a deadline, and what we ourselves would do without thinking: controllers beside ours.

:class:`MeanController` is the rule of the published system of this kind: it plans on means. It keeps an exponential
mean of the bandwidth (0.4 for the newest), knows for each width an encode time that was measured once, forgets that the
server takes time, and sends the most accurate mode that it foretells to be in time, or the one of fewest bytes where
there is none. It has no local answer to fall back on.

It is given two things that make it better than it was published: the server's own time is taken out of what it learns
the bandwidth from, and a frame that has no answer tells it that the link is at least that slow.
"""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from headwater.device.control.controller import OVERHEAD_BYTES, Decision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwater.compression.manifest import Mode
    from headwater.device.control.controller import Observation, Situation

NEWEST = 0.4
"""Weight of the newest measurement in the mean."""


class MeanController:
    """Plans on the mean bandwidth and a fixed encode time; see the module's text."""

    def __init__(self, modes: Sequence[Mode], encode_ms: Mapping[float, float], deadline_ms: float) -> None:
        """Take the bundle's modes, the time on the device by width, and the deadline it plans for."""
        self._modes = sorted(modes, key=lambda mode: (-fmean(mode.accuracy.values()), mode.mean_bytes))
        self._encode_ms = encode_ms
        self._deadline_ms = deadline_ms
        self._bytes_per_ms: float | None = None

    def choose(self, situation: Situation) -> Decision:
        """The most accurate mode that is foretold to be in time."""
        in_time = [mode for mode in self._modes if self._foretold_ms(mode) <= self._deadline_ms]
        chosen = in_time[0] if in_time else min(self._modes, key=lambda mode: mode.mean_bytes)
        return Decision(chosen.index, situation.max_groups)

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:  # noqa: ARG002
        """Keep to what was chosen."""
        return decision

    def observe(self, observation: Observation) -> None:
        """Learn the bandwidth from a frame's bytes and its time on the way."""
        time_ms = observation.round_trip_ms or observation.waited_ms
        if not observation.sent_bytes or not time_ms:
            return
        seen = (observation.sent_bytes + OVERHEAD_BYTES) / max(time_ms - observation.server_ms, 0.1)
        mean = self._bytes_per_ms
        self._bytes_per_ms = seen if mean is None else NEWEST * seen + (1 - NEWEST) * mean

    def _foretold_ms(self, mode: Mode) -> float:
        if self._bytes_per_ms is None:  # nothing is known: as if the link were infinitely slow
            return float("inf")
        return self._encode_ms[mode.width] + (mode.mean_bytes + OVERHEAD_BYTES) / self._bytes_per_ms


class LocalController:
    """Nothing is ever sent: the local exit answers each picture at one width."""

    def __init__(self, mode: int) -> None:
        """Take any mode of the width."""
        self._mode = mode

    def choose(self, situation: Situation) -> Decision:  # noqa: ARG002
        """Answer on the device."""
        return Decision(self._mode, action="local")

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:  # noqa: ARG002
        """Keep to what was chosen."""
        return decision

    def observe(self, observation: Observation) -> None:
        """Nothing to learn."""


class CycleController:
    """Every mode in turn: for measuring what each takes."""

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self._decisions = decisions
        self._next = 0

    def choose(self, situation: Situation) -> Decision:  # noqa: ARG002
        """The next one."""
        self._next += 1
        return self._decisions[(self._next - 1) % len(self._decisions)]

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:  # noqa: ARG002
        """Keep to what was chosen."""
        return decision

    def observe(self, observation: Observation) -> None:
        """Nothing to learn."""
