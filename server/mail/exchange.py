"""The server's end of `Exchange`: contents of offers down, replies up, in the gaps that frames leave.

    down    open(have_bytes) ──>   <── chunk   ack ──>   <── chunk   ack ──> ...   close ──>    the device has it whole
    up      open ──>   <── ack(have)   chunk ──>   <── ack   chunk ──> ...         <── close    the reply is committed

Who receives closes, with the status OK once the whole is checked and on disk, or with the reason why not. One chunk is
in flight, and frames go first, those of the device and of all others (gaps.py): of what comes up, an acknowledgement
says how large the next chunk may be. A device has one transfer each way: a new call takes the place of one whose
connection died without a word, and goes on where that one was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import grpc

from headwater.compression.errors import NoRoomError, StorageError, TransferError
from headwater.compression.transfer import MOST_BYTES, Incoming, Outgoing, Pace
from headwater.protos import edge_pb2 as pb
from headwater.protos.nodes import node_id
from headwater.server.mail.disk import ended

if TYPE_CHECKING:
    from headwater.server.mail.disk import Disk
    from headwater.server.mail.gaps import Gaps
    from headwater.server.mail.mailbox import Mailbox
    from headwater.server.mail.offers import Offers
    from headwater.server.mail.records import Offered
    from headwater.server.metrics import Metrics

Way = Literal["down", "up"]
Context: TypeAlias = "grpc.aio.ServicerContext[pb.TransferMessage, pb.TransferMessage]"

MOST_AT_A_TIME = 256
"""Transfers of all devices together."""
MOST_REPLY_BYTES, MOST_ENVELOPE_BYTES = 1 << 30, 1 << 16
SILENT_S = 60.0
"""How long a device may take for its next message; 4 KiB take 7 s at 5 kbit/s."""
MOST_STRIKES = 5
"""Chunks in a row that came wrong, or that were not taken."""

_log = logging.getLogger(__name__)


class Closed(Exception):  # noqa: N818 - how a transfer ends, not always a fault
    """The transfer is to be closed with this status."""

    def __init__(self, status: pb.Status, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True)
class _Transfer:
    """An opened transfer that may go on."""

    context: Context
    opening: pb.TransferOpen
    offer: Offered


class Exchange:
    """Carries what is large for all devices; used on the event loop."""

    def __init__(self, mailbox: Mailbox, offers: Offers, disk: Disk, gaps: Gaps, metrics: Metrics) -> None:
        self._mailbox = mailbox
        self._offers = offers
        self._disk = disk
        self._gaps = gaps
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._running: dict[tuple[int, bool], asyncio.Task[None]] = {}
        self._paces: dict[int, Pace] = {}
        self.draining = False

    async def serve(self, context: Context) -> None:
        """One call, from its opening to its closing."""
        way: Way = "down"
        try:
            opening = await self._opening(context)
            way = "up" if opening.upload else "down"
            await self._alone(context, opening)
        except Closed as closed:
            self._metrics.count_transfer(way, "ok" if closed.status == pb.STATUS_OK else "broken")
            if closed.status != pb.STATUS_OK:
                _log.info("a transfer broke off", extra={"way": way, "why": str(closed)})
            close = pb.TransferClose(status=closed.status, detail=str(closed))
            with contextlib.suppress(grpc.aio.UsageError, asyncio.InvalidStateError):  # the device has gone
                await context.write(pb.TransferMessage(close=close))

    def drain(self) -> None:
        """Close every transfer: devices go on with another server, or later."""
        self.draining = True
        for task in self._running.values():
            task.cancel()

    # ------------------------------------------------------------ opening

    async def _opening(self, context: Context) -> pb.TransferOpen:
        message = await _read(context)
        if message.WhichOneof("kind") != "open":
            raise Closed(pb.STATUS_INVALID_FRAME, f"a transfer begins with open, not {message.WhichOneof('kind')}")
        if self.draining:
            raise Closed(pb.STATUS_DRAINING, "the server is stopping")
        if len(self._running) >= MOST_AT_A_TIME:
            raise Closed(pb.STATUS_BUSY, f"{MOST_AT_A_TIME} transfers are under way; try later")
        return message.open

    async def _alone(self, context: Context, opening: pb.TransferOpen) -> None:
        """Carry it, in the place of an older call for the same device; raises :class:`Closed`."""
        key = (node_id(opening.device), opening.upload)
        if (before := self._running.get(key)) is not None:
            before.cancel()
        task = asyncio.create_task(self._carry(context, opening, before))
        self._running[key] = task
        task.add_done_callback(partial(self._ended, key))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():  # the call itself was cancelled: the device has gone
                task.cancel()
                raise
            if self.draining:
                raise Closed(pb.STATUS_DRAINING, "the server is stopping; it goes on where it was") from None
            raise Closed(pb.STATUS_CANCELLED, "another call goes on with this transfer") from None

    def _ended(self, key: tuple[int, bool], task: asyncio.Task[None]) -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled() and not isinstance(task.exception(), Closed):
            _log.error("a transfer failed", exc_info=task.exception())

    async def _carry(self, context: Context, opening: pb.TransferOpen, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])  # it lets go of the file
        try:
            offer = await self._disk.run(partial(self._mailbox.offered, opening.offer))
            if offer is None or offer.node != node_id(opening.device):
                raise Closed(pb.STATUS_INVALID_FRAME, f"offer {opening.offer} was not made to {opening.device}")
            transfer = _Transfer(context, opening, offer)
            await (self._receive(transfer) if opening.upload else self._send(transfer))
        except (NoRoomError, StorageError) as error:
            _log.error("transfers are not taken", extra={"why": str(error)})
            raise Closed(pb.STATUS_BUSY, str(error)) from error
        except TransferError as error:
            raise Closed(pb.STATUS_INVALID_FRAME, str(error)) from error

    # ------------------------------------------------------------ down

    async def _send(self, transfer: _Transfer) -> None:
        offer, opening = transfer.offer, transfer.opening
        if not offer.open or opening.content_sha256 != offer.sha256:
            raise Closed(pb.STATUS_EXPIRED, f"offer {offer.number} is {offer.state}: {offer.detail or 'it is settled'}")
        try:
            outgoing = self._mailbox.blobs.open(offer.sha256)
        except TransferError as error:
            await self._disk.run(partial(self._mailbox.withdraw, [offer.key], str(error)))
            raise Closed(pb.STATUS_EXPIRED, str(error)) from error
        try:
            await self._send_chunks(transfer, outgoing, self._paces.get(offer.node) or Pace())
        finally:
            outgoing.close()
        await self._disk.run(partial(self._mailbox.fetched, offer.number, offer.node))
        raise Closed(pb.STATUS_OK, "")

    async def _send_chunks(self, transfer: _Transfer, outgoing: Outgoing, pace: Pace) -> None:
        """Write chunks as they are acknowledged, until the device has closed."""
        have, strikes = transfer.opening.have_bytes, 0
        while have < outgoing.size:
            longest_s = await self._gaps.line(transfer.offer.node)
            size = min(pace.chunk_bytes(longest_s), self._gaps.most_bytes)
            async with self._gaps.turn():
                data, sha256 = await self._disk.to_the_end(partial(outgoing.chunk, have, size))
                written_s = self._loop.time()
                await transfer.context.write(_chunk(have, data, sha256))
                self._metrics.count_transferred("down", len(data))
                last, have = have, await _acknowledged(transfer.context, outgoing.size)
            pace.acknowledged(len(data), self._loop.time() - written_s)
            strikes = 0 if have > last else strikes + 1
            if strikes >= MOST_STRIKES:
                raise Closed(pb.STATUS_INVALID_FRAME, f"{strikes} chunks were not taken at byte {have}")
        self._remember(transfer.offer.node, pace)
        await _closed_in_order(transfer.context)

    def _remember(self, node: int, pace: Pace) -> None:
        """Keep what is known of a line for the next transfer, of the devices that came last."""
        self._paces.pop(node, None)
        self._paces[node] = pace
        if len(self._paces) > 4 * MOST_AT_A_TIME:
            del self._paces[next(iter(self._paces))]

    # ------------------------------------------------------------ up

    async def _receive(self, transfer: _Transfer) -> None:
        offer, opening = transfer.offer, transfer.opening
        if offer.state == "replied":
            await _acknowledge(transfer.context, opening.content_bytes)
            raise Closed(pb.STATUS_OK, "the reply was here already")
        if not offer.open:
            raise Closed(pb.STATUS_EXPIRED, f"offer {offer.number} is {offer.state}: {offer.detail}")
        try:
            _check_reply(offer, opening)
            if not self._mailbox.blobs.has(opening.content_sha256):
                await self._receive_blob(transfer)
        except NoRoomError:
            raise
        except TransferError as error:  # the device will not send another: nobody need wait for it
            await self._disk.run(
                partial(self._mailbox.refused, offer.number, offer.node, f"its reply is none: {error}")
            )
            raise
        await self._disk.run(
            partial(self._mailbox.replied, offer.number, offer.node, opening.envelope, opening.content_sha256)
        )
        self._metrics.count_offer("replied")
        self._offers.refresh([offer.node])
        raise Closed(pb.STATUS_OK, "")

    async def _receive_blob(self, transfer: _Transfer) -> None:
        async with self._incoming(transfer) as incoming:
            await self._receive_chunks(transfer.context, incoming)
            await self._disk.to_the_end(partial(incoming.finish, self._mailbox.blobs.folder))

    @asynccontextmanager
    async def _incoming(self, transfer: _Transfer) -> AsyncIterator[Incoming]:
        """Open the files, and close them whatever happens while they are being opened."""
        folder = self._mailbox.folder / "incoming" / f"{transfer.offer.node:016x}"
        opening = transfer.opening
        work = partial(self._open_incoming, folder, opening.content_sha256, opening.content_bytes)
        opened = self._disk.beside(work)
        try:
            yield await asyncio.shield(opened)
        finally:
            await ended(opened)
            if opened.exception() is None:
                opened.result().close()

    def _open_incoming(self, folder: Path, sha256: bytes, size: int) -> Incoming:
        """Begin or go on; what the device began before and did not finish is dropped: it sends one thing at a time."""
        if folder.is_dir():
            for path in folder.iterdir():
                if path.stem != sha256.hex():
                    path.unlink(missing_ok=True)
        self._mailbox.make_room(size)
        return Incoming.open(folder, sha256, size)

    async def _receive_chunks(self, context: Context, incoming: Incoming) -> None:
        strikes = 0
        while incoming.have < incoming.size:
            try:
                async with self._gaps.turn():
                    await _acknowledge(context, incoming.have, self._gaps.most_bytes)
                    await self._receive_chunk(context, incoming)
                strikes = 0
            except TransferError as error:
                strikes += 1
                if strikes >= MOST_STRIKES or isinstance(error, NoRoomError):
                    raise
        await _acknowledge(context, incoming.have)

    async def _receive_chunk(self, context: Context, incoming: Incoming) -> None:
        message = await _read(context)
        if message.WhichOneof("kind") != "chunk":
            raise Closed(pb.STATUS_INVALID_FRAME, f"a chunk was due, not {message.WhichOneof('kind')}")
        data = message.chunk.data  # each look at the field makes a copy
        await self._disk.to_the_end(partial(incoming.take, message.chunk.offset, data, message.chunk.sha256))
        self._metrics.count_transferred("up", len(data))


def _check_reply(offer: Offered, opening: pb.TransferOpen) -> None:
    """Refuse what can be no reply; raises :class:`TransferError`."""
    if offer.subject != "message":
        raise TransferError(f"offer {offer.number} is a {offer.subject}; it takes no reply")
    if opening.content_bytes > MOST_REPLY_BYTES or len(opening.envelope) > MOST_ENVELOPE_BYTES:
        raise TransferError(
            f"a reply of {opening.content_bytes} bytes with an envelope of {len(opening.envelope)}; "
            f"at most {MOST_REPLY_BYTES} and {MOST_ENVELOPE_BYTES} are taken"
        )


async def _read(context: Context) -> pb.TransferMessage:
    """The device's next message; raises :class:`Closed` if none comes."""
    try:
        async with asyncio.timeout(SILENT_S):
            message: object = await context.read()
    except TimeoutError:
        raise Closed(pb.STATUS_CANCELLED, f"nothing was heard for {SILENT_S:g} s") from None
    if not isinstance(message, pb.TransferMessage):
        raise Closed(pb.STATUS_CANCELLED, "the device ended the transfer")
    return message


