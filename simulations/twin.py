"""A device, a link and a server without clocks or sockets: what a controller does on any trace, in no time.

The controller is the very one that runs on a device. A frame goes its way as in the agent: one at a time through the
device, then into the link's queue in each direction, and what is not answered by the deadline is answered by the local
exit, where there is one; its late answer still teaches the controller. The oracle knows the trace and every time in
advance, and takes for each frame the most accurate mode that will be in time.

    outcomes = Twin(modes, link, device=Device(head_ms={0.25: 2.0}), fps=5, deadline_ms=300).run(controller, frames=500)

Times in ms unless the name says otherwise; seconds for the traces.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from headwater.device.control.controller import Action, Controller, Decision, Observation, Situation
from headwater.device.control.controller import Outcome as Fate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.compression.manifest import Mode
    from headwater.simulations.trace import LinkTrace

UP_BYTES, DOWN_BYTES = 70, 90
"""What a frame and its answer take on the wire beside the frame's own bytes."""


@dataclass(frozen=True)
class Device:
    """How fast the device and the server are."""

    head_ms: Mapping[float, float]
    """By width."""
    prepare_ms: float = 1.0
    exit_ms: float = 0.5
    code_ms: float = 0.2
    whole_ms: float | None = None
    """Of the whole model; None where the device does not have it."""
    server_ms: float = 3.0
    spread: float = 0.05
    """Of all these, relative."""
    busy: Callable[[float], float] = lambda _: 1.0
    """How many times slower the device is at a time in seconds."""


@dataclass(frozen=True)
class Outcome:
    """What became of a picture."""

    taken_s: float
    decision: Decision
    answered_ms: float
    """From the picture to its answer; infinite where there was none by the deadline."""
    source: str
    """edge, local, or none."""
    accuracy: float
    """That is expected of this answer; 0 without one in time."""
    sent_bytes: int
    latest_ms: float
    """From the picture to the server's answer, however late; infinite where nothing was sent."""

    @property
    def mode(self) -> int | None:
        """The mode that answered, or was to; None where nothing was sent."""
        return self.decision.mode if self.sent_bytes else None


class _Flight(NamedTuple):
    """A frame on its way."""

    sent_s: float
    size: int
    back_s: float


class _Link:
    """Both directions of a trace as queues."""

    def __init__(self, trace: LinkTrace) -> None:
        self._trace = trace
        self._up_s = self._down_s = 0.0

    def back_s(self, sent_s: float, size: float, server_ms: float, *, commit: bool = True) -> float:
        """When the answer of a frame that is sent now is back; with ``commit`` it takes its place in the queues."""
        trace = self._trace
        up_s = trace.up.finish(max(sent_s, self._up_s), size + UP_BYTES)
        there_s = up_s + trace.up_delay_s + server_ms / 1e3
        down_s = trace.down.finish(max(there_s, self._down_s), DOWN_BYTES)
        if commit:
            self._up_s, self._down_s = up_s, down_s
        return down_s + trace.down_delay_s


@dataclass
class _State:
    """What happens in one run."""

    link: _Link
    free_s: float = 0.0
    """When the device is done with the picture before."""
    flights: list[_Flight] = field(default_factory=list)
    news: list[tuple[float, int, Observation]] = field(default_factory=list)
    """What the controller will be told, by time."""
    numbers: count[int] = field(default_factory=count)

    def tell(self, observation: Observation) -> None:
        """Let the controller know when it is time."""
        heapq.heappush(self.news, (observation.time_s, next(self.numbers), observation))

    def until(self, now_s: float, controller: Controller) -> None:
        """Tell what is known by now, and forget what has landed."""
        while self.news and self.news[0][0] <= now_s:
            controller.observe(heapq.heappop(self.news)[2])
        self.flights = [flight for flight in self.flights if flight.back_s > now_s]


class Picture(NamedTuple):
    """What chance makes of a picture: the same for every controller, so that they can be compared."""

    size: float
    """Of its frames, times the mode's mean."""
    device: float
    """Of the times on the device, times their mean."""
    server: float
    confidence: float


