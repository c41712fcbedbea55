"""One device agent's frames, across the streams that it opens: what is pending, and what was answered lately.

A *session* is one run of an agent (its random number in `Hello`). It outlives a stream: when a connection breaks, the
agent connects again and sends what has no answer yet under the same numbers, and the session sees to it that no frame
is run twice: one that is still being run is answered on the new stream, one that was run is answered from memory.

Nothing here grows with what a device does: at most `max_in_flight` frames of a session are pending or unread by the
device, as many answers are remembered, and :class:`Sessions` keeps a bounded number of sessions.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable

from headwater.protos import edge_pb2 as pb
from headwater.server.admission import Admission, Refusal, Wish
from headwater.server.batch_queue import State
from headwater.server.engine import InferenceTicket, refusal
from headwater.server.metrics import Metrics
from headwater.server.parts import Collector, Open
from headwater.server.registry import Served

_STATUS = {
    State.FAILED: (pb.STATUS_INTERNAL, "the server failed on the batch of this frame; it may be sent again"),
    State.EXPIRED: (pb.STATUS_EXPIRED, "the deadline passed before the frame was run"),
    State.CANCELLED: (pb.STATUS_CANCELLED, "withdrawn before it was run"),
}


def settled_answer(ticket: InferenceTicket) -> pb.ServerMessage:
    """The answer of a ticket whose state is final, in the message that a stream sends."""
    if ticket.result is not None:
        return ticket.result
    return refusal(*_STATUS[ticket.state], ticket.work.sequence)


class Outbox:
    """Messages on their way to a device, written one after the other; its reader waits while it is full."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._messages: deque[pb.ServerMessage] = deque()
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def full(self) -> bool:
        """Whether the device has to be held back until there is :meth:`room`."""
        return len(self._messages) >= self._limit

    def put(self, message: pb.ServerMessage) -> None:
        """Append a message; never waits."""
        self._messages.append(message)
        self._some.set()

    def close(self) -> None:
        """Let :meth:`run` return once everything is written."""
        self._closed = True
        self._some.set()

    async def room(self) -> None:
        """Wait while the device reads slower than it sends, so that the transport holds it back."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    async def run(self, write: Callable[[pb.ServerMessage], Awaitable[None]]) -> None:
        """Write messages until :meth:`close`."""
        while True:
            while self._messages:
                await write(self._messages[0])
                self._messages.popleft()  # after the write: a message that is being written still counts
                self._room.set()
            if self._closed:
                return
            self._some.clear()
            await self._some.wait()


class Session:
    """The frames of one agent; used on the event loop only."""

    def __init__(
        self,
        device: str,
        admission: Admission,
        metrics: Metrics,
        max_in_flight: int,
        partial_after_s: float = math.inf,
    ) -> None:
        self.device = device
        self.report: pb.Report | None = None
        """The last report of the device."""
        self.outbox: Outbox | None = None
        self.frame_s = -math.inf
        """When the last frame came, by the event loop's clock."""
        self.pending: dict[int, InferenceTicket] = {}
        self.parts = Collector(admission, self._queue_parts, partial_after_s)
        """Frames of which not all parts have come."""
        self._admission = admission
        self._metrics = metrics
        self._max_in_flight = max_in_flight
        self._answered: OrderedDict[int, pb.ServerMessage] = OrderedDict()
        self._quiet = asyncio.Event()
        self._quiet.set()

    def attach(self, outbox: Outbox, resume_from: int) -> None:
        """Answer on this stream from now on; what the device has answers for is forgotten."""
        self.outbox = outbox
        self.parts.withdraw_all()  # they come again from their first parts
        for sequence in [number for number in self._answered if number < resume_from]:
            del self._answered[sequence]

    def detach(self, outbox: Outbox) -> None:
        """The stream has ended: what waits is withdrawn, because nobody would read the answer."""
        if self.outbox is not outbox:
            return  # a newer stream of the same agent took over
        self.end_of_input(outbox)
        self.outbox = None
        for ticket in list(self.pending.values()):
            self._admission.batcher.cancel(ticket)

    def end_of_input(self, outbox: Outbox) -> None:
        """The stream brings no more parts: frames that lack some are withdrawn, unless a newer stream brings them."""
        if self.outbox is not outbox:
            return
        for sequence in self.parts.withdraw_all():
            self._refuse(sequence, Refusal(pb.STATUS_CANCELLED, "the stream ended before all parts of the frame came"))

    async def quiet(self) -> None:
        """Wait until no frame is pending."""
        await self._quiet.wait()

    def frame(self, served: Served | None, message: pb.FeatureFrame) -> None:
        """Take a frame or a part of one: it is queued or collected, or answered at once.

        ``served``: the bundle of frames that name none; None where the device uses one that is not served here.
        """
        self.frame_s = asyncio.get_running_loop().time()
        sequence = message.sequence
        if message.part:
            if not self.parts.add(message):
                self._metrics.count_late_part()
        elif (known := self._answered.get(sequence)) is not None:
            self._metrics.count_resent()
            self._put(known)
        elif sequence not in self.pending and sequence not in self.parts:
            try:
                self._admit(served, message)
            except Refusal as why:
                self._refuse(sequence, why)

    def cancel(self, sequence: int) -> None:
        """Withdraw a frame; one that runs already is answered, one that is not known is left alone."""
        if (ticket := self.pending.get(sequence)) is not None:
            self._admission.batcher.cancel(ticket)
        elif self.parts.withdraw(sequence):
            self._refuse(sequence, Refusal(*_STATUS[State.CANCELLED]))

    def _admit(self, served: Served | None, message: pb.FeatureFrame) -> None:
        if message.sequence == 0:
            raise Refusal(pb.STATUS_INVALID_FRAME, "the frame has no sequence number; they count up from 1")
        unread = len(self.outbox) if self.outbox is not None else 0
        if len(self.pending) + len(self.parts) + unread >= self._max_in_flight:
            raise Refusal(pb.STATUS_BUSY, f"{self._max_in_flight} frames of this device are unanswered already")
        if message.bundle_id or served is None:
            served = self._admission.bundle(message.bundle_id)
        if message.groups:
            self.parts.begin(served, message)
            return
        wish = Wish(
            self._settle,
            message.tasks,
            message.priority,
            message.deadline_ms / 1e3 if message.deadline_ms else math.inf,
            message.sequence,
        )
        self.pending[message.sequence] = self._admission.admit(served, message.data, wish)
        self._quiet.clear()

    def _queue_parts(self, collected: Open, why_cut: str) -> None:
        """Have what came of a frame in parts answered."""
        first, now = collected.first, asyncio.get_running_loop().time()
        wish = Wish(
            self._settle,
            first.tasks,
            first.priority,
            collected.deadline - now,
            first.sequence,
            why_cut,
            now - collected.arrived,
        )
        try:
            ticket = self._admission.queue(collected.served, collected.frame, wish)
        except Refusal as why:
            self._refuse(first.sequence, why)
            return
        self._metrics.count_collected(cut=bool(why_cut))
        self.pending[first.sequence] = ticket
        self._quiet.clear()

    def _settle(self, ticket: InferenceTicket) -> None:
        sequence = ticket.work.sequence
        del self.pending[sequence]
        message = settled_answer(ticket)
        status = message.answer.status
        if status == pb.STATUS_OK:  # what failed may succeed when it is sent again
            self._answered[sequence] = message
            if len(self._answered) > self._max_in_flight:
                self._answered.popitem(last=False)
        self._metrics.count("stream", status)
        self._put(message)
        if not self.pending:
            self._quiet.set()

    def _refuse(self, sequence: int, why: Refusal) -> None:
        self._metrics.count("stream", why.status)
        self._put(refusal(why.status, why.detail, sequence, why.retry_after_ms))

    def _put(self, message: pb.ServerMessage) -> None:
        if self.outbox is not None:
            self.outbox.put(message)


class Sessions:
    """The sessions that are remembered, the least recently connected forgotten first."""

    def __init__(self, make: Callable[[str], Session], limit: int) -> None:
        self._make = make
        self._limit = limit
        self._sessions: OrderedDict[tuple[str, int], Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, device: str, number: int) -> Session:
        """The session of this number of a device, new if it is not remembered. Number 0 is always new."""
        if number == 0:
            return self._make(device)
        key = (device, number)
        session = self._sessions.pop(key, None) or self._make(device)
        self._sessions[key] = session
        self._forget()
        return session

    def _forget(self) -> None:
        while len(self._sessions) > self._limit:
            idle = next((key for key, one in self._sessions.items() if one.outbox is None and not one.pending), None)
            if idle is None:
                return
            del self._sessions[idle]
