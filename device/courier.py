"""Large things on the link's connection: offered contents down, replies up, in the gaps that frames leave.

    Exchange, down:  open(have_bytes) ──>  <── chunk   ack ──>  <── chunk   ack ──> ...   close ──>
    Exchange, up:    open ──>  <── ack(received)   chunk ──>  <── ack   chunk ──> ...   <── close

A transfer outlives connections: it goes on where it was on the next one, and after a restart from what is on the disk
(compression/transfer.py). One goes at a time, in the order of asking, and of it one chunk, so that what a frame may
meet on the line is one chunk and no more:

- while a frame waits or flies, none is written, but one of :data:`BESIDE_S` after :data:`PATIENCE_S`, so that a device
  that is never without frames gets through as well;
- where frames have come lately, chunks are that short too;
- on a link without frames, one takes at most 200 ms;
- none is larger than the server's last acknowledgement says, since there are the frames of other devices, too.

Downwards the server keeps to the same rule.

A server that is silent, or lets bytes drip (TUF's slow retrieval), holds up nobody for ever: the transfer is broken
off, others get their turn, and it goes on later where it was. Whoever sends more than was offered is cut off.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import grpc.aio

from headwater.compression.errors import TransferError
from headwater.compression.transfer import CHUNK_S, MOST_BYTES, Incoming, Outgoing, Pace
from headwater.device.channel import FINAL
from headwater.protos import edge_pb2 as pb
from headwater.protos.edge_pb2_grpc import EdgeStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path
    from typing import TypeAlias

    from headwater.device.link import Link
    from headwater.device.window import Window

    Call: TypeAlias = grpc.aio.StreamStreamCall[pb.TransferMessage, pb.TransferMessage]

T = TypeVar("T")

PATIENCE_S = 2.0
"""So long a chunk waits for a moment without frames."""
BESIDE_S = 0.02
"""What a chunk may take where there are frames."""
LATELY_S = 5.0
"""Frames that came in this time are expected to go on coming."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 10.0
"""Between attempts that broke off while the connection stood."""
MOST_STRIKES = 5
"""Chunks in a row that the receiver did not take."""
MOST_AFTER_CLOSE = 4
"""Messages that are read after a transfer was closed."""
_LATER = {pb.STATUS_BUSY, pb.STATUS_DRAINING, pb.STATUS_INTERNAL, pb.STATUS_CANCELLED}
"""A transfer that is closed so is tried again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Slowest:
    """How slow a server may be before a transfer is broken off, to go on later."""

    silent_s: float = 60.0
    """Without a word; 4 KiB take 7 s at 5 kbit/s."""
    least_bytes: int = 1024
    """That come within :attr:`within_s`: a link of 5 kbit/s that is never without frames carries three times that."""
    within_s: float = 600.0
    clock: Callable[[], float] = time.monotonic


class Courier:
    """Carries what is large over one link; used on its event loop."""

    def __init__(
        self,
        link: Link,
        *,
        rng: random.Random | None = None,
        patience_s: float = PATIENCE_S,
        slowest: Slowest = Slowest(),
    ) -> None:
        """``patience_s``: how long a chunk waits for a moment without frames; ``slowest``: what servers may be."""
        self._link = link
        self._slowest = slowest
        self._rng = rng or random.SystemRandom()
        self._patience_s = patience_s
        self._turn = asyncio.Lock()
        self._rate: float | None = None

    async def download(self, offer: pb.Offer, folder: Path) -> Path:
        """Fetch what was offered; the file in ``folder``, named by its SHA-256, whole and checked.

        It waits for connections for as long as it is not cancelled; what has come stays on the disk for the next time.
        A power cut after that may damage the file: then it is to be fetched again.

        Raises:
            TransferError: the server refuses, what it sends has not the hash that it offered, or the disk is full.
        """

        async def once(call: Call) -> Path:
            return await _receive(call, self._open(offer), folder, self._slowest)

        return await self._deliver(once)

    async def upload(self, offer: pb.Offer, path: Path, sha256: bytes, envelope: bytes = b"") -> None:
        """Send a file, the reply to an offer; returns when the server has it and says so.

        Raises:
            TransferError: the server refuses it, or it cannot be read.
        """
        outgoing = await on_disk(partial(Outgoing, path), Outgoing.close)

        async def once(call: Call) -> None:
            opening = self._open(offer)
            opening.upload, opening.envelope = True, envelope
            opening.content_sha256, opening.content_bytes = sha256, outgoing.size
            await self._send(call, opening, outgoing)

        try:
            await self._deliver(once)
        finally:
            outgoing.close()

    def _open(self, offer: pb.Offer) -> pb.TransferOpen:
        return pb.TransferOpen(
            device=self._link.device,
            content=offer.kind,
            content_sha256=offer.content_sha256,
            content_bytes=offer.content_bytes,
            offer=offer.offer,
        )

    # ------------------------------------------------------------ across connections

    async def _deliver(self, once: Callable[[Call], Awaitable[T]]) -> T:
        """Try on one connection after the other."""
        pause_s = FIRST_PAUSE_S
        while True:
            await self._link.connected.wait()
            try:
                async with self._turn, self._calling() as call:
                    return await once(call)
            except _AgainError as error:
                _log.log(error.level, "a transfer goes on later: %s", error)
            await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    @asynccontextmanager
    async def _calling(self) -> AsyncIterator[Call]:
        """One call on the link's connection, whose errors are ours."""
        if self._link.channel is None:
            raise _AgainError("the connection ended")
        call = EdgeStub(self._link.channel).Exchange()
        try:
            yield call
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            if isinstance(error, grpc.aio.AioRpcError) and error.code() in FINAL:
                raise TransferError(f"the server {self._link.server} takes no transfers: {error.details()}") from error
            raise _AgainError(str(error) or type(error).__name__) from error
        except asyncio.CancelledError as error:
            # The link that closes its channel cancels the calls on it, which looks as if this task had been cancelled.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            raise _AgainError("the connection ended") from error
        finally:
            call.cancel()

    # ------------------------------------------------------------ up

    async def _send(self, call: Call, opening: pb.TransferOpen, outgoing: Outgoing) -> None:
        began_s = time.monotonic()
        await call.write(pb.TransferMessage(open=opening))
        ack = await self._acknowledged(call)
        pace = Pace(time.monotonic() - began_s, self._rate)
        have = strikes = 0
        while ack is not None and strikes < MOST_STRIKES:
            have = ack.received_bytes
            if have >= outgoing.size:
                ack = await self._acknowledged(call)  # nothing is left to do but to hear that it was taken
                continue
            ack = await self._send_chunk(call, outgoing, ack, pace)
            strikes = strikes + 1 if ack is not None and ack.received_bytes <= have else 0
        if strikes:
            raise TransferError(f"the server took none of {strikes} chunks at byte {have}; it acknowledged no more")

    async def _send_chunk(
        self, call: Call, outgoing: Outgoing, ack: pb.TransferAck, pace: Pace
    ) -> pb.TransferAck | None:
        longest_s = await self._gap(self._link.window)
        size = min(pace.chunk_bytes(longest_s), ack.next_bytes or MOST_BYTES)
        data, sha256 = await on_disk(partial(outgoing.chunk, ack.received_bytes, size))
        written_s = time.monotonic()
        message = pb.TransferMessage()
        chunk = message.chunk  # filled in place: a chunk that is handed over is copied once more
        chunk.offset, chunk.data, chunk.sha256 = ack.received_bytes, data, sha256
        await call.write(message)
        taken = await self._acknowledged(call)
        pace.acknowledged(len(data), time.monotonic() - written_s)
        self._rate = pace.rate
        return taken

    async def _gap(self, window: Window) -> float:
        """Wait for a moment without frames; how long the line may be held then."""
        try:
            async with asyncio.timeout(self._patience_s):
                await window.idle.wait()
        except TimeoutError:
            return BESIDE_S
        return BESIDE_S if time.monotonic() - window.submitted_s < LATELY_S else CHUNK_S

    async def _acknowledged(self, call: Call) -> pb.TransferAck | None:
        """What the receiver has by now, and what it takes next; None when it has closed in order."""
        message = await _read(call, self._slowest)
        match message.WhichOneof("kind"):
            case "ack":
                return message.ack
            case "close":
                return None
            case other:
                raise TransferError(f"the server sent {other} where an acknowledgement was due")


