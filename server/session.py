"""One device agent's frames, across the streams that it opens: what is pending, and what was answered lately.

A *session* is one run of an agent (its random number in `Hello`). It outlives a stream: when a connection breaks, the
agent connects again and sends what has no answer yet under the same numbers, and the session sees to it that no frame
is run twice: one that is still being run is answered on the new stream, one that was run is answered from memory.

Nothing here grows with what a device does: at most `max_in_flight` frames of a device are pending or unread by it, as
many answers are remembered, each within `max_stream_bytes`, and :class:`Sessions` keeps a bounded number of sessions. A
device that says how many frames it has unanswered at most has no more answers remembered: it gets them in order, so
those that it may lack are the last ones.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator

from headwater.protos import edge_pb2 as pb
from headwater.server.access.limits import Allowance
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
    """Messages on their way to a device, written one after the other; its reader waits while it is full.

    Args:
        limit: messages from which on it is full.
        most_bytes: bytes from which on it is full.
    """

    def __init__(self, limit: int, most_bytes: int) -> None:
        self.bytes = 0
        """Of all messages that are not written yet."""
        self.writing_since = math.inf
        """When the message that is being written was begun, by the event loop's clock."""
        self._limit = limit
        self._most_bytes = most_bytes
        self._messages: deque[tuple[pb.ServerMessage, int]] = deque()  # with their bytes, which take as long to find
        self._some: asyncio.Future[None] | None = None  # what the writer waits for
        self._room = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def full(self) -> bool:
        """Whether the device has to be held back until there is :meth:`room`."""
        return len(self._messages) >= self._limit or self.bytes >= self._most_bytes

    def put(self, message: pb.ServerMessage, size: int | None = None) -> None:
        """Append a message, of `size` bytes where that is known; never waits."""
        size = message.ByteSize() if size is None else size
        self._messages.append((message, size))
        self.bytes += size
        self._wake()

    def close(self) -> None:
        """Let :meth:`run` return once everything is written."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._some is not None and not self._some.done():
            self._some.set_result(None)

    async def room(self) -> None:
        """Wait while the device reads slower than it sends, so that the transport holds it back."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    async def run(self, write: Callable[[pb.ServerMessage], Awaitable[None]]) -> None:
        """Write messages until :meth:`close`."""
        loop = asyncio.get_running_loop()
        while True:
            while self._messages:
                self.writing_since = loop.time()
                message, size = self._messages[0]
                await write(message)
                self._messages.popleft()  # after the write: what is being written still counts
                self.bytes -= size
                self._room.set()
            self.writing_since = math.inf
            if self._closed:
                return
            self._some = loop.create_future()
            await self._some