class Twin:
    """One device, link and server; every run of it begins anew, with the same chances."""

    def __init__(
        self,
        modes: Sequence[Mode],
        link: LinkTrace,
        device: Device,
        *,
        fps: float = 5.0,
        deadline_ms: float | None = 300.0,
        exit_accuracy: Mapping[float, float] | None = None,
        whole_accuracy: float | None = None,
        seed: int = 0,
    ) -> None:
        """Set it up; ``exit_accuracy`` by width, None without a local exit."""
        self.modes, self.link, self.device = modes, link, device
        self.fps, self.deadline_ms = fps, deadline_ms
        self.exit_accuracy, self.whole_accuracy = exit_accuracy, whole_accuracy
        self._seed = seed

    def run(self, controller: Controller, frames: int) -> list[Outcome]:
        """Let a controller answer so many pictures."""
        state = _State(_Link(self.link))
        pictures = self._pictures(frames)
        return [self._frame(number, picture, controller, state) for number, picture in enumerate(pictures)]

    def oracle(self, frames: int) -> list[Outcome]:
        """Answer them by knowing everything: for each, the most accurate way that is in time."""
        link, free_s, outcomes = _Link(self.link), 0.0, []
        for number, picture in enumerate(self._pictures(frames)):
            outcome, free_s = self._foreseen(number / self.fps, free_s, picture, link)
            outcomes.append(outcome)
        return outcomes

    def _pictures(self, frames: int) -> list[Picture]:
        chance, spread = random.Random(self._seed), self.device.spread  # noqa: S311 - a simulation
        return [
            Picture(
                size=max(chance.gauss(1.0, 0.15), 0.3),
                device=max(chance.gauss(1.0, spread), 0.5),
                server=chance.expovariate(1.0) * 0.3 + 0.7,
                confidence=chance.betavariate(4, 1),
            )
            for _ in range(frames)
        ]

    # ------------------------------------------------------------ one frame

    def _frame(self, number: int, picture: Picture, controller: Controller, state: _State) -> Outcome:
        taken_s = number / self.fps
        now_s = max(taken_s, state.free_s)
        state.until(now_s, controller)
        decision = controller.choose(self._situation(taken_s, now_s, state))
        if decision.action == "skip":
            state.tell(self._observed(decision, now_s, now_s, picture, "skipped", head=False))
            return self._answer(taken_s, decision, "none", float("inf"))
        start_s = now_s
        now_s += self._device_ms(decision, picture, start_s) / 1e3
        confidence = picture.confidence if self._local(decision.mode) is not None else None
        if decision.action == "send":
            state.until(now_s, controller)
            decision = controller.refine(decision, self._situation(taken_s, now_s, state), confidence)
        state.free_s = now_s
        if decision.action != "send":
            fate: Fate = "whole" if decision.action == "whole" else "local"
            state.tell(self._observed(decision, start_s, now_s, picture, fate))
            return self._answer(taken_s, decision, "local", (now_s - taken_s) * 1e3)
        return self._sent(taken_s, start_s, now_s, decision, picture, state)

    def _sent(
        self, taken_s: float, start_s: float, now_s: float, decision: Decision, picture: Picture, state: _State
    ) -> Outcome:
        decision, size = self._coded(decision, picture)
        now_s += self.device.code_ms / 1e3
        state.free_s = now_s
        ahead = sum(flight.size for flight in state.flights)
        server_ms = self.device.server_ms * picture.server
        back_s = state.link.back_s(now_s, size, server_ms)
        state.flights.append(_Flight(now_s, size, back_s))
        told = replace(
            self._observed(decision, start_s, back_s, picture, "answered"),
            sent_bytes=size,
            attempts=1,
            round_trip_ms=(back_s - now_s) * 1e3,
            server_ms=server_ms,
            batch=1,
            bytes_ahead=ahead,
            code_ms=self.device.code_ms,
        )
        latest_ms = (back_s - taken_s) * 1e3
        if self.deadline_ms is None or latest_ms <= self.deadline_ms:
            state.tell(told)
            return self._answer(taken_s, decision, "edge", latest_ms, size, latest_ms)
        due_s = taken_s + self.deadline_ms / 1e3
        local = self._local(decision.mode) is not None
        fate: Fate = "local" if local else "expired"
        waited_ms = max(due_s - now_s, 0.0) * 1e3
        state.tell(
            replace(told, outcome=fate, time_s=max(due_s, now_s), round_trip_ms=None, waited_ms=waited_ms, sent=True)
        )
        if back_s < float("inf"):
            state.tell(replace(told, outcome="late", prepare_ms=0.0, head_ms=0.0, exit_ms=0.0, code_ms=0.0))
        answered_ms = max(self.deadline_ms, (now_s - taken_s) * 1e3) if local else float("inf")
        return self._answer(taken_s, decision, "local" if local else "none", answered_ms, size, latest_ms)

    def _coded(self, decision: Decision, picture: Picture) -> tuple[Decision, int]:
        """Code the picture, again at the next lower gain while it is too long."""
        mode = self.modes[decision.mode]
        while True:
            size = max(int(self._mean_bytes(mode, decision.groups) * picture.size), 8)
            below = mode.index - 1
            coarsest = below < 0 or self.modes[below].width != mode.width
            if decision.most_bytes is None or size <= decision.most_bytes or coarsest:
                return replace(decision, mode=mode.index), size
            mode = self.modes[below]

    @staticmethod
    def _mean_bytes(mode: Mode, groups: int | None) -> float:
        return next((cut.mean_bytes for cut in mode.cuts if cut.groups == groups), mode.mean_bytes)

    def _situation(self, taken_s: float, now_s: float, state: _State) -> Situation:
        oldest_s = min((flight.sent_s for flight in state.flights), default=now_s)
        return Situation(
            deadline_ms=self.deadline_ms,
            age_ms=(now_s - taken_s) * 1e3,
            interval_ms=1e3 / self.fps,
            frames_unanswered=len(state.flights),
            bytes_unanswered=sum(flight.size for flight in state.flights),
            time_s=now_s,
            oldest_ms=(now_s - oldest_s) * 1e3,
            exit_available=self.exit_accuracy is not None,
            whole_ms=self.device.whole_ms,
        )

    def _observed(
        self, decision: Decision, start_s: float, time_s: float, picture: Picture, outcome: Fate, *, head: bool = True
    ) -> Observation:
        mode, device = self.modes[decision.mode], self.device
        slow = picture.device * device.busy(start_s) if head else 0.0
        network_ms = device.whole_ms or 0.0 if outcome == "whole" else device.head_ms[mode.width]
        local = self._local(decision.mode) is not None and outcome != "whole"
        return Observation(
            mode=mode.index,
            sent_bytes=0,
            prepare_ms=device.prepare_ms * slow,
            head_ms=network_ms * slow,
            code_ms=0.0,
            outcome=outcome,
            attempts=0,
            exit_ms=device.exit_ms * slow if local else 0.0,
            time_s=time_s,
            confidence=picture.confidence if local and head else None,
        )

    def _device_ms(self, decision: Decision, picture: Picture, now_s: float) -> float:
        device = self.device
        if decision.action == "whole":
            alone_ms = device.prepare_ms + (device.whole_ms or 0.0)
        else:
            exit_ms = device.exit_ms if self._local(decision.mode) is not None else 0.0
            alone_ms = device.prepare_ms + device.head_ms[self.modes[decision.mode].width] + exit_ms
        return alone_ms * picture.device * device.busy(now_s)

    def _local(self, mode: int) -> float | None:
        return None if self.exit_accuracy is None else self.exit_accuracy[self.modes[mode].width]

    def _answer(
        self,
        taken_s: float,
        decision: Decision,
        source: str,
        answered_ms: float,
        size: int = 0,
        latest_ms: float = float("inf"),
    ) -> Outcome:
        in_time = self.deadline_ms is None or answered_ms <= self.deadline_ms
        accuracy = self._accuracy(decision, source) if in_time else 0.0
        return Outcome(taken_s, decision, answered_ms, source, accuracy, size, latest_ms)

    def _accuracy(self, decision: Decision, source: str) -> float:
        mode = self.modes[decision.mode]
        if source == "none":
            return 0.0
        if source == "local":
            return (self.whole_accuracy if decision.action == "whole" else self._local(mode.index)) or 0.0
        cut = next((cut for cut in mode.cuts if cut.groups == decision.groups), mode)
        return fmean(cut.accuracy.values())

    # ------------------------------------------------------------ the oracle

    def _foreseen(self, taken_s: float, free_s: float, picture: Picture, link: _Link) -> tuple[Outcome, float]:
        """The best answer in time, and when the device is free again."""
        start_s = max(taken_s, free_s)
        ways = [Decision(0, action="skip")]
        actions: list[Action] = ["send", "local"] if self.exit_accuracy is not None else ["send"]
        ways += [Decision(mode.index, action=action) for mode in self.modes for action in actions]
        if self.whole_accuracy is not None and self.device.whole_ms is not None:
            ways.append(Decision(len(self.modes) - 1, action="whole"))
        best, end_s = self._answer(taken_s, ways[0], "none", float("inf")), start_s
        for way in ways[1:]:
            outcome, done_s = self._would_be(way, taken_s, start_s, picture, link)
            if (outcome.accuracy, -outcome.sent_bytes) > (best.accuracy, -best.sent_bytes):
                best, end_s = outcome, done_s
        if best.sent_bytes:
            link.back_s(end_s, best.sent_bytes, self.device.server_ms * picture.server)
        return best, end_s

    def _would_be(
        self, way: Decision, taken_s: float, start_s: float, picture: Picture, link: _Link
    ) -> tuple[Outcome, float]:
        now_s = start_s + self._device_ms(way, picture, start_s) / 1e3
        if way.action != "send":
            return self._answer(taken_s, way, "local", (now_s - taken_s) * 1e3), now_s
        now_s += self.device.code_ms / 1e3
        _, size = self._coded(way, picture)
        back_s = link.back_s(now_s, size, self.device.server_ms * picture.server, commit=False)
        latest_ms = (back_s - taken_s) * 1e3
        return self._answer(taken_s, way, "edge", latest_ms, size, latest_ms), now_s
