"""A link of a chosen rate and delay on real TCP sockets: a proxy between a device and its server.

The proxy listens on a local port and forwards every connection to the server's address. Each direction is a
:class:`Lane` (`lane.py`): all connections share its rate, as all that a modem sends shares one radio::

    device ──> socket ──> buffer (bounded) ──> lane: rate from a trace ──> delay ──> socket ──> server
                  reading pauses while it is full    one chunk at a time     many at a time

A chunk's time is computed, never measured: it begins when the chunk arrived or when the one before it had left,
whichever is later, and ends when the trace has carried its bytes. A timer that fires late therefore delays one chunk by
a millisecond and no others, and the rate holds at 5 kbit/s as at 50 Mbit/s. Chunks are some 20 ms of the rate, so that
no connection waits long for another's turn and a reset can hit the middle of a frame.

What is modelled: rate over time, delay, bounded buffers with back-pressure, the round trip that a new connection costs,
stalls, black-outs and resets. What is not: the bytes of TCP's and IP's own headers, and single lost packets, which TCP
would show as a stall anyway. Rates are of the bytes that the two programs write.

    async with LinkProxy("127.0.0.1:50051", LinkTrace.constant("LoRa", 5_000, delay_s=0.05)) as proxy:
        ...                       # let a device connect to proxy.address
        proxy.up.hold()           # a stall: nothing more leaves the device; proxy.up.release() ends it
        proxy.black_out()         # both ways, new connections too; proxy.restore() ends it
        proxy.cut()               # reset every connection now
        proxy.up.bytes            # what was carried
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

from headwater.compression.errors import SettingsError
from headwater.simulations.lane import Lane, Passage, Way

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headwater.simulations.trace import LinkTrace

BUFFER_S = 0.1
LEAST_BUFFER, MOST_BUFFER = 2048, 1 << 18
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER on, for 0 s: closing sends RST instead of FIN."""

Ending = Literal["end", "reset"]


class LinkProxy:
    """Forwards a local port to a server, through a link; see the module's text."""

    def __init__(
        self,
        server: str,
        link: LinkTrace,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        buffer_bytes: int | None = None,
        observe: Callable[[Passage], None] | None = None,
    ) -> None:
        """Prepare a proxy; :meth:`start` opens it.

        Args:
            server: where to forward to, host:port.
            link: rates and delays of both directions.
            host: local address to listen on.
            port: local port; 0 takes a free one.
            buffer_bytes: what may wait for the link, each connection and direction; None for 100 ms of the mean rate
                (2 KiB to 256 KiB).
            observe: called with each chunk that crosses.
        """
        self.link = link
        self.connections = 0
        """Opened so far."""
        self._server = _split(server)
        self._listen = (host, port)
        self._buffer_bytes = buffer_bytes
        self._observe = observe
        self._open: set[_Connection] = set()
        self._listener: asyncio.Server | None = None
        self.up: Lane
        self.down: Lane

    async def start(self) -> None:
        """Listen, and start the traces; raises :class:`SettingsError` when the port is taken."""
        self.up = Lane(self.link.up, self.link.up_delay_s)
        self.down = Lane(self.link.down, self.link.down_delay_s)
        listener = _socket(self._buffer(self.up))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(self._listen)
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(self._accept, sock=listener)
        except OSError as error:
            listener.close()
            host, port = self._listen
            raise SettingsError(
                f"the link {self.link.name} cannot listen on {host}:{port}: {error.strerror}; give another port, or "
                "0 for a free one"
            ) from error

    async def close(self) -> None:
        """Stop listening and drop what is open."""
        assert self._listener is not None, "not started"
        self._listener.close()
        tasks = [connection.task for connection in self._open]
        self.cut()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._listener.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def port(self) -> int:
        """The local port."""
        assert self._listener is not None, "not started"
        return int(self._listener.sockets[0].getsockname()[1])

    @property
    def address(self) -> str:
        """What a device connects to, host:port."""
        return f"{self._listen[0]}:{self.port}"

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._open)

    def black_out(self) -> None:
        """Carry nothing in either direction, nor new connections, until :meth:`restore`."""
        self.up.hold()
        self.down.hold()

    def restore(self) -> None:
        """End a black-out."""
        self.up.release()
        self.down.release()

    def cut(self) -> int:
        """Reset every connection now, on both sides; returns how many there were."""
        connections = list(self._open)
        for connection in connections:
            connection.reset()
        return len(connections)

    def _accept(self) -> asyncio.Protocol:
        self.connections += 1
        device = _End(self._buffer(self.up))
        connection = _Connection(device, self._connect, self.up, self.down, self._observe)
        self._open.add(connection)
        connection.task.add_done_callback(lambda _: self._open.discard(connection))
        return device

    def _buffer(self, lane: Lane) -> int:
        if self._buffer_bytes is not None:
            return self._buffer_bytes
        return int(min(max(lane.trace.mean_bits_per_s / 8 * BUFFER_S, LEAST_BUFFER), MOST_BUFFER))

    async def _connect(self) -> _End:
        """Open the server's side of a connection."""
        loop, size = asyncio.get_running_loop(), self._buffer(self.down)
        sock = _socket(size)
        try:
            await loop.sock_connect(sock, self._server)
            _, end = await loop.create_connection(partial(_End, size), sock=sock)
        except BaseException:
            sock.close()
            raise
        return end


