"""An edge server for link tests: speaks the protos on a real port and does with each frame what the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio

from headwater.protos import edge_pb2 as pb
from headwater.protos.edge_pb2_grpc import EdgeServicer, add_EdgeServicer_to_server


def ok(frame: pb.FeatureFrame) -> pb.Answer:
    """The answer that shows which frame it belongs to: the sum of its bytes."""
    score = float(sum(frame.data))
    result = pb.TaskResult(task="sum", scores=[score])
    return pb.Answer(sequence=frame.sequence, status=pb.STATUS_OK, results=[result])


@dataclass
class FakeEdge(EdgeServicer):
    """Answers every frame with :func:`ok` unless told otherwise."""

    answer: Callable[[pb.FeatureFrame], pb.Answer | None] = ok
    """None: no answer to this frame."""
    welcome: pb.Welcome = field(default_factory=lambda: pb.Welcome(heartbeat_ms=60_000, max_in_flight=64))
    hellos: list[pb.Hello] = field(default_factory=list)
    frames: list[pb.FeatureFrame] = field(default_factory=list)
    others: list[pb.DeviceMessage] = field(default_factory=list)
    refuse: tuple[grpc.StatusCode, str] | None = None
    port: int = 0

    def __post_init__(self) -> None:
        self.changed = asyncio.Condition()
        self.contexts: list[grpc.aio.ServicerContext[pb.DeviceMessage, pb.ServerMessage]] = []
        self.reads = asyncio.Event()
        """While it is cleared nothing is read, so that a device can write no more than the connection's window."""
        self.reads.set()
        self._break = asyncio.Event()
        self._writing = asyncio.Lock()

    async def Stream(  # type: ignore[override]  # noqa: N802 - gRPC names it
        self, _: object, context: grpc.aio.ServicerContext[pb.DeviceMessage, pb.ServerMessage]
    ) -> None:
        first = await context.read()
        assert isinstance(first, pb.DeviceMessage)
        self.hellos.append(first.hello)
        if self.refuse is not None:
            await context.abort(*self.refuse)
        self.contexts.append(context)
        await self._write(context, pb.ServerMessage(welcome=self.welcome))
        await self._notify()
        broken = self._break
        talk = asyncio.create_task(self._talk(context))
        wait = asyncio.create_task(broken.wait())
        try:
            await asyncio.wait([talk, wait], return_when=asyncio.FIRST_COMPLETED)
            if broken.is_set():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "broken by the test")
        finally:
            for task in (talk, wait):
                task.cancel()

    async def _talk(self, context: grpc.aio.ServicerContext[pb.DeviceMessage, pb.ServerMessage]) -> None:
        while await self.reads.wait() and isinstance(message := await context.read(), pb.DeviceMessage):
            if message.WhichOneof("kind") == "frame":
                self.frames.append(message.frame)
                if (answer := self.answer(message.frame)) is not None:
                    await self._write(context, pb.ServerMessage(answer=answer))
            else:
                self.others.append(message)
            await self._notify()

    async def send(self, message: pb.ServerMessage) -> None:
        """Say something on the newest stream."""
        await self._write(self.contexts[-1], message)

    async def _write(
        self, context: grpc.aio.ServicerContext[pb.DeviceMessage, pb.ServerMessage], message: pb.ServerMessage
    ) -> None:
        async with self._writing:  # gRPC takes one writing at a time, and the device may know of it before it ends here
            await context.write(message)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that a device sent makes it true."""
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(condition)

    def break_streams(self) -> None:
        """End all streams with UNAVAILABLE, as a crash would."""
        self._break.set()
        self._break = asyncio.Event()

    @property
    def sequences(self) -> list[int]:
        return [frame.sequence for frame in self.frames]

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()


@asynccontextmanager
async def serving(edge: FakeEdge) -> AsyncIterator[FakeEdge]:
    server = grpc.aio.server(options=(("grpc.http2.bdp_probe", 0),))  # as the real one: windows do not grow
    add_EdgeServicer_to_server(edge, server)
    edge.port = server.add_insecure_port(f"127.0.0.1:{edge.port}")
    await server.start()
    try:
        yield edge
    finally:
        await server.stop(None)
