"""One long-lived stream to the edge server, and every frame answered once.

A frame keeps its number for life (window.py has the numbers). When the connection breaks, what was flying is written
again on the next one under the same number and session; the server answers a frame that it has run already from
memory, so none is lost and none is run twice.

With several servers, route.py says which one is tried next, and what flew moves there. Pauses between attempts double
up to a limit and are jittered, so that a fleet does not come back in one moment. They start small again only after an
answer: a server that greets and falls over is not hammered. With a spool, kept frames are delivered when nothing else
is to be written (delivery.py). Used on one event loop only, which does nothing here but move bytes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import grpc.aio

from headwater.compression.errors import HeadwaterError, IdentityError, LinkError, UnknownBundleError
from headwater.device.channel import heartbeat, is_final, open_channel, to_error, told_s, write
from headwater.device.delivery import Delivery
from headwater.device.link_options import LinkOptions
from headwater.device.route import Route
from headwater.device.window import Outgoing, Reply, Window
from headwater.protos import edge_pb2 as pb
from headwater.protos.edge_pb2_grpc import EdgeStub

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from headwater.compression.parts import Part
    from headwater.device.channel import Call, Opener
    from headwater.device.spool import Spool

DEFAULT_HEARTBEAT_MS = 10_000
GOODBYE_S = 1.0

_log = logging.getLogger(__name__)


class Link:
    """``async with Link("edge:50051", options) as link: reply = await link.send(data)``."""

    def __init__(
        self,
        servers: str | Sequence[str],
        options: LinkOptions,
        *,
        spool: Spool | None = None,
        channel: Opener = open_channel,
        rng: random.Random | None = None,
        on_late: Callable[[Reply], None] = lambda _: None,
        on_offer: Callable[[pb.Offer], None] | None = None,
        on_unknown: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        """Prepare a link; entering it connects.

        Args:
            servers: host:port, one or several.
            options: see :class:`LinkOptions`.
            spool: frames to deliver to a server that keeps them.
            channel: opens a channel to an address, encrypted if need be.
            rng: makes jitter and the session's number.
            on_late: gets the server's answer to a frame that was given up, see :class:`Window`.
            on_offer: gets what the server offers, and answers it by :meth:`control`; None refuses everything.
            on_unknown: told that no server has the bundle in use; True if another one was used meanwhile.
        """
        self._rng = rng or random.SystemRandom()
        self._route = Route([servers] if isinstance(servers, str) else servers, options.device)
        self.options, self.device = options, options.device
        """How it behaves; and what the device is called at the server at hand."""
        self.bundle_id, self._agreed = options.bundle_id, b""
        """Of the bundle in use, see :meth:`use`; and of that which the server takes nameless frames for."""
        self.window = Window(options.window, self._rng, on_late)
        self.connections = 0
        """How many there have been."""
        self.connected = asyncio.Event()
        self.welcome = pb.Welcome()
        """The server's last greeting: its tasks and limits."""
        self.mode_hint: pb.ModeHint | None = None
        """The server's last wish on this connection."""
        self.last_error: HeadwaterError | None = None
        """Why there is no connection; None while there is one."""
        self.heard_s = time.monotonic()
        """When the server was last heard of."""
        self.channel: grpc.aio.Channel | None = None
        """The connection, for transfers beside the stream (courier.py); None while there is none."""
        self._on_offer = on_offer or self.refuse
        self._on_unknown = on_unknown or _nothing_else
        self._channel = channel
        self.session = self._rng.getrandbits(63) + 1  # 0 would mean no session
        """Random; with it a frame's number is unique."""
        self._control: deque[pb.DeviceMessage] = deque()
        self._wake = asyncio.Event()
        self._delivery = None if spool is None else Delivery(spool, self._rng, self._wake.set)
        self._refusing: set[str] = set()
        self._complained = ""
        self._worked = False
        self._pause_s = options.first_pause_s
        self._patience_s = options.failover_s
        self._closing = self._moving = False
        self._runner: asyncio.Task[None] | None = None
        self._spooler: asyncio.Task[None] | None = None

    @property
    def server(self) -> str:
        """The server at hand: connected, or being tried."""
        return self._route.current

    async def __aenter__(self) -> Self:
        self._runner = asyncio.create_task(self._run(), name="headwater-link")
        if self._delivery is not None:
            self._spooler = asyncio.create_task(self._delivery.run(), name="headwater-spool")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Deliver what can be in a moment, say goodbye and close; frames without an answer get a :class:`LinkError`."""
        try:
            if self._delivery is not None:
                await self._delivery.linger(self.options.linger_s)
        finally:
            await self._close()

    async def _close(self) -> None:
        assert self._runner is not None
        self._closing = True
        self._wake.set()
        await asyncio.wait([self._runner], timeout=GOODBYE_S if self.connected.is_set() else 0)
        for task in (self._runner, self._spooler):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self.window.fail_all(LinkError("the link was closed before the answer came"))

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        """Wait for the server's welcome; raises the :class:`LinkError` of the last attempt after ``timeout_s``."""
        assert self._runner is not None
        waiter = asyncio.create_task(self.connected.wait())
        await asyncio.wait([waiter, self._runner], timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if not self.connected.is_set():
            where = " or ".join(self._route.known)
            raise self.last_error or LinkError(f"no server answers at {where} within {timeout_s:g} s")

    async def send(
        self,
        data: bytes | Sequence[Part],
        *,
        bundle_id: bytes = b"",
        tasks: Sequence[str] = (),
        priority: int = 0,
        give_up_s: float | None = None,
    ) -> Reply:
        """Send a frame in the stream form, or in parts, and wait for its answer, across any number of connections.

        Parts are written one after the other, other messages between them; those that are not written when the answer
        comes, or when the frame is given up, stay here. ``bundle_id`` coded it, full; the one in use if not given.

        Cancelling the caller withdraws the frame. ``give_up_s``, by ``time.monotonic()``, ends the waiting with
        STATUS_EXPIRED. Raises :class:`LinkError` when the link is closed, and what the server said when it refuses
        this device for good; a persistent link goes on trying for later frames.
        """
        if self._closing or self._runner is None:
            raise LinkError("the link is closed; open a new one")
        if self._runner.done() and self.last_error is not None:
            raise self.last_error
        whole, parts = (data, ()) if isinstance(data, bytes) else (b"", data)
        frame = pb.FeatureFrame(data=whole, tasks=tasks, priority=priority, bundle_id=bundle_id or self.bundle_id)
        outgoing = self.window.submit(frame, time.monotonic(), give_up_s, parts)
        self._wake.set()
        timer = self._give_up_at(outgoing)
        try:
            return await outgoing.future
        finally:
            if timer is not None:
                timer.cancel()
            if outgoing.future.cancelled() and outgoing.sequence in self.window.flying:
                self.control(pb.DeviceMessage(cancel=pb.Cancel(sequence=outgoing.sequence)))

    def use(self, bundle_id: bytes) -> None:
        """From now on, frames that name no bundle are of this one; those of another name it, also when sent again."""
        self.bundle_id = bundle_id
        self.control(pb.DeviceMessage(use_bundle=pb.UseBundle(bundle_id=bundle_id)))

    def reconnect(self) -> None:
        """Open another connection, as with another certificate, once what flies is answered."""
        self._moving = self.connected.is_set()
        self._wake.set()

    def control(self, message: pb.DeviceMessage) -> None:
        """Write a message that is no frame, before the next frame or goodbye; without a connection it is dropped."""
        if self.connected.is_set():
            self._control.append(message)
            self._wake.set()

    def _give_up_at(self, outgoing: Outgoing) -> asyncio.TimerHandle | None:
        if outgoing.give_up_s is None:
            return None
        left_s = max(outgoing.give_up_s - time.monotonic(), 0)
        return asyncio.get_running_loop().call_later(left_s, lambda: self.window.give_up(outgoing, time.monotonic()))

    # ------------------------------------------------------------ connections

    async def _run(self) -> None:
        while not self._closing:
            self._route.next()
            self._worked = False
            try:
                await self._converse()
            except (grpc.aio.AioRpcError, IdentityError) as error:
                self._lost(to_error(error, self.server))
                if is_final(error) and await self._refused_for_good() and not self.options.persistent:
                    return
            except TimeoutError:
                self._lost(LinkError(f"the server {self.server} did not greet within {self._greeting_limit_s:g} s"))
            else:
                self._lost(LinkError(f"the server {self.server} ended the stream"))
            self._route.ended(worked=self._worked)
            if not self._closing and self._route.pauses:
                await asyncio.sleep(self._next_pause_s())

    async def _refused_for_good(self) -> bool:
        """Whether all servers have refused this device, whatever bundle it has; ends all frames then."""
        self._refusing.add(self.server)
        if not self._refusing.issuperset(self._route.known):
            return False
        assert self.last_error is not None
        if isinstance(self.last_error, UnknownBundleError) and await self._on_unknown(str(self.last_error)):
            self._refusing.clear()  # the device has another bundle now
            return False
        if str(self.last_error) != self._complained:
            self._complained = str(self.last_error)
            _log.error("%s", self._complained)
        self.window.fail_all(self.last_error)
        return True

    async def _converse(self) -> None:
        """One connection, from hello to its end. Returns when the server ended it in order."""
        async with self._channel(self.server) as channel:
            call = EdgeStub(channel).Stream()
            try:
                began_s = time.monotonic()
                async with asyncio.timeout(self._greeting_limit_s):
                    await write(call, pb.DeviceMessage(hello=self._hello()))
                    first = await call.read()
                if isinstance(first, pb.ServerMessage):
                    self.channel = channel
                    self._greeted(first.welcome, time.monotonic() - began_s)
                    await self._exchange(call)
            finally:
                self.connected.clear()
                self.channel = None
                call.cancel()

    async def _exchange(self, call: Call) -> None:
        writer = asyncio.create_task(self._write_all(call), name="headwater-link-writer")
        try:
            while isinstance(message := await call.read(), pb.ServerMessage):
                self._take(message)
                if self.window.draining and not self.window.flying and not self._kept_flying:
                    return
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    @property
    def _kept_flying(self) -> bool:
        return self._delivery is not None and bool(self._delivery.flying)

    def _hello(self) -> pb.Hello:
        self._agreed, self.device = self.bundle_id, self.options.name_at(self.server) or self.options.device
        return pb.Hello(
            device=self.device,
            bundle_id=self._agreed,
            agent_version=self.options.version,
            session=self.session,
            resume_from=self.window.resume_from,
            capabilities=self.options.capabilities,
            window=self.options.window,
        )

    def _greeted(self, welcome: pb.Welcome, greeting_s: float) -> None:
        self.welcome, self.mode_hint, self.last_error, self._moving = welcome, None, None, False
        self.heard_s = time.monotonic()
        self.connections += 1
        self.window.greeted(welcome.max_in_flight, greeting_s)
        if self._delivery is not None:
            self._delivery.greeted(keeps=welcome.keeps)
        self._refusing.discard(self.server)
        self._control.clear()
        self.connected.set()
        if self.bundle_id != self._agreed:  # it was changed while the hello was on its way
            self.use(self.bundle_id)
        _log.info("connected to %s", self.server)

    def _lost(self, error: HeadwaterError) -> None:
        if self.last_error is None and not (self._closing or self._moving):
            _log.warning("%s; trying again", error)
        self.last_error = error
        self.window.lost()
        if self._delivery is not None:
            self._delivery.lost()

    def _next_pause_s(self) -> float:
        self._patience_s *= 2
        if moment_s := told_s(self.last_error):
            return max(moment_s, self.options.first_pause_s)  # the device's own: nobody else was told the same
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, self.options.longest_pause_s)
        return pause_s * self._rng.uniform(0.5, 1.0)

    @property
    def _greeting_limit_s(self) -> float:
        longest_s = self.options.connect_timeout_s
        return min(longest_s, self._patience_s) if len(self._route.known) > 1 else longest_s

    # ------------------------------------------------------------ writing and reading

    async def _write_all(self, call: Call) -> None:
        heartbeat_s = (self.welcome.heartbeat_ms or DEFAULT_HEARTBEAT_MS) / 1e3
        due_s = time.monotonic() + heartbeat_s
        while self._control or not (self._closing or self._moving):
            self._wake.clear()
            now_s = time.monotonic()
            message = self._next_message(now_s)
            if message is None and now_s < due_s:
                await _wait(self._wake, min(due_s - now_s, self._held_for_s(now_s) or heartbeat_s))
                continue
            await write(call, message or heartbeat())
            due_s = time.monotonic() + heartbeat_s
        await write(call, pb.DeviceMessage(goodbye=pb.Goodbye()))
        await call.done_writing()

    def _next_message(self, now_s: float) -> pb.DeviceMessage | None:
        if self._control:
            message = self._control.popleft()
            self._agreed = message.use_bundle.bundle_id or self._agreed
            return message
        if (frame := self._next_frame(now_s)) is not None:
            if self._delivery is not None:
                self._delivery.live_written(len(frame.data))
            return pb.DeviceMessage(frame=frame)
        kept = None if self._delivery is None else self._delivery.next(self.window, now_s)
        return None if kept is None else pb.DeviceMessage(kept=kept)

    def _next_frame(self, now_s: float) -> pb.FeatureFrame | None:
        if (part := self.window.next_part()) is not None:
            return part
        outgoing = self.window.next(now_s)
        return None if outgoing is None else outgoing.message(self._agreed)

    def _held_for_s(self, now_s: float) -> float | None:
        """How long something that is to be written is held."""
        frames_s = self.window.held_for_s(now_s)
        kept_s = None if self._delivery is None else self._delivery.held_for_s(self.window, now_s)
        return min((held_s for held_s in (frames_s, kept_s) if held_s is not None), default=None)

    def _take(self, message: pb.ServerMessage) -> None:
        self.heard_s = time.monotonic()
        match message.WhichOneof("kind"):
            case "answer":
                if self.window.answered(message.answer, self.heard_s):
                    self._works()
            case "kept_ack" if self._delivery is not None:
                self._delivery.acknowledged(message.kept_ack, self.heard_s)
                self._works()
            case "heartbeat":
                self._worked = True
            case "mode_hint":
                self.mode_hint = message.mode_hint
            case "drain":
                _log.info("the server %s is stopping", self.server)
                self.window.draining = True
                self._route.stopping(message.drain.servers)
            case "offer":
                self._on_offer(message.offer)
        self._wake.set()

    def refuse(self, offer: pb.Offer) -> None:
        """Say that offers of this kind are not taken."""
        self.control(pb.DeviceMessage(offer_reply=pb.OfferReply(offer=offer.offer, reason="this agent takes none")))

    def _works(self) -> None:
        self._worked = True
        self._pause_s, self._patience_s = self.options.first_pause_s, self.options.failover_s


async def _nothing_else(_: str) -> bool:
    return False


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
