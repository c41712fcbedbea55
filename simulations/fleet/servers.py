"""Servers: the product's own queue (server/batch_queue.py) on the simulation's time.

    frame ── handling ── BatchQueue ── a worker is free, or frames have waited for company ── batch ──> answer

A frame that finds the queue full is refused with the time to come back in; one whose deadline passes is taken out; when
the server goes down, all that it had is lost, and their devices write them again elsewhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from headwater.server.batch_queue import BatchQueue, QueueFullError, State, Ticket
from headwater.simulations.fleet.chance import NORMAL, draw, key_of
from headwater.simulations.fleet.outcome import ServerHour, ServerOutcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater.simulations.fleet.agenda import Agenda
    from headwater.simulations.fleet.flight import Flight
    from headwater.simulations.fleet.links import Gap
    from headwater.simulations.fleet.scenario import Server

    Frame = Ticket[Flight, None]
    Batch = list[Ticket[Flight, None]]


LEAST_LUCK = 0.2
"""Of what a batch takes on average, the least that it may."""


class Station:
    """One server."""

    def __init__(self, name: str, server: Server, agenda: Agenda, seed: int, outages: list[Gap]) -> None:
        """``outages``: from and to when it is down, s, sorted."""
        self.name, self.outages = name, outages
        self.outcome = ServerOutcome(name, server.workers)
        self.handling_s = server.handling_ms / 1e3
        self._batch_s, self._frame_s, self._spread = server.batch_ms / 1e3, server.frame_ms / 1e3, server.spread
        self._queue: BatchQueue[Flight, None] = BatchQueue(server.limits)
        self._agenda = agenda
        self._key, self._batches = key_of("server", name, seed), 0
        self._running: list[Batch] = []
        self._wake_s = math.inf
        self._hour, self._hour_number = ServerHour(), -1
        for from_s, _ in outages:
            agenda.at(from_s, self._fail, None)

    def is_up(self, time_s: float) -> bool:
        """Whether it answers at a time."""
        return is_up(self.outages, time_s)

    def close(self) -> ServerOutcome:
        """What it did."""
        return self.outcome

    # ------------------------------------------------------------ what comes in

    def arrive(self, flight: Flight, now_s: float) -> None:
        """A frame is there."""
        if self.outages and not self.is_up(now_s):
            flight.crew.broken(flight, now_s)
            return
        flight.arrived_s = now_s
        # As in the product, the time that was left when it was written runs from its arrival.
        left_s = max(flight.due_s - flight.sent_s, 1e-3)
        ticket = Ticket(0, flight, _settled, deadline=now_s + left_s)
        try:
            self._queue.push(ticket, now_s)
        except QueueFullError as full:
            self._now(now_s).refused += 1
            flight.crew.refused(flight, now_s, full.retry_after_s)
            return
        if self._queue.waiting == 1 and flight.due_s > now_s and not self._queue.running:
            self._start(self._queue.take(now_s) or [], now_s)  # as a pump would, for most frames
        else:
            self._pump(now_s)

    def _pump(self, now_s: float) -> None:
        queue = self._queue
        for ticket in queue.expire(now_s):
            self._now(now_s).expired += 1
            ticket.work.crew.expired(ticket.work, now_s)
        while queue.waiting and (batch := queue.take(now_s)):
            self._start(batch, now_s)
        if queue.waiting:
            self._arm(queue.wake_at())

    def _arm(self, at_s: float) -> None:
        if at_s < self._wake_s:
            self._wake_s = at_s
            self._agenda.at(at_s, self._wake, at_s)

    def _wake(self, at_s: float, now_s: float) -> None:
        if at_s == self._wake_s:
            self._wake_s = math.inf
            self._pump(now_s)

    # ------------------------------------------------------------ batches

    def _start(self, batch: Batch, now_s: float) -> None:
        self._batches += 1
        took_s = self._took_s(batch)
        hour = self._now(now_s)
        hour.batches += 1
        hour.frames += len(batch)
        hour.busy_s += took_s
        for ticket in batch:
            hour.wait_s += now_s - ticket.arrived
        waited = self._queue.waiting + len(batch)
        hour.most_waiting = max(hour.most_waiting, waited)
        self._running.append(batch)
        self._agenda.at(now_s + took_s, self._finish, batch)

    def _took_s(self, batch: Batch) -> float:
        """What a batch takes."""
        luck = 1 + self._spread * NORMAL[draw(self._key, self._batches) & 4095]
        return (self._batch_s + self._frame_s * len(batch)) * max(luck, LEAST_LUCK)

    def _finish(self, batch: Batch, now_s: float) -> None:
        if batch not in self._running:  # the server went down meanwhile
            return
        self._running.remove(batch)
        self._queue.finish(batch, now_s, [None] * len(batch))
        if self._queue.waiting:
            self._pump(now_s)
        for ticket in batch:
            flight = ticket.work
            flight.batch = len(batch)
            flight.crew.served(flight, ticket.started, now_s)

    # ------------------------------------------------------------ going down

    def _fail(self, _: Any, now_s: float) -> None:  # noqa: ANN401 - nothing
        """Lose all that waits and runs."""
        lost = [ticket for batch in self._running for ticket in batch]
        for batch in self._running:
            self._queue.finish(batch, now_s, None)
        self._running = []
        while self._queue.waiting:
            batch = self._queue.take(now_s) or []
            self._queue.finish(batch, now_s, None)
            lost += batch
        for ticket in lost:
            ticket.work.crew.broken(ticket.work, now_s)

    def _now(self, now_s: float) -> ServerHour:
        number = int(now_s / 3600)
        if number != self._hour_number:
            self._hour = self.outcome.hours.setdefault(number, ServerHour())
            self._hour_number = number
        return self._hour


def is_up(outages: Iterable[Gap], time_s: float) -> bool:
    """Whether a server answers at a time."""
    return not any(from_s <= time_s < to_s for from_s, to_s in outages)


def _settled(ticket: Frame) -> None:
    """Nobody waits on an event loop here."""
    assert ticket.state is not State.NEW
