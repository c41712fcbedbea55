"""The gRPC service: moves messages between the wire and the sessions, and maps refusals to gRPC statuses.

Nothing here computes: a frame is checked, queued and forgotten until its batch has settled. A stream costs two tasks
(one reads, one writes) however many frames pass, and no frame has a task or a timer of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from importlib import metadata
from typing import TYPE_CHECKING, Any, cast

import grpc

from headwater.protos import edge_pb2 as pb
from headwater.protos import edge_pb2_grpc
from headwater.server.access.denials import PUSHBACK
from headwater.server.access.door import Door
from headwater.server.access.guard import allowance_of
from headwater.server.admission import Admission, Refusal, Wish
from headwater.server.archive import Archive
from headwater.server.batcher import Batcher
from headwater.server.engine import InferenceTicket, Work, refusal
from headwater.server.keeper import Keeper
from headwater.server.mail.post import Post
from headwater.server.metrics import Metrics
from headwater.server.registry import Registry, Served
from headwater.server.rollout.conductor import Conductor
from headwater.server.session import Outbox, Session, Sessions, settled_answer
from headwater.server.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from headwater.compression.manifest import TaskKind
    from headwater.server.access.limits import Allowance
    from headwater.server.mail.offers import Line

    Context = grpc.aio.ServicerContext[Any, Any]

STUCK_S = 300.0
"""So long one message may take to a device; 2 MB take 160 s at 100 kbit/s."""
MOST_HELLO_BYTES = 1 << 12
MOST_REPORT_BYTES = 1 << 16
"""A bundle in use takes 70 of them."""
SILENT_BEATS = 3
"""A device that was silent for so many heartbeats is taken for gone."""

_CODES = {
    pb.STATUS_INVALID_FRAME: grpc.StatusCode.INVALID_ARGUMENT,
    pb.STATUS_UNKNOWN_TASK: grpc.StatusCode.INVALID_ARGUMENT,
    pb.STATUS_UNKNOWN_BUNDLE: grpc.StatusCode.FAILED_PRECONDITION,
    pb.STATUS_BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    pb.STATUS_EXPIRED: grpc.StatusCode.DEADLINE_EXCEEDED,
    pb.STATUS_CANCELLED: grpc.StatusCode.CANCELLED,
    pb.STATUS_DRAINING: grpc.StatusCode.UNAVAILABLE,
    pb.STATUS_INTERNAL: grpc.StatusCode.INTERNAL,
}
"""A frame's status as the status of an `Infer` call."""
_KINDS: dict[TaskKind, pb.TaskKind] = {"classify": pb.TASK_KIND_CLASSIFY, "image": pb.TASK_KIND_IMAGE}


