"""The proxy on real sockets: an echo and a sink behind it.

Clocks are checked in one direction only where the machine's load can push the other: a link never carries more than its
rate, and what it carries exactly is in `test_lane.py`. Upper bounds leave room for a busy machine.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress

import pytest

from headwater.compression.errors import SettingsError
from headwater.simulations.link import LinkProxy, Passage
from headwater.simulations.trace import LinkTrace, Trace

FAST = LinkTrace.constant("fast", 1e9)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    listening = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with listening:
        yield f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def connected(proxy: LinkProxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except ConnectionError:
        pass
    finally:
        writer.close()


class Sink:
    """Counts what comes, by the clock."""

    def __init__(self, expected: int) -> None:
        self.received = bytearray()
        self.full, self.ended = asyncio.Event(), asyncio.Event()
        self.expected = expected
        self.times: list[tuple[float, int]] = []
        self.error: ConnectionError | None = None

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.received += data
                self.times.append((time.monotonic(), len(self.received)))
                if len(self.received) >= self.expected:
                    self.full.set()
        except ConnectionError as error:
            self.error = error
        finally:
            self.ended.set()
            writer.close()


def pattern(size: int) -> bytes:
    return bytes(at * 7 % 251 for at in range(size))


@pytest.mark.parametrize(
    ("bits_per_s", "size"), [(5_000, 400), (300_000, 20_000), (50_000_000, 3_000_000)], ids=["LoRa", "LTE-M", "Wi-Fi"]
)
async def test_the_rate_holds_on_any_kind_of_link(bits_per_s: float, size: int) -> None:
    sink, seen = Sink(size), list[Passage]()
    link = LinkTrace.constant("x", bits_per_s)
    async with server(sink) as address, LinkProxy(address, link, observe=seen.append) as proxy:
        async with connected(proxy) as (_, writer):
            data = pattern(size)
            begin = time.monotonic()
            writer.write(data)
            await asyncio.wait_for(sink.full.wait(), 30)
        assert sink.received == data
        assert proxy.up.bytes == size
        assert proxy.down.bytes == 0
        for when, count in sink.times:
            assert count * 8 <= bits_per_s * (when - begin + 0.002), "more crossed than the link can carry"
        free_s = begin
        for passage in seen:
            taken_s = passage.delivered_s - max(passage.arrived_s, free_s)
            assert taken_s == pytest.approx(passage.size * 8 / bits_per_s, abs=1e-6), "the link did not do what it can"
            free_s = passage.delivered_s


async def test_directions_have_rates_and_delays_of_their_own() -> None:
    link = LinkTrace("odd", Trace.constant(80_000), Trace.constant(800_000), up_delay_s=0.1, down_delay_s=0.05)
    seen: list[Passage] = []
    async with (
        server(echo) as address,
        LinkProxy(address, link, observe=seen.append) as proxy,
        connected(proxy) as (reader, writer),
    ):
        begin = time.monotonic()
        writer.write(pattern(1_000))
        assert await asyncio.wait_for(reader.readexactly(1_000), 30) == pattern(1_000)
        taken = time.monotonic() - begin
    # 150 ms to shake hands; up 100 ms and 100 ms of delay; down the last chunk (200 bytes, 2 ms) and 50 ms of delay
    assert taken >= 0.4
    for way, delay, rate in (("up", 0.1, 80_000), ("down", 0.05, 800_000)):
        passages = [passage for passage in seen if passage.way == way]
        assert sum(passage.size for passage in passages) == 1_000
        for passage in passages:
            assert passage.delivered_s - passage.arrived_s >= delay + passage.size * 8 / rate - 1e-6


async def test_many_connections_carry_their_own_bytes() -> None:
    async def talk(proxy: LinkProxy, seed: int) -> None:
        async with connected(proxy) as (reader, writer):
            data = pattern(50_000 + seed)[seed:]
            writer.write(data)
            assert await reader.readexactly(len(data)) == data

    async with server(echo) as address, LinkProxy(address, LinkTrace.constant("x", 100e6, 0.001)) as proxy:
        await asyncio.wait_for(asyncio.gather(*(talk(proxy, seed) for seed in range(20))), 30)
        assert proxy.connections == 20
        assert proxy.up.bytes == proxy.down.bytes == 20 * 50_000


async def test_a_half_closed_connection_still_answers() -> None:
    async with server(echo) as address, LinkProxy(address, FAST) as proxy:
        async with connected(proxy) as (reader, writer):
            writer.write(b"last words")
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 30) == b"last words"
        await _drained(proxy)


async def test_a_slow_link_pushes_back_on_its_sender() -> None:
    sink = Sink(1 << 30)
    link = LinkTrace.constant("slow", 50_000)
    async with server(sink) as address, LinkProxy(address, link) as proxy:
        with closing(socket.socket()) as device:
            device.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            device.setblocking(False)  # noqa: FBT003 - takes it by position only
            loop = asyncio.get_running_loop()
            await loop.sock_connect(device, ("127.0.0.1", proxy.port))
            proxy.up.hold()
            taken = await _until_full(lambda: loop.sock_sendall(device, b"x" * 500), 500)
    assert taken < 40_000, "the proxy takes what the link cannot carry"


async def test_a_server_that_does_not_read_is_not_read_for() -> None:
    """What waits for a receiver is bounded as well: the proxy does not become its memory."""
    never = asyncio.Event()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        await never.wait()
        writer.transport.abort()

    async with server(deaf) as address, LinkProxy(address, FAST, buffer_bytes=10_000) as proxy:
        async with connected(proxy) as (_, writer):

            async def write() -> None:
                writer.write(b"x" * 100_000)
                await writer.drain()

            assert await _until_full(write, 100_000) < 20_000_000  # what the kernel's own buffers on the way take
            assert await proxy.up.carry(0.0, 1), "a connection that waits for its receiver holds no other up"
        never.set()


async def test_a_stall_keeps_the_connection() -> None:
    async with server(echo) as address, LinkProxy(address, FAST) as proxy, connected(proxy) as (reader, writer):
        writer.write(b"one")
        await asyncio.wait_for(reader.readexactly(3), 30)
        proxy.up.hold()
        writer.write(b"two")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(3), 0.2)
        assert (proxy.up.bytes, proxy.down.bytes) == (3, 3)
        proxy.up.release()
        assert await asyncio.wait_for(reader.readexactly(3), 30) == b"two"
        proxy.down.hold()
        writer.write(b"three")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(5), 0.2)
        assert (proxy.up.bytes, proxy.down.bytes) == (11, 6)
        proxy.down.release()
        assert await asyncio.wait_for(reader.readexactly(5), 30) == b"three"


async def test_a_black_out_stops_new_connections_too() -> None:
    async with server(echo) as address, LinkProxy(address, FAST) as proxy:
        proxy.black_out()
        async with connected(proxy) as (reader, writer):
            writer.write(b"anybody?")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(8), 0.2)
            proxy.restore()
            assert await asyncio.wait_for(reader.readexactly(8), 30) == b"anybody?"


async def test_a_cut_resets_both_sides() -> None:
    sink = Sink(3)
    async with server(sink) as address, LinkProxy(address, FAST) as proxy, connected(proxy) as (reader, writer):
        writer.write(b"abc")
        await asyncio.wait_for(sink.full.wait(), 30)
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 30)
        await asyncio.wait_for(sink.ended.wait(), 30)
        assert isinstance(sink.error, ConnectionResetError)
        await _drained(proxy)
        async with connected(proxy) as (_, again):
            again.write(b"def")
            await asyncio.wait_for(_until(lambda: sink.received == b"abcdef"), 30)


async def test_a_peer_that_resets_is_seen_by_the_other() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with server(rude) as address, LinkProxy(address, FAST) as proxy:
        async with connected(proxy) as (reader, writer):
            writer.write(b"!")
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.read(1), 30)
        await _drained(proxy)


async def test_a_server_that_is_not_there_resets_the_device() -> None:
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        async with LinkProxy(f"127.0.0.1:{unused.getsockname()[1]}", FAST) as proxy:
            async with connected(proxy) as (reader, _):
                with pytest.raises(ConnectionResetError):
                    await asyncio.wait_for(reader.read(1), 30)
            await _drained(proxy)


async def test_closing_leaves_nothing_open() -> None:
    sink = Sink(1)
    async with server(sink) as address:
        async with LinkProxy(address, FAST) as proxy:
            _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"x")
            await asyncio.wait_for(sink.full.wait(), 30)
            port = proxy.port
        writer.close()
        assert proxy.open_connections == 0
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_a_taken_port_is_named() -> None:
    async with LinkProxy("127.0.0.1:9", FAST) as first:
        second = LinkProxy("127.0.0.1:9", LinkTrace.constant("LoRa", 5e3), port=first.port)
        with pytest.raises(SettingsError, match=f"LoRa cannot listen on 127.0.0.1:{first.port}"):
            await second.start()


def test_an_address_without_a_port_is_refused() -> None:
    with pytest.raises(SettingsError, match="host:port"):
        LinkProxy("edge.local", FAST)


async def _until_full(send: Callable[[], Awaitable[None]], size: int) -> int:
    """Send until nothing more is taken for half a second; how many bytes were."""
    taken = 0
    with suppress(TimeoutError):
        while True:
            await asyncio.wait_for(send(), 0.5)
            taken += size
    return taken


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - neither a bytearray nor the proxy tells when it changes
        await asyncio.sleep(0.001)


async def _drained(proxy: LinkProxy) -> None:
    """A connection that has ended leaves nothing behind."""
    await asyncio.wait_for(_until(lambda: proxy.open_connections == 0), 30)


async def test_a_cut_reaches_a_connection_that_is_just_being_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = LinkProxy._accept

    def cut_before_there_is_a_transport(proxy: LinkProxy) -> asyncio.Protocol:
        end = accept(proxy)
        proxy.cut()
        return end

    monkeypatch.setattr(LinkProxy, "_accept", cut_before_there_is_a_transport)
    async with server(echo) as address, LinkProxy(address, FAST) as proxy, connected(proxy) as (reader, _):
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