async def _acknowledged(context: Context, size: int) -> int:
    message = await _read(context)
    match message.WhichOneof("kind"):
        case "ack" if message.ack.received_bytes <= size:
            return message.ack.received_bytes
        case "close":
            raise Closed(message.close.status or pb.STATUS_CANCELLED, f"the device closed: {message.close.detail}")
        case other:
            raise Closed(pb.STATUS_INVALID_FRAME, f"an acknowledgement of at most {size} bytes was due, not {other}")


async def _closed_in_order(context: Context) -> None:
    """Wait for the device's word that the whole is checked and on its disk."""
    message = await _read(context)
    if message.WhichOneof("kind") != "close":
        raise Closed(pb.STATUS_INVALID_FRAME, f"all was sent: close was due, not {message.WhichOneof('kind')}")
    if message.close.status != pb.STATUS_OK:
        raise Closed(message.close.status or pb.STATUS_CANCELLED, f"the device closed: {message.close.detail}")


def _chunk(offset: int, data: bytes, sha256: bytes) -> pb.TransferMessage:
    message = pb.TransferMessage()
    chunk = message.chunk  # filled in place: a chunk that is handed over is copied once more
    chunk.offset, chunk.data, chunk.sha256 = offset, data, sha256
    return message


async def _acknowledge(context: Context, have: int, most_bytes: int = MOST_BYTES) -> None:
    next_bytes = 0 if most_bytes == MOST_BYTES else most_bytes
    await context.write(pb.TransferMessage(ack=pb.TransferAck(received_bytes=have, next_bytes=next_bytes)))
