"""What a simulated device's controller is asked with and told, and when.

Answers need no event: they are on their way alone, and nobody looks before the device has its next picture. So what a
controller is told by then, it is told just before it is asked, in the order of the times. Situations and observations
are two objects whose contents change, as making them would cost more than deciding: controllers do not keep them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.device.control.controller import Observation, Situation

if TYPE_CHECKING:
    from headwater.device.control.controller import Outcome as Fate
    from headwater.simulations.fleet.arrivals import Clock
    from headwater.simulations.fleet.flight import Flight
    from headwater.simulations.fleet.member import Device
    from headwater.simulations.fleet.model import Model
    from headwater.simulations.fleet.routes import Routes


class Teller:
    """Speaks to the controllers of a class of devices."""

    def __init__(self, model: Model, clock: Clock, routes: Routes) -> None:
        """Of devices of this model and clock."""
        self._routes = routes
        self._local = model.exit is not None
        self._now = Situation(
            deadline_ms=model.deadline_ms,
            interval_ms=clock.interval_s * 1e3,
            exit_available=self._local,
            whole_ms=model.slow_whole_ms,
        )
        self._told = Observation(0, 0, 0.0, 0.0, 0.0, "answered")
        self._now_fields, self._fields = vars(self._now), vars(self._told)
        self._fresh = dict(self._fields)

    def situation(self, device: Device, taken_s: float, now_s: float) -> Situation:
        """What is known of a picture that was taken then."""
        now, flights = self._now_fields, device.flights
        now["age_ms"] = (now_s - taken_s) * 1e3
        now["time_s"] = now_s
        if self._routes.outages:
            self._routes.follow(device, now_s)
            now["connected"] = now_s >= device.since_s
        now["held_ms"] = (device.held_s - now_s) * 1e3 if device.held_s > now_s else 0.0
        now["frames_unanswered"] = len(flights)
        if flights:
            now["bytes_unanswered"] = sum([flight.size for flight in flights])
            now["oldest_ms"] = now["silent_ms"] = max(now_s - flights[0].sent_s, 0.0) * 1e3
        else:
            now["bytes_unanswered"], now["oldest_ms"], now["silent_ms"] = 0, 0.0, 0.0
        return self._now

    def here(self, device: Device, mode: int, fate: Fate, now_s: float, flight: Flight | None = None) -> None:
        """Tell the controller of a picture that was not sent."""
        told = self._fields
        told.update(self._fresh)
        told["mode"], told["outcome"], told["attempts"], told["time_s"] = mode, fate, 0, now_s
        if flight is not None:
            told["prepare_ms"], told["head_ms"], told["exit_ms"] = flight.prepare_ms, flight.head_ms, flight.exit_ms
            told["confidence"] = flight.confidence
        device.controller.observe(self._told)

    def catch_up(self, device: Device, now_s: float) -> None:
        """Tell the controller what has become known of the frames on their way, and forget those that have landed."""
        flights = device.flights
        if len(flights) == 1:
            (flight,) = flights
            if flight.back_s <= now_s and flight.back_s <= flight.due_s:
                if not flight.told:  # nor is a new controller told of what was sent before it
                    self._answered(device, flight)
                device.flights = []
                return
        news: list[tuple[float, int, Flight]] = []
        for number, flight in enumerate(flights):
            first_s = flight.back_s if flight.back_s <= flight.due_s else max(flight.due_s, flight.sent_s)
            if not flight.told and first_s <= now_s:
                news.append((first_s, number, flight))
            if flight.due_s < flight.back_s <= now_s:
                news.append((flight.back_s, number + len(flights), flight))
        for time_s, _, flight in sorted(news, key=_first_two):
            if flight.back_s <= flight.due_s:
                self._answered(device, flight)
            elif not flight.told:
                self._given_up(device, flight, time_s)
            else:
                self._late(device, flight)
        device.flights = [flight for flight in flights if flight.back_s > now_s and not (flight.gone and flight.told)]

    def _answered(self, device: Device, flight: Flight) -> None:
        flight.told = True
        told = self._fields
        told.update(self._fresh)
        flight.observed(told)
        told["prepare_ms"], told["head_ms"], told["exit_ms"] = flight.prepare_ms, flight.head_ms, flight.exit_ms
        told["code_ms"], told["confidence"] = flight.code_ms, flight.confidence
        told["time_s"], told["round_trip_ms"] = flight.back_s, (flight.back_s - flight.sent_s) * 1e3
        device.controller.observe(self._told)

    def _given_up(self, device: Device, flight: Flight, time_s: float) -> None:
        flight.told = True
        told = self._fields
        told.update(self._fresh)
        flight.observed(told)
        told["outcome"] = "expired" if not self._local else "local"
        told["prepare_ms"], told["head_ms"], told["exit_ms"] = flight.prepare_ms, flight.head_ms, flight.exit_ms
        told["code_ms"], told["confidence"] = flight.code_ms, flight.confidence
        told["server_ms"] = 0.0
        told["time_s"], told["waited_ms"] = time_s, max(time_s - flight.sent_s, 0.0) * 1e3
        device.controller.observe(self._told)

    def _late(self, device: Device, flight: Flight) -> None:
        told = self._fields
        told.update(self._fresh)
        flight.observed(told)
        told["outcome"] = "late"
        told["time_s"], told["round_trip_ms"] = flight.back_s, (flight.back_s - flight.sent_s) * 1e3
        device.controller.observe(self._told)


def _first_two(entry: tuple[float, int, Flight]) -> tuple[float, int]:
    return entry[:2]
