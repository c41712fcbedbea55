"""Which frames wait, which fly, and when the next may be written: the link's book-keeping, without its sockets.

    submit() ──> waiting (by number) ──next()──> flying ──answered()──> the caller's future
                    ▲                               │
                    └──── lost(), or asked to send again ┘

A server that says BUSY halves the window and holds all writing for as long as it asked, longer each time in a row;
every answer opens the window by one again. A frame with a deadline is reported as expired when it has passed; if it
flies by then it keeps its place until the server answers or the connection ends, for it is still in the way.

All times are those of ``time.monotonic()``, in seconds, and come from outside.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from dataclasses import dataclass, field

from headwater.protos import edge_pb2 as pb

MAX_FAULTS = 3
"""How often a frame that the server fails on is tried."""
LEAST_HOLD_S, LONGEST_HOLD_S = 0.02, 5.0
LONGEST_DOUBLING = 8
_AGAIN = {pb.STATUS_BUSY, pb.STATUS_DRAINING, pb.STATUS_INTERNAL, pb.STATUS_CANCELLED}
"""A frame answered so is sent again. CANCELLED: not by us, for then nobody waits; a server withdraws what it cannot
deliver."""


@dataclass(frozen=True)
class Reply:
    """The end of a frame's way."""

    answer: pb.Answer
    """With any status; an own STATUS_EXPIRED where the frame was given up here."""
    attempts: int
    """How often the frame was written."""
    wait_s: float
    """From its being submitted to its last writing."""
    round_trip_s: float | None
    """From there to the answer; None if it was given up."""
    bytes_ahead: int
    """Own bytes that flew when it was written."""


@dataclass
class Counts:
    """What has been counted since the link was opened."""

    answered: int = 0
    """Frames that came back with a final status."""
    resent: int = 0
    """Writings beyond the first of a frame."""
    busy: int = 0
    """Answers that said the server was full."""
    stray: int = 0
    """Answers that nobody waited for any more."""
    expired: int = 0
    """Frames that were given up here."""


@dataclass(order=True)
class Outgoing:
    """A frame that has no answer yet; ordered by its number."""

    sequence: int
    frame: pb.FeatureFrame = field(compare=False)
    future: asyncio.Future[Reply] = field(compare=False)
    give_up_s: float | None = field(compare=False)
    submitted_s: float = field(compare=False)
    written_s: float = field(default=0.0, compare=False)
    attempts: int = field(default=0, compare=False)
    faults: int = field(default=0, compare=False)
    bytes_ahead: int = field(default=0, compare=False)


