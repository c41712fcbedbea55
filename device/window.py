"""Which frames wait, which fly, and when the next may be written: the link's book-keeping, without its sockets.

    submit() ──> waiting (by number) ──next()──> flying ──answered()──> the caller's future
                    ▲                               │
                    └──── lost(), or asked to send again ┘

A server that says BUSY halves the window and holds all writing for as long as it asked, longer each time in a row;
every answer opens the window by one again. A frame with a deadline is reported as expired when it has passed; if it
flies by then it keeps its place until the server answers or the connection ends, for it is still in the way. Its
answer, if one comes, goes to ``on_late``: nobody waits for it any more, but it tells what the way takes.

A frame in parts (compression/parts.py) flies from its first part on; the others follow for as long as somebody waits
for the answer. Its deadline is told to the server shorter by what a first part and an answer take on the way.

All times are those of ``time.monotonic()``, in seconds, and come from outside.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from headwater.compression.parts import Part
from headwater.protos import edge_pb2 as pb

MAX_FAULTS = 3
"""How often a frame that the server fails on is tried."""
LEAST_HOLD_S, LONGEST_HOLD_S = 0.02, 5.0
LONGEST_DOUBLING = 8
WAYS = 4
"""Frames in parts that the time on the way is judged by: the slowest of them."""
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
    bytes_written: int = 0
    """Of the frame with its header, at its last writing: of a frame in parts those parts that were written."""
    bytes_used: int = 0
    """The same, of those parts that the answer was made from; 0 where the server does not say."""


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
    """Answers to frames that were withdrawn or answered already."""
    expired: int = 0
    """Frames that were given up here."""
    late: int = 0
    """Frames that were given up here and then came back with a final status."""


@dataclass(order=True)
class Outgoing:
    """A frame that has no answer yet; ordered by its number."""

    sequence: int
    frame: pb.FeatureFrame = field(compare=False)
    """Of a frame in parts, the first part."""
    future: asyncio.Future[Reply] = field(compare=False)
    give_up_s: float | None = field(compare=False)
    submitted_s: float = field(compare=False)
    written_s: float = field(default=0.0, compare=False)
    attempts: int = field(default=0, compare=False)
    faults: int = field(default=0, compare=False)
    bytes_ahead: int = field(default=0, compare=False)
    parts: Sequence[Part] = field(default=(), compare=False)
    """Empty for a frame that is written whole."""
    written: int = field(default=0, compare=False)
    """Parts that have been written on this connection."""

    @property
    def size(self) -> int:
        """Bytes of the frame with its headers, all parts together."""
        return sum(len(part.data) for part in self.parts) or len(self.frame.data)

    def message(self, agreed: bytes) -> pb.FeatureFrame:
        """As it is written: 34 bytes shorter where it is of the bundle that both ends agreed on."""
        if self.frame.bundle_id != agreed:
            return self.frame
        written = pb.FeatureFrame()
        written.CopyFrom(self.frame)
        written.ClearField("bundle_id")
        return written


class Window:
    """The frames of one session that have no answer yet."""

    def __init__(self, size: int, rng: random.Random, on_late: Callable[[Reply], None] = lambda _: None) -> None:
        """At most ``size`` frames fly; the server may allow fewer.

        ``on_late`` gets the final answer of a frame that was given up, with its round trip; its caller has long had a
        reply of the same sequence with STATUS_EXPIRED.
        """
        self.counts = Counts()
        self.flying: dict[int, Outgoing] = {}
        self.idle = asyncio.Event()
        """Set while no frame waits or flies: what is large and can wait is sent then (courier.py)."""
        self.idle.set()
        self.submitted_s = -math.inf
        """When the last frame came."""
        self.draining = False
        """The server is stopping: nothing more is written on this connection."""
        self.hold_until_s = 0.0
        """The server was full: nothing is written before this moment."""
        self._size = self._allowed = size
        self._rng = rng
        self._on_late = on_late
        self._sequence = 0
        self._stopped = ""
        self._waiting: list[Outgoing] = []
        self._limit = float(size)
        self._busy_in_a_row = 0
        self._begun: deque[Outgoing] = deque()
        self._ways_s: deque[float] = deque(maxlen=WAYS)
        self._greeting_s = 0.0

    @property
    def way_s(self) -> float:
        """What a first part takes to the server and its answer back, at the slow end of the last ones."""
        return max(self._ways_s, default=self._greeting_s)

    @property
    def unanswered(self) -> int:
        """Frames that wait or fly."""
        return len(self.flying) + sum(not outgoing.future.done() for outgoing in self._waiting)

    def quiet(self, now_s: float) -> bool:
        """Whether no frame waits and writing is not held, so that something else may be written."""
        held = self.draining or now_s < self.hold_until_s
        return not held and all(outgoing.future.done() for outgoing in self._waiting)

    @property
    def bytes_flying(self) -> int:
        """Bytes of the frames that fly."""
        return sum(outgoing.size for outgoing in self.flying.values())

    @property
    def resume_from(self) -> int:
        """The lowest number that has no answer yet."""
        return min((out.sequence for out in self._waiting if not out.future.done()), default=self._sequence + 1)

    def number(self) -> int:
        """Take the next number for a frame that is not sent."""
        self._sequence += 1
        return self._sequence

    def submit(
        self, frame: pb.FeatureFrame, now_s: float, give_up_s: float | None = None, parts: Sequence[Part] = ()
    ) -> Outgoing:
        """Number a frame and let it wait for its turn; of a frame in parts, ``frame`` says all but the data."""
        frame.sequence = self.number()
        if parts:
            frame.data, frame.groups = parts[0].data, parts[-1].groups
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        outgoing = Outgoing(frame.sequence, frame, future, give_up_s, now_s, parts=parts)
        heapq.heappush(self._waiting, outgoing)
        self.submitted_s = now_s
        self.idle.clear()
        future.add_done_callback(lambda _: self._mark())  # answered, given up, or withdrawn
        if self._stopped:
            self._cancel(outgoing, now_s)
        return outgoing

    def _mark(self) -> None:
        if not self.unanswered:
            self.idle.set()

    def next(self, now_s: float) -> Outgoing | None:
        """Take the next frame to write; None while none waits, the window is full or writing is held."""
        if self.draining or now_s < self.hold_until_s:
            return None
        while self._waiting and len(self.flying) < int(self._limit):
            outgoing = heapq.heappop(self._waiting)
            if not outgoing.future.done():
                self._fly(outgoing, now_s)
                return outgoing
        return None

    def next_part(self) -> pb.FeatureFrame | None:
        """Take the next part of the frame that was begun first; None if all are written, or nobody waits for them."""
        while self._begun:
            outgoing = self._begun[0]
            flies = self.flying.get(outgoing.sequence) is outgoing
            if flies and not outgoing.future.done() and outgoing.written < len(outgoing.parts):
                return self._part(outgoing)
            self._begun.popleft()
        return None

    @staticmethod
    def _part(outgoing: Outgoing) -> pb.FeatureFrame:
        number = outgoing.written
        outgoing.written += 1
        data, groups = outgoing.parts[number].data, outgoing.frame.groups
        return pb.FeatureFrame(sequence=outgoing.sequence, data=data, groups=groups, part=number)

    def _fly(self, outgoing: Outgoing, now_s: float) -> None:
        self.counts.resent += outgoing.attempts > 0
        outgoing.attempts += 1
        outgoing.bytes_ahead, outgoing.written_s = self.bytes_flying, now_s
        if outgoing.parts:
            self._begun.append(outgoing)
            outgoing.written = 1
        if outgoing.give_up_s is not None:
            # A whole frame that is late need not be run; parts are to be answered so early that the answer is in time.
            way_s = self.way_s if outgoing.parts else 0.0
            outgoing.frame.deadline_ms = max(int((outgoing.give_up_s - now_s - way_s) * 1e3), 1)
        self.flying[outgoing.sequence] = outgoing

    def held_for_s(self, now_s: float) -> float | None:
        """How long a waiting frame is held because the server was full; None if none is."""
        return self.hold_until_s - now_s if self._waiting and self.hold_until_s > now_s else None

    def greeted(self, max_in_flight: int, greeting_s: float = 0.0) -> None:
        """Begin a connection whose server allows so many frames to fly (0: it does not say).

        ``greeting_s``, from hello to welcome, stands for a first part's way and back until there has been one.
        """
        self._ways_s.clear()
        self._greeting_s = greeting_s
        self._allowed = min(self._size, max_in_flight or self._size)
        self._limit = float(self._allowed)
        self.draining = False

    def lost(self) -> None:
        """End a connection: what flew waits again, but for frames that nobody waits for any more."""
        for outgoing in self.flying.values():
            if not outgoing.future.done():
                heapq.heappush(self._waiting, outgoing)
        self.flying.clear()
        self._mark()

    def answered(self, answer: pb.Answer, now_s: float) -> bool:
        """Take an answer; True if it is the end of a frame's way, in time or late."""
        outgoing = self.flying.pop(answer.sequence, None)
        if outgoing is None:
            self.counts.stray += 1
            return False
        final = self._judge(outgoing, answer, now_s)
        self._mark()
        return final

    def _judge(self, outgoing: Outgoing, answer: pb.Answer, now_s: float) -> bool:
        if outgoing.parts and answer.status == pb.STATUS_OK:
            self._learn_way(outgoing, answer.timing, now_s)
        again = answer.status in _AGAIN and self._again(outgoing, answer, now_s)
        if outgoing.future.cancelled():
            self.counts.stray += 1
            return False
        if again:
            if not outgoing.future.done():
                heapq.heappush(self._waiting, outgoing)
            return False
        self._busy_in_a_row = 0
        self._limit = min(self._limit + 1, self._allowed)
        self._deliver(outgoing, _reply(outgoing, answer, outgoing.written_s, now_s - outgoing.written_s))
        return True

    def _deliver(self, outgoing: Outgoing, reply: Reply) -> None:
        if outgoing.future.done():
            self.counts.late += 1
            self._on_late(reply)
        else:
            self.counts.answered += 1
            outgoing.future.set_result(reply)

    def give_up(self, outgoing: Outgoing, now_s: float) -> None:
        """Report a frame as expired, unless it has been answered."""
        if not outgoing.future.done():
            self.counts.expired += 1
            detail = "no answer before the deadline" if outgoing.attempts else "not sent before the deadline"
            answer = pb.Answer(sequence=outgoing.sequence, status=pb.STATUS_EXPIRED, detail=detail)
            outgoing.future.set_result(_reply(outgoing, answer, outgoing.written_s or now_s, None))

    def stop(self, why: str, now_s: float) -> None:
        """Report every frame as cancelled that has no answer yet, or comes from now on: nobody waits any longer."""
        self._stopped = why
        for outgoing in [*self._waiting, *self.flying.values()]:
            if not outgoing.future.done():
                self._cancel(outgoing, now_s)

    def _cancel(self, outgoing: Outgoing, now_s: float) -> None:
        answer = pb.Answer(sequence=outgoing.sequence, status=pb.STATUS_CANCELLED, detail=self._stopped)
        outgoing.future.set_result(_reply(outgoing, answer, outgoing.written_s or now_s, None))

    def fail_all(self, error: Exception) -> None:
        """End the way of every frame with an error."""
        for outgoing in [*self._waiting, *self.flying.values()]:
            if not outgoing.future.done():
                outgoing.future.set_exception(error)
        self._waiting.clear()
        self.flying.clear()
        self._mark()

    def _learn_way(self, outgoing: Outgoing, timing: pb.ServerTiming, now_s: float) -> None:
        server_us = timing.collect_us + timing.queue_us + timing.decode_us + timing.run_us
        self._ways_s.append(max(now_s - outgoing.written_s - server_us / 1e6, 0.0))

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
        if now_s < self.hold_until_s:
            return  # the rest of a window that met the same full queue
        self._limit = max(self._limit / 2, 1.0)
        hold_s = max(retry_after_s, LEAST_HOLD_S) * 2**self._busy_in_a_row * self._rng.uniform(1.0, 1.5)
        self._busy_in_a_row = min(self._busy_in_a_row + 1, LONGEST_DOUBLING)
        self.hold_until_s = now_s + min(hold_s, max(LONGEST_HOLD_S, retry_after_s))


def _reply(outgoing: Outgoing, answer: pb.Answer, written_s: float, round_trip_s: float | None) -> Reply:
    wait_s = written_s - outgoing.submitted_s
    if outgoing.parts:
        written = sum(len(part.data) for part in outgoing.parts[: outgoing.written])
        used = sum(len(part.data) for part in outgoing.parts if part.groups <= answer.groups_used)
    else:
        written = used = len(outgoing.frame.data) if outgoing.attempts else 0
    return Reply(answer, outgoing.attempts, wait_s, round_trip_s, outgoing.bytes_ahead, written, used)