class Session:
    """The frames of one agent; used on the event loop only."""

    def __init__(
        self,
        device: str,
        admission: Admission,
        metrics: Metrics,
        allowance: Allowance,
        partial_after_s: float = math.inf,
    ) -> None:
        self.device = device
        self.allowance = allowance
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
        self._most_bytes = allowance.limits.stream_bytes
        self._waiting_bytes = 0
        """Of the frames that are pending."""
        self._answered: OrderedDict[int, bytes] = OrderedDict()  # as messages they would take thirty times as much
        self._answered_bytes = 0
        self._most_answers = allowance.limits.unanswered
        self._quiet = asyncio.Event()
        self._quiet.set()

    @property
    def idle(self) -> bool:
        """Whether no stream is open and no frame runs."""
        return self.outbox is None and not self.pending

    def attach(self, outbox: Outbox, resume_from: int, window: int = 0) -> None:
        """Answer on this stream from now on; what the device has answers for is forgotten.

        ``window``: frames that it has unanswered at most; 0 for as many as it may have.
        """
        self.outbox = outbox
        limit = self.allowance.limits.unanswered
        self._most_answers = min(window or limit, limit)
        self.parts.withdraw_all()  # they come again from their first parts
        for sequence in [number for number in self._answered if number < resume_from]:
            self._answered_bytes -= len(self._answered.pop(sequence))

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
            self._put(pb.ServerMessage.FromString(known), len(known))
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
        data = message.data  # each look at the field makes a copy
        self._check_limits(len(data))
        if message.bundle_id or served is None:
            served = self._admission.bundle(message.bundle_id)
        if message.groups:
            self.parts.begin(served, message)
            return
        wish = Wish(
            self._settle,
            message.tasks,
            self._priority(message),
            message.deadline_ms / 1e3 if message.deadline_ms else math.inf,
            message.sequence,
        )
        self._wait_for(self._admission.admit(served, data, wish))

    def _check_limits(self, size: int) -> None:
        """See that the device may send another frame; raises Refusal."""
        allowance = self.allowance
        most = allowance.limits.unanswered
        unread = len(self.outbox) if self.outbox is not None else 0
        if allowance.unanswered >= most or len(self.pending) + len(self.parts) + unread >= most:
            raise Refusal(pb.STATUS_BUSY, f"{most} frames of this device are unanswered already")
        held = self._waiting_bytes + len(self.parts) * self._admission.max_frame_bytes + size
        if held > self._most_bytes:
            self._metrics.count_denied("memory")
            raise Refusal(pb.STATUS_BUSY, f"frames of {held} bytes would wait; at most {self._most_bytes} may")
        if not allowance.request():
            self._metrics.count_denied("requests")
            wait_ms = math.ceil(1e3 * allowance.request_wait_s())
            most_per_s = allowance.limits.requests_per_s
            raise Refusal(pb.STATUS_BUSY, f"more than {most_per_s:g} frames and calls a second", wait_ms)

    def _priority(self, message: pb.FeatureFrame) -> int:
        """What the frame asks for, unless its device has gone before others too often."""
        return message.priority if message.priority and self.allowance.rush() else 0

    def _wait_for(self, ticket: InferenceTicket) -> None:
        self.pending[ticket.work.sequence] = ticket
        self.allowance.unanswered += 1
        self._waiting_bytes += len(ticket.work.frame.payload)
        self._quiet.clear()

    def _queue_parts(self, collected: Open, why_cut: str) -> None:
        """Have what came of a frame in parts answered."""
        first, now = collected.first, asyncio.get_running_loop().time()
        wish = Wish(
            self._settle,
            first.tasks,
            self._priority(first),
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
        self._wait_for(ticket)

    def _settle(self, ticket: InferenceTicket) -> None:
        sequence = ticket.work.sequence
        del self.pending[sequence]
        self.allowance.unanswered -= 1
        self._waiting_bytes -= len(ticket.work.frame.payload)
        message = settled_answer(ticket)
        data = message.SerializeToString()
        if self.outbox is not None and self.outbox.bytes + len(data) > self._most_bytes:
            self._metrics.count_denied("memory")
            detail = f"answers of {self.outbox.bytes} bytes are unread; read them, then send the frame again"
            message = refusal(pb.STATUS_BUSY, detail, sequence)
            data = message.SerializeToString()
        status = message.answer.status
        if status == pb.STATUS_OK:  # what failed may succeed when it is sent again
            self._remember(sequence, data)
        self._metrics.count("stream", status)
        self._put(message, len(data))
        if not self.pending:
            self._quiet.set()

    def _remember(self, sequence: int, data: bytes) -> None:
        """Keep an answer for a device that sends its frame again, in place of the oldest if there are many."""
        self._answered[sequence] = data
        self._answered_bytes += len(data)
        while len(self._answered) > self._most_answers or self._answered_bytes > self._most_bytes:
            self._answered_bytes -= len(self._answered.popitem(last=False)[1])

    def _refuse(self, sequence: int, why: Refusal) -> None:
        self._metrics.count("stream", why.status)
        self._put(refusal(why.status, why.detail, sequence, why.retry_after_ms))

    def _put(self, message: pb.ServerMessage, size: int | None = None) -> None:
        if self.outbox is not None:
            self.outbox.put(message, size)


class Sessions:
    """The sessions that are remembered, the least recently connected forgotten first.

    When a device begins another, those of its that are not open are forgotten: an agent that was killed never comes
    back to the one before. Should one come back all the same, what it sends again is answered again.

    Args:
        make: a session of a device with this allowance.
        limit: devices whose sessions are remembered.
    """

    def __init__(self, make: Callable[[str, Allowance], Session], limit: int) -> None:
        self._make = make
        self._limit = limit
        self._devices: OrderedDict[str, dict[int, Session]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._devices.values()))

    def __iter__(self) -> Iterator[Session]:
        return (session for sessions in self._devices.values() for session in sessions.values())

    def open(self, device: str, number: int, allowance: Allowance) -> Session:
        """The session of this number of a device, new if it is not remembered. Number 0 is always new."""
        if number == 0:
            return self._make(device, allowance)
        sessions = self._devices.pop(device, None) or {}
        if number not in sessions:
            sessions = {known: one for known, one in sessions.items() if not one.idle}
            sessions[number] = self._make(device, allowance)
        session = sessions[number]
        session.allowance = allowance
        self._devices[device] = sessions
        self._forget()
        return session

    def _forget(self) -> None:
        """Drop the devices that came least recently and have nothing open, as long as there are too many."""
        while len(self._devices) > self._limit:
            away = (device for device, its in self._devices.items() if all(one.idle for one in its.values()))
            if (device := next(away, None)) is None:
                return
            del self._devices[device]