class Window:
    """The frames of one session that have no answer yet."""

    def __init__(self, size: int, rng: random.Random) -> None:
        """At most ``size`` frames fly; the server may allow fewer."""
        self.counts = Counts()
        self.flying: dict[int, Outgoing] = {}
        self.draining = False
        """The server is stopping: nothing more is written on this connection."""
        self._size = self._allowed = size
        self._rng = rng
        self._sequence = 0
        self._waiting: list[Outgoing] = []
        self._limit = float(size)
        self._hold_until_s = 0.0
        self._busy_in_a_row = 0

    @property
    def unanswered(self) -> int:
        """Frames that wait or fly."""
        return len(self.flying) + sum(not outgoing.future.done() for outgoing in self._waiting)

    @property
    def bytes_flying(self) -> int:
        """Bytes of the frames that fly."""
        return sum(len(outgoing.frame.data) for outgoing in self.flying.values())

    @property
    def resume_from(self) -> int:
        """The lowest number that has no answer yet."""
        return min((out.sequence for out in self._waiting if not out.future.done()), default=self._sequence + 1)

    def number(self) -> int:
        """Take the next number for a frame that is not sent."""
        self._sequence += 1
        return self._sequence

    def submit(self, frame: pb.FeatureFrame, now_s: float, give_up_s: float | None = None) -> Outgoing:
        """Number a frame and let it wait for its turn."""
        frame.sequence = self.number()
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        outgoing = Outgoing(frame.sequence, frame, future, give_up_s, now_s)
        heapq.heappush(self._waiting, outgoing)
        return outgoing

    def next(self, now_s: float) -> Outgoing | None:
        """Take the next frame to write; None while none waits, the window is full or writing is held."""
        if self.draining or now_s < self._hold_until_s:
            return None
        while self._waiting and len(self.flying) < int(self._limit):
            outgoing = heapq.heappop(self._waiting)
            if not outgoing.future.done():
                self._fly(outgoing, now_s)
                return outgoing
        return None

    def _fly(self, outgoing: Outgoing, now_s: float) -> None:
        self.counts.resent += outgoing.attempts > 0
        outgoing.attempts += 1
        outgoing.bytes_ahead, outgoing.written_s = self.bytes_flying, now_s
        if outgoing.give_up_s is not None:
            outgoing.frame.deadline_ms = max(int((outgoing.give_up_s - now_s) * 1e3), 1)
        self.flying[outgoing.sequence] = outgoing

    def held_for_s(self, now_s: float) -> float | None:
        """How long a waiting frame is held because the server was full; None if none is."""
        return self._hold_until_s - now_s if self._waiting and self._hold_until_s > now_s else None

    def greeted(self, max_in_flight: int) -> None:
        """Begin a connection whose server allows so many frames to fly (0: it does not say)."""
        self._allowed = min(self._size, max_in_flight or self._size)
        self._limit = float(self._allowed)
        self.draining = False

    def lost(self) -> None:
        """End a connection: what flew waits again, but for frames that nobody waits for any more."""
        for outgoing in self.flying.values():
            if not outgoing.future.done():
                heapq.heappush(self._waiting, outgoing)
        self.flying.clear()

    def answered(self, answer: pb.Answer, now_s: float) -> bool:
        """Take an answer; True if it is the end of a frame's way."""
        outgoing = self.flying.pop(answer.sequence, None)
        if outgoing is None or outgoing.future.done():
            self.counts.stray += 1
            return False
        if answer.status in _AGAIN and self._again(outgoing, answer, now_s):
            heapq.heappush(self._waiting, outgoing)
            return False
        self.counts.answered += 1
        self._busy_in_a_row = 0
        self._limit = min(self._limit + 1, self._allowed)
        round_trip_s = now_s - outgoing.written_s
        outgoing.future.set_result(_reply(outgoing, answer, outgoing.written_s, round_trip_s))
        return True

    def give_up(self, outgoing: Outgoing, now_s: float) -> None:
        """Report a frame as expired, unless it has been answered."""
        if not outgoing.future.done():
            self.counts.expired += 1
            detail = "no answer before the deadline" if outgoing.attempts else "not sent before the deadline"
            answer = pb.Answer(sequence=outgoing.sequence, status=pb.STATUS_EXPIRED, detail=detail)
            outgoing.future.set_result(_reply(outgoing, answer, outgoing.written_s or now_s, None))

    def fail_all(self, error: Exception) -> None:
        """End the way of every frame with an error."""
        for outgoing in [*self._waiting, *self.flying.values()]:
            if not outgoing.future.done():
                outgoing.future.set_exception(error)
        self._waiting.clear()
        self.flying.clear()

    def _again(self, outgoing: Outgoing, answer: pb.Answer, now_s: float) -> bool:
        """Prepare for sending a frame again; False if the server failed on it too often."""
        if answer.status == pb.STATUS_DRAINING:
            self.draining = True
        elif answer.status == pb.STATUS_BUSY:
            self.counts.busy += 1
            self._slow_down(answer.timing.retry_after_ms / 1e3, now_s)
        else:
            outgoing.faults += 1
            return outgoing.faults < MAX_FAULTS
        return True

    def _slow_down(self, retry_after_s: float, now_s: float) -> None:
        if now_s < self._hold_until_s:
            return  # the rest of a window that met the same full queue
        self._limit = max(self._limit / 2, 1.0)
        hold_s = max(retry_after_s, LEAST_HOLD_S) * 2**self._busy_in_a_row * self._rng.uniform(1.0, 1.5)
        self._busy_in_a_row = min(self._busy_in_a_row + 1, LONGEST_DOUBLING)
        self._hold_until_s = now_s + min(hold_s, max(LONGEST_HOLD_S, retry_after_s))


def _reply(outgoing: Outgoing, answer: pb.Answer, written_s: float, round_trip_s: float | None) -> Reply:
    wait_s = written_s - outgoing.submitted_s
    return Reply(answer, outgoing.attempts, wait_s, round_trip_s, outgoing.bytes_ahead)
