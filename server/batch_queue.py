"""The rules of dynamic batching: which waiting frames run together, and when.

Plain state without a clock or a thread of its own, so that a simulator runs the very same rules on its own time;
:class:`headwater.server.batcher.Batcher` drives them in the server.

    idle        a frame is run at once, with whatever arrived in the same turn of the event loop
    busy        while a batch runs and a worker is free, frames wait up to `max_wait_s` for company;
                a batch of `max_batch` never waits
    full        `capacity` frames wait: one more is refused at once (exactly: running frames do not count)
    priority    9 first, 0 last; first come, first served within one
    deadline    a frame whose deadline has passed is taken out and never run; so is a cancelled one

A batch holds frames of one *group* (a bundle). Times are seconds of one monotonic clock.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

WorkT = TypeVar("WorkT")
ResultT = TypeVar("ResultT")
PRIORITIES = 10
_NEWEST_WEIGHT = 0.2  # of the newest batch in the moving means


class State(enum.Enum):
    """Where a ticket is; the last four are final."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(slots=True, eq=False)
class Ticket(Generic[WorkT, ResultT]):
    """One frame's place in the queue."""

    group: Hashable
    """Frames of one group may share a batch."""
    work: WorkT
    settle: Callable[[Ticket[WorkT, ResultT]], None]
    """Called once, on the event loop, when the state is final."""
    priority: int = 0
    deadline: float = math.inf
    arrived: float = 0.0
    started: float = 0.0
    depth: int = 0
    """Frames that waited when this one arrived."""
    state: State = State.NEW
    result: ResultT | None = None
    """Set when the state is DONE."""


class QueueFullError(Exception):
    """The queue holds as many frames as it may."""

    def __init__(self, capacity: int, retry_after_s: float) -> None:
        super().__init__(f"{capacity} frames wait already; a place is expected in {retry_after_s * 1000:.0f} ms")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Limits:
    """The rules' numbers."""

    capacity: int = 256
    max_batch: int = 32
    max_wait_s: float = 0.002
    workers: int = 1


@dataclass
class Counts:
    """What happened to frames since the start; each accepted frame ends in exactly one of the last four."""

    accepted: int = 0
    refused: int = 0
    run: int = 0
    failed: int = 0
    expired: int = 0
    cancelled: int = 0


@dataclass
class _Lane(Generic[WorkT, ResultT]):
    """The waiting tickets of a group: a queue a priority, in order of arrival; settled ones are skipped when met."""

    queues: dict[int, deque[Ticket[WorkT, ResultT]]] = field(default_factory=dict)
    """Of the priorities that have been asked for, the highest first."""
    waiting: int = 0
    held: int = 0
    """Tickets in the queues, settled ones included."""
    _oldest: Ticket[WorkT, ResultT] | None = None

    def add(self, ticket: Ticket[WorkT, ResultT]) -> None:
        """Append a waiting ticket to the queue of its priority."""
        queue = self.queues.get(ticket.priority)
        if queue is None:
            queue = self._queue(min(max(ticket.priority, 0), PRIORITIES - 1))
        queue.append(ticket)
        self.waiting += 1
        self.held += 1

    def _queue(self, priority: int) -> deque[Ticket[WorkT, ResultT]]:
        if priority not in self.queues:
            self.queues = dict(sorted([*self.queues.items(), (priority, deque())], reverse=True))
        return self.queues[priority]

    def first(self) -> Ticket[WorkT, ResultT]:
        """The most urgent of the waiting tickets; there is one."""
        self._drop_settled()
        return next(queue[0] for queue in self.queues.values() if queue)

    def oldest(self) -> float:
        """When the ticket arrived that has waited longest; there is one.

        Asked several times a frame, so it is kept: what comes later is no older than one that waits.
        """
        if self._oldest is None or self._oldest.state is not State.WAITING:
            self._drop_settled()
            self._oldest = min((queue[0] for queue in self.queues.values() if queue), key=lambda ticket: ticket.arrived)
        return self._oldest.arrived

    def _drop_settled(self) -> None:
        """Let every queue begin with a waiting ticket."""
        for queue in self.queues.values():
            while queue and queue[0].state is not State.WAITING:
                queue.popleft()
                self.held -= 1

    def pop(self, count: int) -> list[Ticket[WorkT, ResultT]]:
        """Take the most urgent tickets out."""
        taken: list[Ticket[WorkT, ResultT]] = []
        for queue in self.queues.values():
            while queue and len(taken) < count:
                ticket = queue.popleft()
                self.held -= 1
                if ticket.state is State.WAITING:
                    taken.append(ticket)
        self.waiting -= len(taken)
        return taken

    def compact(self) -> None:
        """Forget settled tickets, so that a client that submits and cancels cannot grow the queues."""
        for priority, queue in self.queues.items():
            self.queues[priority] = deque(ticket for ticket in queue if ticket.state is State.WAITING)
        self.held = self.waiting


