"""Endless data and slow retrieval, of TUF's list: a server that babbles, is silent or drips holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from headwater.compression import patch
from headwater.device.courier import Courier, Slowest
from headwater.device.link import Link
from headwater.device.link_options import LinkOptions
from headwater.protos import edge_pb2 as pb
from tests.device.exchanges import Context, ExchangingEdge
from tests.device.fake_edge import serving
from tests.security.taken_over import attacked, of, unchanged
from tests.versions import KEY, version


@asynccontextmanager
async def carrying(edge: ExchangingEdge, slowest: Slowest) -> AsyncIterator[Courier]:
    options = LinkOptions("cam-1", b"b" * 32, first_pause_s=0.01, longest_pause_s=0.05)
    async with asyncio.timeout(120), serving(edge), Link(f"127.0.0.1:{edge.port}", options) as link:
        await link.wait_connected()
        yield Courier(link, slowest=slowest)


@dataclass
class Babbling(ExchangingEdge):
    """Never stops, though the device has closed."""

    async def _give(self, opening: pb.TransferOpen, context: Context) -> None:
        await super()._give(opening, context)
        with contextlib.suppress(Exception):  # until the device hangs up
            while True:
                await context.write(pb.TransferMessage(ack=pb.TransferAck(received_bytes=1)))


async def test_endless_data_after_the_end(tmp_path: Path) -> None:
    edge = Babbling()
    async with carrying(edge, Slowest()) as courier:
        for number in (1, 2):
            content = bytes([number]) * 5000
            assert (await courier.download(edge.put(content), tmp_path)).read_bytes() == content


async def test_endless_chunks(tmp_path: Path) -> None:
    edge = ExchangingEdge(chunk_bytes=1)
    async with carrying(edge, Slowest()) as courier:
        offer = edge.put(b"abc")
        edge.contents[offer.content_sha256] = b"abcdefghijk"
        assert (await courier.download(offer, tmp_path)).read_bytes() == b"abc"
    assert edge.moved <= 4, "no byte more is taken than was announced"


@dataclass
class Silent(ExchangingEdge):
    """Says nothing of one content, for as long as it is told so."""

    mute: bytes = b""

    async def _give(self, opening: pb.TransferOpen, context: Context) -> None:
        if opening.content_sha256 == self.mute:
            await self._notify()
            await asyncio.Event().wait()
        await super()._give(opening, context)


async def test_slow_retrieval_by_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    edge = Silent()
    async with carrying(edge, Slowest(silent_s=0.05)) as courier:
        slow, quick = edge.put(b"slow" * 1000), edge.put(b"quick" * 1000)
        edge.mute = slow.content_sha256
        waiting = asyncio.create_task(courier.download(slow, tmp_path / "slow"))
        await edge.until(lambda: bool(edge.opens))
        assert (await courier.download(quick, tmp_path / "quick")).read_bytes() == b"quick" * 1000
        assert not waiting.done(), "others get their turn"
        edge.mute = b""
        assert (await waiting).read_bytes() == b"slow" * 1000
    assert "the server said nothing for 0.05 s" in caplog.text


async def test_slow_retrieval_by_dripping(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    looks = itertools.count()  # a hundred seconds from one look at the clock to the next: only the device looks

    def drip(_: int) -> bool:
        if len(edge.opens) == 3:
            edge.chunk_bytes = 1 << 14
        return True

    edge = ExchangingEdge(chunk_bytes=1, on_chunk=drip)
    content = bytes(range(256)) * 16
    async with carrying(edge, Slowest(clock=lambda: 100.0 * next(looks))) as courier:
        assert (await courier.download(edge.put(content), tmp_path)).read_bytes() == content
    assert [opening.have_bytes for opening in edge.opens] == [0, 7, 14], "broken off, and gone on with, nothing lost"
    assert caplog.text.count("a transfer goes on later") == 2


async def test_slow_retrieval_ends_with_the_release(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (edge, agent):
        store = agent._store
        assert store is not None
        ends = store.state.issued + 100
        store.trusting._clock = lambda: ends - 0.05

        async def never(_: pb.Offer, __: Path) -> Path:
            await asyncio.Event().wait()
            raise AssertionError

        agent._courier.download = never  # type: ignore[method-assign]  # a link on which nothing comes
        statement = of(version(3), 11, expires=ends).signed(KEY)
        found = await edge.refused(statement, patch.make(version(3), device=True), version(3))
        assert "release 11 ended before its bundle had come" in found
        assert unchanged(agent)