class Hangup(Exception):  # noqa: N818 - how a stream ends, not always a fault
    """The stream is to be ended with this status."""

    def __init__(self, code: grpc.StatusCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Conversation:
    """One open stream."""

    def __init__(self, session: Session, served: Served, outbox: Outbox) -> None:
        self.session = session
        self.served: Served | None = served
        """The bundle of frames that name none; None if it is not served here."""
        self.outbox = outbox
        self.number = 0
        """Of the session."""
        self.line: Line | None = None
        """What it is offered; None where the server offers nothing."""
        self.heard = 0.0
        self.ended: asyncio.Future[Hangup] = asyncio.get_running_loop().create_future()

    def end(self, code: grpc.StatusCode, detail: str) -> None:
        """Have the stream end with this status."""
        if not self.ended.done():
            self.ended.set_result(Hangup(code, detail))


class EdgeService(edge_pb2_grpc.EdgeServicer):
    """The methods of ``headwater.v1.Edge``; make it and use it on one running event loop."""

    def __init__(
        self,
        registry: Registry,
        batcher: Batcher[Work, pb.ServerMessage],
        metrics: Metrics,
        settings: ServerSettings,
        archive: Archive | None = None,
        post: Post | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.registry = registry
        self.batcher = batcher
        self._loop = asyncio.get_running_loop()
        self.admission = Admission(registry, batcher, settings.max_frame_bytes, self._loop.time)
        self.post = post
        self.rollout: Conductor | None = None
        """Where the server offers bundles."""
        self.keeper = None if archive is None else Keeper(archive, self.admission, metrics)
        self._metrics = metrics
        self._settings = settings
        self.door = Door.of(settings, clock or self._loop.time)
        self._sessions = Sessions(self._new_session, 2 * settings.max_streams)
        self._conversations: set[Conversation] = set()
        self._calls = 0
        self._left = asyncio.Event()
        self._version = metadata.version("headwater")
        metrics.watch(lambda: batcher.queue.waiting, lambda: len(self._conversations))

    # ------------------------------------------------------------ the methods of the service

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.Description:
        """What this server serves."""
        del request, context
        bundles = [
            pb.ServedBundle(
                id=one.id,
                name=one.name,
                modes=len(one.bundle.manifest.modes),
                tasks=_task_specs(one),
                answers_for=one.answers_for,
            )
            for one in self.registry.served
        ]
        return pb.Description(
            server_version=self._version,
            bundles=bundles,
            max_frame_bytes=self._settings.max_frame_bytes,
            queue_capacity=self._settings.queue,
            draining=self.admission.draining,
            unix_ms=int(time.time() * 1e3),
        )

    async def Infer(self, request: pb.InferRequest, context: Context) -> pb.Answer:
        """One frame in, one answer out."""
        self._calls += 1
        try:
            answer = await self._infer(request, context)
        finally:
            self._calls -= 1
            self._left.set()
        self._metrics.count("infer", answer.status)
        if answer.status != pb.STATUS_OK:
            if answer.timing.retry_after_ms:
                context.set_trailing_metadata(((PUSHBACK, str(answer.timing.retry_after_ms)),))
            await context.abort(_CODES[answer.status], answer.detail)
        return answer

    async def Stream(self, request_iterator: AsyncIterator[pb.DeviceMessage], context: Context) -> None:  # type: ignore[override]
        """A device's long-lived connection."""
        del request_iterator  # read() on the context costs less a message than the iterator around it
        try:
            hello = await self._hello(context)
            with self.door.entered(hello.device) as allowance:
                await self._serve(await self._greet(hello, allowance), context)
        except Refusal as why:
            await context.abort(_CODES[why.status], why.detail)
        except Hangup as why:
            await context.abort(why.code, why.detail)

    async def Exchange(self, request_iterator: AsyncIterator[pb.TransferMessage], context: Context) -> None:  # type: ignore[override]
        """One large transfer, down or up."""
        del request_iterator
        if self.post is None:
            detail = "this server has nothing to exchange: it was started without --state"
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, detail)
        await self.post.exchange.serve(context)

    # ------------------------------------------------------------ for the application

    def drain(self, grace_s: float, servers: tuple[str, ...] = ()) -> None:
        """Refuse new work and tell every device; what is queued goes on."""
        self.admission.draining = True
        if self.post is not None:
            self.post.exchange.drain()
        message = pb.ServerMessage(drain=pb.Drain(grace_ms=round(grace_s * 1e3), servers=servers))
        for conversation in self._conversations:
            conversation.outbox.put(message)

    async def drained(self) -> None:
        """Wait until no call is open and nothing is queued."""
        while self._calls or self._conversations:
            self._left.clear()
            await self._left.wait()
        await self.batcher.idle()

    def hang_up(self, detail: str) -> None:
        """End every stream."""
        for conversation in self._conversations:
            conversation.end(grpc.StatusCode.UNAVAILABLE, detail)

    async def watch_for_silence(self) -> None:
        """End the streams of devices that are not heard of, or take nothing; runs until it is cancelled."""
        beat_s = self._settings.heartbeat_ms / 1e3
        while True:
            began_s = self._loop.time()
            await asyncio.sleep(beat_s)
            # Else it was this process that stood still, and what came meanwhile has yet to be read.
            if (now_s := self._loop.time()) - began_s < 2 * beat_s:
                self._hang_up_silent(now_s, beat_s)

    def _hang_up_silent(self, now_s: float, beat_s: float) -> None:
        for conversation in self._conversations:
            if conversation.outbox.writing_since < now_s - STUCK_S:
                detail = f"an answer was not taken for {STUCK_S:g} s"
                conversation.end(grpc.StatusCode.UNAVAILABLE, detail)
            if conversation.heard < now_s - SILENT_BEATS * beat_s:
                detail = f"nothing was heard for {SILENT_BEATS * beat_s:g} s; send a heartbeat each {beat_s:g} s"
                conversation.end(grpc.StatusCode.UNAVAILABLE, detail)

    # ------------------------------------------------------------ Infer

    async def _infer(self, request: pb.InferRequest, context: Context) -> pb.Answer:
        settled: asyncio.Future[InferenceTicket] = self._loop.create_future()
        # The stubs promise a float; without a deadline it is None.
        remaining = cast("float | None", context.time_remaining())
        wish = Wish(
            lambda ticket: None if settled.done() else settled.set_result(ticket),
            request.tasks,
            request.priority if request.priority and allowance_of(context).rush() else 0,
            math.inf if remaining is None else remaining,
        )
        try:
            ticket = self.admission.admit_file(request.frame, wish)
        except Refusal as why:
            return refusal(why.status, why.detail, retry_after_ms=why.retry_after_ms).answer
        try:
            return settled_answer(await settled).answer
        except asyncio.CancelledError:  # the caller has gone or its deadline has passed
            self.batcher.cancel(ticket)
            self._metrics.count("infer", pb.STATUS_CANCELLED)
            raise

    # ------------------------------------------------------------ Stream

    async def _serve(self, conversation: Conversation, context: Context) -> None:
        """Talk to the end; raises Hangup."""
        try:
            await self._converse(conversation, context)
        finally:
            if self.post is not None and conversation.line is not None:
                self.post.offers.disconnect(conversation.line)
            conversation.session.detach(conversation.outbox)
            self._conversations.discard(conversation)
            self._left.set()

    async def _greet(self, hello: pb.Hello, allowance: Allowance) -> Conversation:
        """Answer the hello with the welcome; raises Refusal."""
        if self.rollout is not None and self.registry.find(hello.bundle_id) is None:
            await self.rollout.revive(hello.bundle_id)
        served = self.admission.bundle(hello.bundle_id)
        outbox = Outbox(2 * self._settings.max_in_flight, self._settings.max_stream_bytes)
        session = self._sessions.open(hello.device, hello.session, allowance)
        for other in self._conversations:
            if other.session is session:
                other.end(grpc.StatusCode.ABORTED, "the same session opened another stream, which goes on from here")
        conversation = Conversation(session, served, outbox)
        conversation.number = hello.session
        conversation.heard = self._loop.time()
        outbox.put(self._welcome(served))
        session.attach(outbox, hello.resume_from, hello.window)
        if self.post is not None:
            conversation.line = self.post.offers.connect(hello, session, outbox)
        if self.rollout is not None:
            self.rollout.uses(hello.device, hello.bundle_id)
        self._conversations.add(conversation)
        return conversation

    async def _hello(self, context: Context) -> pb.Hello:
        """What the stream begins with; raises Refusal."""
        if self.admission.draining:
            raise Refusal(pb.STATUS_DRAINING, "the server is stopping; connect to another or later")
        message: object = await context.read()
        kind = message.WhichOneof("kind") if isinstance(message, pb.DeviceMessage) else "nothing"
        if not isinstance(message, pb.DeviceMessage) or kind != "hello":
            raise Refusal(pb.STATUS_INVALID_FRAME, f"a stream begins with hello; it began with {kind}")
        if not message.hello.device or message.hello.ByteSize() > MOST_HELLO_BYTES:
            raise Refusal(pb.STATUS_INVALID_FRAME, "the hello names no device, or has more to say than any agent")
        return message.hello

    def _welcome(self, served: Served) -> pb.ServerMessage:
        return pb.ServerMessage(
            welcome=pb.Welcome(
                tasks=_task_specs(served),
                heartbeat_ms=self._settings.heartbeat_ms,
                max_in_flight=self._settings.max_in_flight,
                server_version=self._version,
                keeps=self.keeper is not None,
            )
        )

    async def _converse(self, conversation: Conversation, context: Context) -> None:
        """Read and write until one side has said goodbye; raises Hangup."""
        reader = asyncio.create_task(self._listen(conversation, context))
        writer = asyncio.create_task(conversation.outbox.run(context.write))
        try:
            await asyncio.wait((reader, writer, conversation.ended), return_when=asyncio.FIRST_COMPLETED)
            if conversation.ended.done():
                raise conversation.ended.result()
            if reader.done():
                reader.result()
                await writer
            else:
                writer.result()
        finally:
            for task in (reader, writer):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(reader, writer, return_exceptions=True)

    async def _listen(self, conversation: Conversation, context: Context) -> None:
        """Take messages until the device has no more; then let what is pending be answered."""
        outbox, session = conversation.outbox, conversation.session
        while (message := await context.read()) is not grpc.aio.EOF:
            conversation.heard = self._loop.time()
            kind = message.WhichOneof("kind")
            if kind == "goodbye":
                break
            if kind == "use_bundle":
                await self._use(conversation, message.use_bundle.bundle_id)
                continue
            if kind != "frame":
                self._take(conversation, kind, message)
            elif session.outbox is outbox:  # else a newer stream of the session has taken over
                session.frame(conversation.served, message.frame)
            if outbox.full:
                await outbox.room()
        session.end_of_input(outbox)
        await session.quiet()
        outbox.close()

    async def _use(self, conversation: Conversation, bundle_id: bytes) -> None:
        """From now on, frames of this stream that name no bundle are of this one."""
        if self.rollout is not None:
            if self.registry.find(bundle_id) is None:
                await self.rollout.revive(bundle_id)
            self.rollout.uses(conversation.session.device, bundle_id)
        conversation.served = self.registry.find(bundle_id)

    def _take(self, conversation: Conversation, kind: str | None, message: pb.DeviceMessage) -> None:
        """Take a message that is no frame; raises Hangup."""
        session = conversation.session
        match kind:
            case "cancel":
                session.cancel(message.cancel.sequence)
            case "heartbeat":
                conversation.outbox.put(pb.ServerMessage(heartbeat=message.heartbeat))
            case "kept" if self.keeper is not None:
                with _hanging_up():
                    self.keeper.take(session.device, message.kept, conversation.outbox)
            case "offer_reply" | "bundle_notice" if self.post is not None and conversation.line is not None:
                with _hanging_up():
                    self.post.take(conversation.line, message)
            case "report" if message.report.ByteSize() <= MOST_REPORT_BYTES:
                session.report = message.report
                if self.rollout is not None:
                    self.rollout.report(session.device, conversation.number, message.report)
            case "hello":
                raise Hangup(grpc.StatusCode.INVALID_ARGUMENT, "a second hello; open another stream for it")
            case _:  # of a newer agent, or about an offer that this server never made
                pass

    def _new_session(self, device: str, allowance: Allowance) -> Session:
        after_ms = self._settings.answer_partial_after_ms
        partial_after_s = math.inf if after_ms is None else after_ms / 1e3
        return Session(device, self.admission, self._metrics, allowance, partial_after_s)


@contextlib.contextmanager
def _hanging_up() -> Iterator[None]:
    """End the stream of a device that sends what cannot be taken."""
    try:
        yield
    except Refusal as why:
        raise Hangup(_CODES[why.status], why.detail) from None


def _task_specs(served: Served) -> list[pb.TaskSpec]:
    return [pb.TaskSpec(name=task.name, labels=task.labels, kind=_KINDS[task.kind]) for task in served.tasks]
