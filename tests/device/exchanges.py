"""A fake edge that exchanges: it offers contents from memory and takes replies, and breaks off where the test says."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio

from headwater.protos import edge_pb2 as pb
from tests.device.fake_edge import FakeEdge

Context = grpc.aio.ServicerContext[pb.TransferMessage, pb.TransferMessage]


@dataclass
class ExchangingEdge(FakeEdge):
    """Sends what is in ``contents`` and collects ``uploads``."""

    contents: dict[bytes, bytes] = field(default_factory=dict)
    """By SHA-256."""
    uploads: list[tuple[pb.TransferOpen, bytes]] = field(default_factory=list)
    opens: list[pb.TransferOpen] = field(default_factory=list)
    chunks: list[pb.Chunk] = field(default_factory=list)
    """Of uploads, as they came."""
    chunk_bytes: int = 1 << 14
    most_bytes: int = 0
    """Of the chunks that it takes; 0 for any."""
    """Of downloads."""
    on_chunk: Callable[[int], bool] = lambda _: True
    """Called with the number of each chunk before it is sent or acknowledged; False ends the call there."""
    close: pb.TransferClose = field(default_factory=lambda: pb.TransferClose(status=pb.STATUS_OK))
    """What an upload ends with."""
    on_upload: Callable[[pb.TransferOpen], bool] = lambda _: True
    """Called when an upload is whole; False: it is kept, but the device does not hear of it."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is cleared, nothing is acknowledged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.gate.set()
        self.partial: dict[bytes, bytes] = {}
        self.closed = 0
        """Uploads that were ended by :attr:`close`."""
        self.moved = 0

    def put(self, content: bytes, offer: int = 1, envelope: bytes = b"") -> pb.Offer:
        """Have something to fetch; the offer of it."""
        sha256 = hashlib.sha256(content).digest()
        self.contents[sha256] = content
        return pb.Offer(
            offer=offer,
            kind=pb.OFFER_KIND_FEDERATED_MESSAGE,
            content_sha256=sha256,
            content_bytes=len(content),
            valid_for_ms=3_600_000,
            envelope=envelope,
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for it for longer than others: a training process runs when nobody else does."""
        async with asyncio.timeout(300), self.changed:
            await self.changed.wait_for(condition)

    async def Exchange(self, _: object, context: Context) -> None:  # type: ignore[override]  # noqa: N802 - gRPC names it
        first = await context.read()
        assert isinstance(first, pb.TransferMessage)
        opening = first.open
        self.opens.append(opening)
        await self._notify()
        await (self._take if opening.upload else self._give)(opening, context)
        await self._notify()

    async def _give(self, opening: pb.TransferOpen, context: Context) -> None:
        content, offset = self.contents[opening.content_sha256], opening.have_bytes
        while offset < len(content):
            data = content[offset : offset + self.chunk_bytes]
            await self._count(context)
            chunk = pb.Chunk(offset=offset, data=data, sha256=hashlib.sha256(data).digest())
            await context.write(pb.TransferMessage(chunk=chunk))
            ack = await context.read()
            if not isinstance(ack, pb.TransferMessage) or ack.WhichOneof("kind") != "ack":
                return
            offset = ack.ack.received_bytes
        await context.read()  # how the device closes

    def _ack(self, data: bytes) -> pb.TransferMessage:
        return pb.TransferMessage(ack=pb.TransferAck(received_bytes=len(data), next_bytes=self.most_bytes))

    async def _take(self, opening: pb.TransferOpen, context: Context) -> None:
        data = self.partial.get(opening.content_sha256, b"")
        await context.write(self._ack(data))
        while len(data) < opening.content_bytes:
            message = await context.read()
            if not isinstance(message, pb.TransferMessage):
                return
            chunk = message.chunk
            self.chunks.append(chunk)
            await self._notify()
            await self.gate.wait()
            assert chunk.offset == len(data)
            assert hashlib.sha256(chunk.data).digest() == chunk.sha256
            await self._count(context)
            data += chunk.data
            self.partial[opening.content_sha256] = data
            await context.write(self._ack(data))
        if self.close.status == pb.STATUS_OK:
            self.uploads.append((opening, data))
            if not self.on_upload(opening):
                await self._notify()
                await asyncio.Event().wait()
        await context.write(pb.TransferMessage(close=self.close))
        self.closed += 1

    async def _count(self, context: Context) -> None:
        self.moved += 1
        if not self.on_chunk(self.moved):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "broken by the test")
