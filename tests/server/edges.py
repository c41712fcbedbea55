"""A whole edge server in the test's event loop, on real sockets, whose worker can be held; and a device by hand."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import grpc
import numpy as np

from headwater.compression.bundle import Bundle
from headwater.protos import edge_pb2 as pb
from headwater.protos import edge_pb2_grpc
from headwater.server.access.denials import Reason
from headwater.server.app import Addresses, EdgeServer
from headwater.server.engine import InferenceTicket
from headwater.server.registry import Registry
from headwater.server.settings import ServerSettings
from tests import tiny
from tests.server.access import material

TIMEOUT_S = 30


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds."""
    async with asyncio.timeout(TIMEOUT_S):
        while not holds():  # noqa: ASYNC110 - what is waited for has no event to wait for
            await asyncio.sleep(0.001)


class Gate:
    """Stands before the worker: notes what it runs, and holds it while it is shut."""

    def __init__(self, server: EdgeServer) -> None:
        self._run = server.batcher._run
        server.batcher._run = self
        self._open = threading.Event()
        self._open.set()
        self._started = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        """Sequence numbers of every batch that ran."""
        self.priorities: list[int] = []
        """Of every frame that ran."""
        self.error: Exception | None = None
        """Raised in place of the next batch."""

    def __call__(
        self, batch: Sequence[InferenceTicket], hand_over: Callable[[Sequence[pb.ServerMessage]], None]
    ) -> None:
        self.batches.append([ticket.work.sequence for ticket in batch])
        self.priorities += [ticket.priority for ticket in batch]
        self._started.release()
        assert self._open.wait(TIMEOUT_S)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self._run(batch, hand_over)

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def holds(self) -> None:
        """Wait until a batch stands before the gate (or went through it) that nobody has waited for."""
        assert await asyncio.to_thread(self._started.acquire, timeout=TIMEOUT_S)


class Edge:
    """A running server and a channel to it."""

    def __init__(self, server: EdgeServer, addresses: Addresses, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.addresses = addresses
        self.channel = channel
        self.stub: Any = edge_pb2_grpc.EdgeStub(channel)
        self.gate = Gate(server)

    @property
    def counts(self) -> dict[str, int]:
        return vars(self.server.batcher.queue.counts)

    @property
    def waiting(self) -> int:
        return self.server.batcher.queue.waiting

    def denied(self, reason: Reason) -> int:
        value = self.server.metrics.registry.get_sample_value("headwater_denied_total", {"reason": reason})
        assert value is not None
        return int(value)

    def requests(self, call: str, outcome: str) -> int:
        value = self.server.metrics.registry.get_sample_value(
            "headwater_requests_total", {"call": call, "outcome": outcome}
        )
        assert value is not None
        return int(value)


@asynccontextmanager
async def edge(*bundles: Bundle, clock: Callable[[], float] | None = None, **settings: object) -> AsyncIterator[Edge]:
    """A server with one worker and small limits, unless told otherwise; with `tls`, for the device `cam`.

    ``clock``: what devices' rates are measured by, if not the loop's.
    """
    defaults: dict[str, object] = {"listen": "127.0.0.1:0", "http": None, "workers": 1, "grace_s": 0.0}
    chosen = ServerSettings(**{**defaults, **settings})  # type: ignore[arg-type]
    server = EdgeServer(chosen, Registry(bundles or (tiny.bundle(),)), clock=clock)
    addresses = await server.start()
    async with _channel(server, addresses) as channel:
        running = Edge(server, addresses, channel)
        try:
            yield running
        finally:
            running.gate.open()
            await server.stop()


def _channel(server: EdgeServer, addresses: Addresses) -> grpc.aio.Channel:
    if server.access is None:
        return grpc.aio.insecure_channel(addresses.grpc)
    member = material.enrolled(server.access.register, server.access.authority)
    return material.channel(addresses.grpc, server.access.authority, member)


class Talk:
    """One stream of a device, by hand."""

    def __init__(
        self, edge: Edge, device: str = "cam", session: int = 7, bundle: Bundle | None = None, **more: int
    ) -> None:
        """``more`` goes into the hello."""
        self.bundle = bundle or tiny.bundle()
        hello = pb.Hello(device=device, bundle_id=self.bundle.id, session=session, **more)  # type: ignore[arg-type]
        self.hello = pb.DeviceMessage(hello=hello)
        self.call: Any = edge.stub.Stream()
        self.welcome: pb.Welcome

    async def __aenter__(self) -> Self:
        await self.send(self.hello)
        message = await self.read()
        assert message.WhichOneof("kind") == "welcome"
        self.welcome = message.welcome
        return self

    async def __aexit__(self, *_: object) -> None:
        self.call.cancel()

    async def send(self, message: pb.DeviceMessage) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await self.call.write(message)

    async def frame(self, sequence: int, seed: int | None = None, mode: int = 0, **fields: Any) -> None:  # noqa: ANN401 - fields of the message
        """Send the frame of a seed (the sequence number, if not given)."""
        if "data" not in fields:
            frame = tiny.frame(self.bundle, sequence if seed is None else seed, mode)
            fields["data"] = self.bundle.frames().pack(frame)
        await self.send(pb.DeviceMessage(frame=pb.FeatureFrame(sequence=sequence, **fields)))

    async def read(self) -> Any:  # noqa: ANN401 - a message or grpc's EOF
        """The next message, or EOF."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self.call.read()

    async def answer(self) -> pb.Answer:
        message = await self.read()
        assert message is not grpc.aio.EOF
        assert message.WhichOneof("kind") == "answer", message
        answer: pb.Answer = message.answer
        return answer

    async def goodbye(self) -> None:
        await self.send(pb.DeviceMessage(goodbye=pb.Goodbye()))

    async def refused(self) -> tuple[grpc.StatusCode, str]:
        """Say hello to a server that will not have it; how the call ended."""
        with contextlib.suppress(grpc.aio.AioRpcError):  # the refusal may come before the hello has left
            await self.send(self.hello)
        return await self.status()

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """How the call ended."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self.call.code(), await self.call.details()


def assert_answers(answer: pb.Answer, bundle: Bundle, seed: int, mode: int, groups: int | None = None) -> None:
    """The scores are those that onnxruntime alone gives for that image."""
    assert answer.status == pb.STATUS_OK, answer
    expected = tiny.answer(bundle, seed, mode, groups)
    assert [result.task for result in answer.results] == list(expected)
    for result in answer.results:
        np.testing.assert_allclose(list(result.scores), expected[result.task], atol=1e-5)