class _AgainError(Exception):
    """The transfer broke off; on another connection, or later on this one, it goes on."""

    level = logging.DEBUG


class _SlowError(_AgainError):
    """It did not break, but might as well have."""

    level = logging.WARNING


# ------------------------------------------------------------ down


async def _receive(call: Call, opening: pb.TransferOpen, folder: Path, slowest: Slowest) -> Path:
    opened = partial(Incoming.open, folder, opening.content_sha256, opening.content_bytes, lasting=False)
    incoming = await on_disk(opened, Incoming.close)
    try:
        opening.have_bytes = incoming.have
        await call.write(pb.TransferMessage(open=opening))
        await _receive_chunks(call, incoming, slowest)
        path = await on_disk(incoming.finish)
    except TransferError as error:
        await _close(call, slowest, pb.STATUS_INVALID_FRAME, str(error))
        raise
    finally:
        incoming.close()
    await _close(call, slowest, pb.STATUS_OK)
    return path


async def _receive_chunks(call: Call, incoming: Incoming, slowest: Slowest) -> None:
    began_s, had = slowest.clock(), incoming.have
    while incoming.have < incoming.size:
        await _receive_chunk(call, incoming, slowest)
        took_s, came = slowest.clock() - began_s, incoming.have - had
        if came >= slowest.least_bytes:
            began_s, had = slowest.clock(), incoming.have
        elif took_s > slowest.within_s:
            raise _SlowError(f"{came} bytes came in {took_s:.0f} s; {incoming.have} of {incoming.size} are here")


