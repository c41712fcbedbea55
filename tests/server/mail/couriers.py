"""A device by hand that takes offers and exchanges blobs: everything that a good or a bad one could do."""

from __future__ import annotations

import asyncio
import hashlib
import random
from pathlib import Path
from typing import Any

import grpc

from headwater.compression.transfer import Incoming
from headwater.protos import edge_pb2 as pb
from headwater.protos.nodes import node_id
from headwater.server.mail.mailbox import Mailbox
from headwater.server.mail.post import Post
from headwater.server.mail.records import Offered, Subject, Wanted
from headwater.server.session import Session
from tests.server.edges import TIMEOUT_S, Edge, Talk

CONTENT, REPLY = random.Random(4).randbytes(30_000), random.Random(5).randbytes(8_000)
CAM = node_id("cam")


class Courier(Talk):
    """A device's stream that takes part in rounds."""

    def __init__(self, edge: Edge, device: str = "cam", session: int = 7, *, federated: bool = True) -> None:
        super().__init__(edge, device, session)
        self.edge = edge
        self.device = device
        self.hello.hello.capabilities.extend(["federated"] if federated else [])

    async def offer(self) -> pb.Offer:
        message = await self.read()
        assert message.WhichOneof("kind") == "offer", message
        offer: pb.Offer = message.offer
        return offer

    async def say(self, offer: pb.Offer, *, accepted: bool, reason: str = "") -> None:
        reply = pb.OfferReply(offer=offer.offer, accepted=accepted, reason=reason)
        await self.send(pb.DeviceMessage(offer_reply=reply))

    def opening(self, offer: pb.Offer, **fields: Any) -> pb.TransferOpen:  # noqa: ANN401 - fields of the message
        facts = {"content_sha256": offer.content_sha256, "content_bytes": offer.content_bytes, **fields}
        return pb.TransferOpen(device=self.device, content=offer.kind, offer=offer.offer, **facts)

    async def transfer(self, opening: pb.TransferOpen) -> Transfer:
        call = Transfer(self.edge)
        await call.write(pb.TransferMessage(open=opening))
        return call

    async def fetch(self, offer: pb.Offer, folder: Path) -> bytes:
        """All of what is offered."""
        incoming = Incoming.open(folder, offer.content_sha256, offer.content_bytes)
        transfer = await self.transfer(self.opening(offer, have_bytes=incoming.have))
        while incoming.have < incoming.size:
            chunk = (await transfer.read()).chunk
            await transfer.ack(incoming.take(chunk.offset, chunk.data, chunk.sha256))
        data = incoming.finish().read_bytes()
        await transfer.close(pb.STATUS_OK)
        assert (await transfer.closed()).status == pb.STATUS_OK
        return data

    async def push(self, offer: pb.Offer, data: bytes, envelope: bytes = b"", **fields: Any) -> pb.TransferClose:  # noqa: ANN401 - the same
        """Send a reply; how the server closed."""
        facts = {"content_sha256": hashlib.sha256(data).digest(), "content_bytes": len(data), **fields}
        transfer = await self.transfer(self.opening(offer, upload=True, envelope=envelope, **facts))
        while True:
            message = await transfer.read()
            if message.WhichOneof("kind") == "close":
                closing: pb.TransferClose = message.close
                return closing
            if message.ack.received_bytes < len(data):
                await transfer.chunk(message.ack.received_bytes, data[message.ack.received_bytes :][:1000])


class Transfer:
    """One call of `Exchange`, by hand."""

    def __init__(self, edge: Edge) -> None:
        self.call: Any = edge.stub.Exchange()

    async def write(self, message: pb.TransferMessage) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await self.call.write(message)

    async def read(self) -> Any:  # noqa: ANN401 - a message or grpc's EOF
        async with asyncio.timeout(TIMEOUT_S):
            return await self.call.read()

    async def ack(self, have: int) -> None:
        await self.write(pb.TransferMessage(ack=pb.TransferAck(received_bytes=have)))

    async def chunk(self, offset: int, data: bytes, sha256: bytes | None = None) -> None:
        sha256 = hashlib.sha256(data).digest() if sha256 is None else sha256
        await self.write(pb.TransferMessage(chunk=pb.Chunk(offset=offset, data=data, sha256=sha256)))

    async def close(self, status: pb.Status, detail: str = "") -> None:
        await self.write(pb.TransferMessage(close=pb.TransferClose(status=status, detail=detail)))

    async def closed(self) -> pb.TransferClose:
        """The server's closing; what it said before is left out."""
        while (message := await self.read()) is not grpc.aio.EOF:
            if message.WhichOneof("kind") == "close":
                closing: pb.TransferClose = message.close
                return closing
        raise AssertionError(f"the call ended with {await self.call.code()}")

    async def acked(self) -> int:
        message = await self.read()
        assert message.WhichOneof("kind") == "ack", message
        received: int = message.ack.received_bytes
        return received


def post_of(edge: Edge) -> Post:
    found = edge.server.service.post
    assert found is not None
    return found


def mailbox_of(edge: Edge) -> Mailbox:
    return post_of(edge).mailbox


def counted(edge: Edge, metric: str, **labels: str) -> float:
    return edge.server.metrics.registry.get_sample_value(f"headwater_{metric}_total", labels) or 0.0


def waiting(session: Session) -> asyncio.Event:
    """Set when somebody waits for the session to be quiet."""
    waits = asyncio.Event()
    quiet = session.quiet

    async def noted() -> None:
        waits.set()
        await quiet()

    session.quiet = noted  # type: ignore[method-assign]
    return waits


def put(
    box: Mailbox, key: str = "a", *, data: bytes = CONTENT, subject: Subject = "message", ttl_s: float = 60
) -> Offered:
    wanted = Wanted(key, CAM, subject, box.put(data), b"b" * 32, 7, "3", b"envelope", ttl_s)
    return box.offer([wanted])[0]