class BatchQueue(Generic[WorkT, ResultT]):
    """The rules, on plain state. The caller brings the time (never going back) and runs what :meth:`take` gives."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.counts = Counts()
        self.waiting = 0
        self.running = 0
        self._lanes: dict[Hashable, _Lane[WorkT, ResultT]] = {}
        self._deadlines: list[tuple[float, int, Ticket[WorkT, ResultT]]] = []
        self._pace_s = 0.0
        self._batch_s = 0.0

    def push(self, ticket: Ticket[WorkT, ResultT], now: float) -> None:
        """Let a ticket wait; raises :class:`QueueFullError` at once when `capacity` wait already."""
        if self.waiting >= self.limits.capacity:
            self.counts.refused += 1
            raise QueueFullError(self.limits.capacity, self.retry_after())
        self.counts.accepted += 1
        ticket.arrived, ticket.depth, ticket.state = now, self.waiting, State.WAITING
        lane = self._lanes.get(ticket.group)
        if lane is None:
            lane = self._lanes[ticket.group] = _Lane()
        lane.add(ticket)
        self.waiting += 1
        if ticket.deadline < math.inf:
            heapq.heappush(self._deadlines, (ticket.deadline, self.counts.accepted, ticket))
        self._bound(lane)

    def cancel(self, ticket: Ticket[WorkT, ResultT]) -> bool:
        """Withdraw a waiting ticket: True, and it never runs; False if it runs already or is settled."""
        if ticket.state is not State.WAITING:
            return False
        self._withdraw(ticket, State.CANCELLED)
        self.counts.cancelled += 1
        return True

    def expire(self, now: float) -> list[Ticket[WorkT, ResultT]]:
        """Take out the tickets whose deadline has come; they never run."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, ticket = heapq.heappop(self._deadlines)
            if ticket.state is State.WAITING:
                self._withdraw(ticket, State.EXPIRED)
                expired.append(ticket)
        self.counts.expired += len(expired)
        return expired

    def take(self, now: float) -> list[Ticket[WorkT, ResultT]] | None:
        """The next batch, if one should start now; call :meth:`expire` before and :meth:`finish` after running it."""
        if not self.waiting or self.running >= self.limits.workers:
            return None
        lane = self._due(now)
        if lane is None:
            return None
        batch = lane.pop(self.limits.max_batch)
        self.waiting -= len(batch)
        self.running += 1
        for ticket in batch:
            ticket.started, ticket.state = now, State.RUNNING
        return batch

    def _due(self, now: float) -> _Lane[WorkT, ResultT] | None:
        """The most urgent lane whose batch should start now."""
        if len(self._lanes) == 1:  # one bundle, as mostly
            (lane,) = self._lanes.values()
            return lane if self._ready_at(lane) <= now else None
        return next((lane for _, lane in self._by_urgency() if self._ready_at(lane) <= now), None)

    def finish(self, batch: Sequence[Ticket[WorkT, ResultT]], now: float, results: Sequence[ResultT] | None) -> None:
        """Settle a batch that ran; `results` is None if running it failed."""
        self.running -= 1
        for index, ticket in enumerate(batch):
            ticket.state = State.FAILED if results is None else State.DONE
            ticket.result = None if results is None else results[index]
        if results is None:
            self.counts.failed += len(batch)
        else:
            self.counts.run += len(batch)
        took_s = now - batch[0].started
        # One worker's seconds a frame; the workers share them.
        self._pace_s = _mean(self._pace_s, took_s / len(batch) / self.limits.workers)
        self._batch_s = _mean(self._batch_s, took_s)

    def wake_at(self) -> float:
        """When :meth:`expire` or :meth:`take` has to be called again if nothing else happens; may be infinite."""
        while self._deadlines and self._deadlines[0][2].state is not State.WAITING:
            heapq.heappop(self._deadlines)
        at = self._deadlines[0][0] if self._deadlines else math.inf
        if self.waiting and self.running < self.limits.workers:
            for lane in self._lanes.values():
                if lane.waiting and (ready := self._ready_at(lane)) < at:
                    at = ready
        return at

    def retry_after(self) -> float:
        """Seconds in which what waits now will have been run, at the pace of the last batches; 0 before the first."""
        return self._pace_s * self.waiting

    def expected_s(self) -> float:
        """Seconds from pushing a frame now to the end of its batch, as the last batches went; 0 before the first."""
        company_s = self.limits.max_wait_s if self.running else 0.0
        batches = 2 if self.running >= self.limits.workers else 1  # one that runs may just have begun
        return self.retry_after() + company_s + batches * self._batch_s

    def _by_urgency(self) -> list[tuple[tuple[int, float], _Lane[WorkT, ResultT]]]:
        """Lanes with waiting tickets, the one with the highest priority and then the oldest ticket first."""
        keyed = []
        for lane in self._lanes.values():
            if lane.waiting:
                first = lane.first()
                keyed.append(((-first.priority, first.arrived), lane))
        return sorted(keyed, key=lambda pair: pair[0])

    def _ready_at(self, lane: _Lane[WorkT, ResultT]) -> float:
        """When a free worker should start this lane's next batch."""
        if self.running == 0 or lane.waiting >= self.limits.max_batch:
            return -math.inf
        return lane.oldest() + self.limits.max_wait_s

    def _withdraw(self, ticket: Ticket[WorkT, ResultT], state: State) -> None:
        ticket.state = state
        self.waiting -= 1
        lane = self._lanes[ticket.group]
        lane.waiting -= 1
        self._bound(lane)

    def _bound(self, lane: _Lane[WorkT, ResultT]) -> None:
        """Keep what is remembered of settled tickets within a small multiple of those that may wait."""
        limit = 2 * self.limits.capacity + 64
        if lane.held > limit:
            lane.compact()
        if len(self._deadlines) > limit:
            self._deadlines = [entry for entry in self._deadlines if entry[2].state is State.WAITING]
            heapq.heapify(self._deadlines)

    def forget(self, group: Hashable) -> None:
        """Drop the (empty) lane of a group that will not come again."""
        lane = self._lanes.get(group)
        if lane is not None and not lane.waiting:
            del self._lanes[group]


def _mean(mean: float, newest: float) -> float:
    """The moving mean with its newest value; the first value begins it."""
    return newest if mean == 0.0 else mean + _NEWEST_WEIGHT * (newest - mean)
