"""The devices of one class on one or several servers: what the agent does with a picture, on the simulation's time.

    picture ── device free? ── choose ──┬─ skip
                                        ├─ whole ─────────────────────────────────────────────> answered here
                                        └─ prepare, head, exit ──┬─ sure, or "local" ─────────> answered here
                                                                 └─ refine ── code ── link ──> server ──> answer

The controller is the product's own, one a device, made by the agent's own code; so are the exit's thresholds and the
time that is left for stepping in. A device is a live source: while it is busy its newest picture waits, and takes the
place of an older one (device/feed.py).

Where no frame is on its way when a picture is taken, all of that up to the link is done in one event, as nothing can
come between.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headwater.simulations.fleet.chance import NORMAL, draw, share
from headwater.simulations.fleet.flight import Flight
from headwater.simulations.fleet.model import LEAST_BYTES
from headwater.simulations.fleet.telling import Teller

if TYPE_CHECKING:
    from headwater.device.control.controller import Decision
    from headwater.device.control.controller import Outcome as Fate
    from headwater.simulations.fleet.agenda import Agenda
    from headwater.simulations.fleet.arrivals import Clock
    from headwater.simulations.fleet.member import Device
    from headwater.simulations.fleet.model import Model
    from headwater.simulations.fleet.routes import Routes
    from headwater.simulations.fleet.scenario import DeviceClass
    from headwater.simulations.fleet.tally import Tally

_UNIT = 1 / 65536
LEAST_PACE = 0.5
"""Of what work takes on average, the least that it may."""
SILENT_S = 45.0
"""After so long a side takes the other for gone: three heartbeats."""


class Crew:
    """Devices of a class, and what happens to them."""

    def __init__(
        self,
        devices: DeviceClass,
        model: Model,
        clock: Clock,
        agenda: Agenda,
        tally: Tally,
        routes: Routes,
        end_s: float,
        content_s: float,
    ) -> None:
        """``end_s``: no picture is taken from then on. ``content_s``: see :class:`Scenario`."""
        self.model, self.tally, self.name = model, tally, devices.name
        self._agenda, self._clock, self._routes = agenda, clock, routes
        self._end_s, self._content_s = end_s, content_s
        self._window = devices.settings.window
        self._slow_share, self._slow_times = devices.slow_share, devices.slow_times
        self._burst = clock.pictures_a_burst - 1
        self._simple = clock.simple
        self._teller = Teller(model, clock, routes)
        self._rho = self._rest = 0.0
        self._gap_s = -1.0

    # ------------------------------------------------------------ pictures

    def begin(self, device: Device) -> None:
        """Let a device take its first picture when it is time."""
        luck = share(device.key, -1)
        device.base_s = self._clock.first(luck)
        device.burst_left = self._burst
        device.richness = NORMAL[draw(device.key, -2) & 4095]
        device.ease = NORMAL[draw(device.key, -3) & 4095]
        self._expect(device, share(device.key, -4))

    def _expect(self, device: Device, luck: float) -> None:
        taken_s = self._clock.moment(device.base_s, luck)
        if taken_s < self._end_s:
            self._agenda.at(max(taken_s, self._agenda.now_s), self._picture, device)

    def _picture(self, device: Device, now_s: float) -> None:
        luck = draw(device.key, device.number)
        device.number += 1
        self.tally.taken(now_s)
        self._next(device, luck)
        self._see(device, now_s, luck)
        if device.free_s <= now_s:
            self._start(device, now_s, luck, now_s)
            return
        if device.waiting is None:
            if device.free_s < math.inf:
                self._agenda.at(device.free_s, self._free, device)
        else:
            self._drop(device.waiting[0])
        device.waiting = now_s, luck

    def _next(self, device: Device, luck: int) -> None:
        """The picture after this one."""
        if self._simple:
            device.base_s = taken_s = device.base_s + self._clock.interval_s
            if taken_s < self._end_s:
                self._agenda.at(taken_s, self._picture, device)
            return
        if device.burst_left:
            device.burst_left -= 1
            device.base_s += self._clock.interval_s
        else:
            device.burst_left = self._burst
            device.base_s = self._clock.after(device.base_s, (luck >> 36 & 0xFFFF) * _UNIT)
        self._expect(device, (luck >> 36 & 0xFFFF) * _UNIT)

    def _see(self, device: Device, now_s: float, luck: int) -> None:
        """What it looks at is like what it looked at before, the more so the less time has passed."""
        gap_s = now_s - device.taken_s
        device.taken_s = now_s
        if gap_s != self._gap_s:
            self._gap_s = gap_s
            self._rho = math.exp(-gap_s / self._content_s) if self._content_s else 0.0
            self._rest = math.sqrt(1 - self._rho * self._rho)
        device.richness = self._rho * device.richness + self._rest * NORMAL[luck & 4095]
        device.ease = self._rho * device.ease + self._rest * NORMAL[luck >> 12 & 4095]

    def _drop(self, taken_s: float) -> None:
        self.tally.outcome.dropped += 1
        self.tally.missed(taken_s)

    def _free(self, device: Device, now_s: float) -> None:
        """The device is done with the picture before."""
        if device.waiting is not None:
            (taken_s, luck), device.waiting = device.waiting, None
            self._start(device, taken_s, luck, now_s)

    # ------------------------------------------------------------ on the device

    def _start(self, device: Device, taken_s: float, luck: int, now_s: float) -> None:
        if device.flights:
            self._teller.catch_up(device, now_s)
            if len(device.flights) >= self._window:
                self._drop(taken_s)
                return
        decision = device.controller.choose(self._teller.situation(device, taken_s, now_s))
        if decision.action == "skip":
            self.tally.outcome.skipped += 1
            self.tally.missed(taken_s)
            self._teller.here(device, decision.mode, "skipped", now_s)
            return
        flight = Flight(self, device, taken_s, taken_s + self.model.give_up_ms / 1e3)
        flight.luck = luck
        done_s = now_s + self._work(device, flight, decision)
        if device.flights:  # their answers may come meanwhile, and are told of first
            device.free_s = math.inf
            self._agenda.at(done_s, self._seen, (device, flight, decision))
        else:
            self._worked(device, flight, decision, done_s)

    def _work(self, device: Device, flight: Flight, decision: Decision) -> float:
        """Seconds that the device works until it can refine, or has its own answer."""
        model, times, tally = self.model, self.model.times, self.tally
        pace = 1 + times.spread * NORMAL[flight.luck >> 24 & 4095]
        pace = device.pace * max(pace, LEAST_PACE)
        if self._slow_share and (flight.luck >> 52) < self._slow_share * 4096:
            pace *= self._slow_times
        flight.prepare_ms = times.prepare_ms * pace
        tally.prepare_s += flight.prepare_ms * 1e-3
        if decision.action == "whole":
            flight.head_ms = (times.whole_ms or 0.0) * pace
            tally.whole_s += flight.head_ms * 1e-3
        else:
            flight.head_ms = model.head_ms[decision.mode] * pace
            tally.head_s += flight.head_ms * 1e-3
            if model.exit is not None:
                flight.exit_ms = times.exit_ms * pace
                flight.confidence = device.ease
                tally.exit_s += flight.exit_ms * 1e-3
        flight.code_ms = times.code_ms * pace
        return (flight.prepare_ms + flight.head_ms + flight.exit_ms) / 1e3

    def _seen(self, what: tuple[Device, Flight, Decision], now_s: float) -> None:
        """The work is done, and frames were on their way meanwhile."""
        device, flight, decision = what
        self._teller.catch_up(device, now_s)
        self._worked(device, flight, decision, now_s)
        if device.waiting is not None:
            self._agenda.at(device.free_s, self._free, device)

    def _worked(self, device: Device, flight: Flight, decision: Decision, now_s: float) -> None:
        if decision.action == "send":
            self._refine(device, flight, decision, now_s)
        else:
            self._here(device, flight, decision, now_s)

    def _refine(self, device: Device, flight: Flight, decision: Decision, now_s: float) -> None:
        local = self.model.exit
        if local is not None and device.ease > local.sure_above[decision.mode]:
            self.tally.outcome.sure += 1
            self._answer_here(device, flight, decision.mode, now_s, local.sure_right[decision.mode], "local")
            return
        if local is not None and now_s >= flight.due_s:
            self._here_after_all(device, flight, decision.mode, now_s)
            return
        situation = self._teller.situation(device, flight.taken_s, now_s)
        decision = device.controller.refine(decision, situation, flight.confidence)
        if decision.action == "send":
            self._send(device, flight, decision, now_s)
        else:
            self._here_after_all(device, flight, decision.mode, now_s)

    # ------------------------------------------------------------ answered on the device

    def _here(self, device: Device, flight: Flight, decision: Decision, now_s: float) -> None:
        """The controller chose so before anything ran."""
        if decision.action == "whole":
            self.tally.outcome.whole += 1
            self.tally.here(flight.taken_s, now_s, self.model.whole_right)
            self._done_here(device, flight, decision.mode, now_s, "whole")
            return
        local = self.model.exit
        assert local is not None, "the controller chose the local exit, which the device has not"
        sure = device.ease > local.sure_above[decision.mode]
        right = local.sure_right if sure else local.unsure_right
        self._answer_here(device, flight, decision.mode, now_s, right[decision.mode], "local")

    def _here_after_all(self, device: Device, flight: Flight, mode: int, now_s: float) -> None:
        assert self.model.exit is not None
        self._answer_here(device, flight, mode, now_s, self.model.exit.unsure_right[mode], "local")

    def _answer_here(self, device: Device, flight: Flight, mode: int, now_s: float, right: float, fate: Fate) -> None:
        self.tally.outcome.exit += 1
        self.tally.here(flight.taken_s, now_s, right)
        self._done_here(device, flight, mode, now_s, fate)

    def _done_here(self, device: Device, flight: Flight, mode: int, now_s: float, fate: Fate) -> None:
        """Free the device, and tell the controller."""
        device.free_s = now_s
        self._teller.here(device, mode, fate, now_s, flight)

    # ------------------------------------------------------------ over the link

    def _send(self, device: Device, flight: Flight, decision: Decision, now_s: float) -> None:
        self._code(device, flight, decision)
        model = self.model
        device.free_s = sent_s = now_s + flight.code_ms / 1e3
        self.tally.code_s += flight.code_ms * 1e-3
        flight.sent_s = sent_s
        flight.work_s = (flight.prepare_ms + flight.head_ms + flight.exit_ms + flight.code_ms) / 1e3
        if device.flights:
            flight.ahead = sum([other.size for other in device.flights])
        if model.exit is not None:
            flight.unsure_right = model.exit.unsure_right[flight.mode]
        device.flights.append(flight)
        self.tally.sent(flight.taken_s, flight.mode, flight.size)
        self._write(flight, max(sent_s, device.held_s, device.since_s))

    def _code(self, device: Device, flight: Flight, decision: Decision) -> None:
        """Code it, again at the next lower gain while it is too long."""
        model, mode, most = self.model, decision.mode, decision.most_bytes
        groups = decision.groups
        while True:
            mean = (
                model.mean_bytes[mode]
                if groups is None
                else model.cut_bytes.get((mode, groups), model.mean_bytes[mode])
            )
            sigma = model.sigma[mode]
            size = int(mean * math.exp(sigma * (device.richness - 0.5 * sigma)) + 0.5)
            size = max(size, LEAST_BYTES)
            below = model.below[mode]
            if most is None or size <= most or below is None:
                break
            mode = below
        flight.mode, flight.groups, flight.size = mode, groups, size

    def _write(self, flight: Flight, now_s: float) -> None:
        device = flight.device
        if now_s >= flight.due_s:
            self._lose(flight, now_s)
            return
        at_s = device.link.up(device.line, now_s, flight.size)
        lost = device.link.loss(flight.size)
        if at_s == math.inf or (lost and share(device.key ^ flight.attempts, flight.luck) < lost):
            self.tally.outcome.lost += 1
            self._lose(flight, now_s)
            return
        station = device.station
        self._agenda.at(at_s + station.handling_s, station.arrive, flight)

    # ------------------------------------------------------------ what the server says

    def served(self, flight: Flight, started_s: float, now_s: float) -> None:
        """Its batch is done."""
        device, handling_s = flight.device, flight.device.station.handling_s
        flight.server_ms = (now_s - flight.arrived_s + handling_s) * 1e3
        flight.back_s = back_s = device.link.down(device.line, now_s)
        if back_s == math.inf:
            self._lose(flight, now_s)
            return
        if back_s > flight.due_s:
            self.tally.came((back_s - flight.taken_s) * 1e3)
            self._give_up(flight)
            return
        release = device.release
        if release is not None and not release.answered(device, flight, local=self.model.exit is not None):
            self.tally.came((back_s - flight.taken_s) * 1e3)
            self._lose(flight, now_s)
            return
        groups, model = flight.groups, self.model
        right = model.right[flight.mode]
        if groups is not None:
            right = model.cut_right.get((flight.mode, groups), right)
        if device.uses_new and release is not None:
            right += release.gain
        self.tally.served(flight, right, started_s, now_s)

    def expired(self, flight: Flight, now_s: float) -> None:
        """Its deadline passed in the server's queue."""
        self._lose(flight, now_s)

    def refused(self, flight: Flight, now_s: float, retry_after_s: float) -> None:
        """The server was full: the device hears of it, waits as it was told, and writes again."""
        device = flight.device
        self.tally.outcome.refused += 1
        back_s = device.link.down(device.line, now_s)
        device.held_s = max(device.held_s, back_s + retry_after_s)
        self._again(flight, device.held_s)

    def broken(self, flight: Flight, now_s: float) -> None:
        """The server went down, or is: the device goes to another, and writes again."""
        device = flight.device
        self.tally.outcome.refused += 1
        self._routes.follow(device, now_s)
        self._again(flight, device.since_s)

    def _again(self, flight: Flight, at_s: float) -> None:
        flight.attempts += 1
        if at_s >= flight.due_s or at_s == math.inf:
            self._lose(flight, flight.sent_s)
        else:
            self._agenda.at(at_s, self._write_again, flight)

    def _write_again(self, flight: Flight, now_s: float) -> None:
        flight.sent_s = now_s
        self._write(flight, now_s)

    def _lose(self, flight: Flight, now_s: float) -> None:
        """Its answer will never come. Without a deadline the agent hears of it when it finds the connection dead."""
        flight.gone = True
        self._give_up(flight)
        if flight.due_s == math.inf:
            flight.due_s = now_s + SILENT_S

    def _give_up(self, flight: Flight) -> None:
        """No answer in time: the exit steps in, where there is one."""
        if self.model.exit is not None and flight.due_s < math.inf:
            self.tally.outcome.exit += 1
            self.tally.outcome.stepped_in += 1
            self.tally.here(flight.taken_s, max(flight.due_s, flight.sent_s), flight.unsure_right)
        else:
            self.tally.outcome.unanswered += 1
            self.tally.missed(flight.taken_s)