class _Connection:
    """A device's socket and the server's, with a pump each way."""

    def __init__(
        self,
        device: _End,
        connect: Callable[[], Awaitable[_End]],
        up: Lane,
        down: Lane,
        observe: Callable[[Passage], None] | None,
    ) -> None:
        self._device = device
        self._server: _End | None = None
        self._connect = connect
        self._up, self._down = up, down
        self._observe = observe
        self.task = asyncio.get_running_loop().create_task(self._run())

    def reset(self) -> None:
        self.task.cancel()
        for end in (self._device, self._server):
            if end is not None:
                end.reset()

    async def _run(self) -> None:
        try:
            await self._up.opened()
            server = self._server = await self._connect()
            # The kernel shook hands with the device at once; over the link it takes a round trip.
            begin = asyncio.get_running_loop().time() + self._up.delay_s + self._down.delay_s
            await asyncio.gather(
                self._pump("up", self._device, server, begin), self._pump("down", server, self._device, begin)
            )
        except OSError:  # the server refused: so is the device
            self._device.reset()
        finally:
            for end in (self._device, self._server):
                if end is not None:
                    end.close()

    async def _pump(self, way: Way, source: _End, sink: _End, begin: float) -> None:
        """Carry what comes from the source until it ends."""
        lane = self._up if way == "up" else self._down
        what: bytes | Ending = b""
        while isinstance(what, bytes):
            arrived_s, what = await source.take(lane.chunk_bytes)
            await sink.writable.wait()
            arrived_s = max(arrived_s, begin)
            size = len(what) if isinstance(what, bytes) else 0
            delivered_s = await lane.carry(arrived_s, size)
            if self._observe is not None and size:
                self._observe(Passage(way, size, arrived_s, delivered_s))
            sink.send(delivered_s, what)
        await sink.sent.wait()


class _End(asyncio.Protocol):
    """One socket: what came in and waits for the link, and what has crossed it and waits for its time."""

    def __init__(self, buffer_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer_bytes = buffer_bytes
        self._transport: asyncio.Transport | None = None
        self._came: deque[tuple[float, bytes | Ending]] = deque()
        self._waiting = 0
        """Bytes in `_came`."""
        self._news = asyncio.Event()
        self._due: deque[tuple[float, bytes | Ending]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._gone = False
        """Reset or closed, perhaps before there was a transport."""
        self.writable = asyncio.Event()
        """Cleared while the peer reads more slowly than the link delivers."""
        self.writable.set()
        self.sent = asyncio.Event()
        """Set once everything up to the end was written, or nobody is left to write to."""

    # ------------------------------------------------------------ from the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=self._buffer_bytes)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._gone:
            self.reset()

    def data_received(self, data: bytes) -> None:
        self._came.append((self._loop.time(), data))
        self._waiting += len(data)
        self._news.set()
        if self._waiting >= self._buffer_bytes and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended("end")
        return True  # the other direction may go on

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended("reset" if exc else "end")
        self._transport = None
        self._due.clear()
        self.writable.set()
        self.sent.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def _ended(self, how: Ending) -> None:
        self._came.append((self._loop.time(), how))
        self._news.set()

    # ------------------------------------------------------------ to the link

    async def take(self, most: int) -> tuple[float, bytes | Ending]:
        """Wait for something to send: at most so many bytes with the time of their arrival, or the end."""
        while not self._came:
            self._news.clear()
            await self._news.wait()
        arrived_s, what = self._came.popleft()
        if isinstance(what, str):
            return arrived_s, what
        if len(what) > most:
            self._came.appendleft((arrived_s, what[most:]))
            what = what[:most]
        self._waiting -= len(what)
        if (
            self._waiting <= self._buffer_bytes // 2
            and self._transport is not None
            and not self._transport.is_closing()
        ):
            self._transport.resume_reading()
        return arrived_s, what

    # ------------------------------------------------------------ from the link

    def send(self, when: float, what: bytes | Ending) -> None:
        """Write at that time, after everything before it."""
        if self._transport is None:
            self.sent.set()
            return
        self._due.append((max(when, self._due[-1][0]) if self._due else when, what))
        if self._timer is None:
            self._flush()

    def _flush(self) -> None:
        """Write what is due, and set the timer for the next."""
        self._timer = None
        while self._due and self._due[0][0] <= self._loop.time():
            self._write(self._due.popleft()[1])
        if self._due:
            self._timer = self._loop.call_at(self._due[0][0], self._flush)

    def _write(self, what: bytes | Ending) -> None:
        if self._transport is None:
            return
        if isinstance(what, bytes):
            self._transport.write(what)
        elif what == "end":
            with suppress(OSError):  # the peer has gone: there is nobody to tell
                self._transport.write_eof()
            self.sent.set()
        else:
            self.reset()

    def reset(self) -> None:
        """Drop everything and send RST."""
        self._gone = True
        self._due.clear()
        if self._transport is not None:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()

    def close(self) -> None:
        """Close; what was written is still sent."""
        self._gone = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()


def _socket(buffer_bytes: int) -> socket.socket:
    """A TCP socket with a small receive buffer: else the kernel would hold seconds of a slow link, unseen."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)  # noqa: FBT003 - takes it by position only
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    return sock


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SettingsError(f"the server's address is {address!r}; it must be host:port, such as 127.0.0.1:50051")
    return host, int(port)