async def _receive_chunk(call: Call, incoming: Incoming, slowest: Slowest) -> None:
    message = await _read(call, slowest)
    if message.WhichOneof("kind") != "chunk":
        raise TransferError(f"the server sent {message.WhichOneof('kind')} where a chunk was due")
    chunk = message.chunk
    have = await on_disk(partial(incoming.take, chunk.offset, chunk.data, chunk.sha256))
    await call.write(pb.TransferMessage(ack=pb.TransferAck(received_bytes=have)))


async def on_disk(work: Callable[[], T], undo: Callable[[T], object] = lambda _: None) -> T:
    """Have a thread do it.

    Who is cancelled meanwhile waits for its end, for the file is in use till then; ``undo`` gets what came of it.
    """
    job = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        while not job.done():
            with suppress(asyncio.CancelledError):  # once more: this is on its way out already
                await asyncio.wait([job])
        if job.exception() is None:
            undo(job.result())
        raise


# ------------------------------------------------------------ messages


async def _read(call: Call, slowest: Slowest) -> pb.TransferMessage:
    """The next message, of a closing one only what is in order."""
    try:
        async with asyncio.timeout(slowest.silent_s):
            message = await call.read()
    except TimeoutError:
        raise _SlowError(f"the server said nothing for {slowest.silent_s:g} s") from None
    if not isinstance(message, pb.TransferMessage):
        raise _AgainError("the server ended the transfer")
    close = message.close
    if message.WhichOneof("kind") == "close" and close.status != pb.STATUS_OK:
        text = f"the server closed the transfer with {pb.Status.Name(close.status)}: {close.detail}"
        raise _AgainError(text) if close.status in _LATER else TransferError(text)
    return message


async def _close(call: Call, slowest: Slowest, status: pb.Status, detail: str = "") -> None:
    """Say what became of it, and wait until the other end has heard it, but not for ever."""
    with suppress(TimeoutError):
        async with asyncio.timeout(slowest.silent_s):
            await call.write(pb.TransferMessage(close=pb.TransferClose(status=status, detail=detail)))
            await call.done_writing()
            for _ in range(MOST_AFTER_CLOSE):
                if not isinstance(await call.read(), pb.TransferMessage):
                    return
