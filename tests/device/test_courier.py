"""The courier over a real port: what is large comes whole, goes on after a break, and lets frames go first."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from headwater.compression.errors import TransferError
from headwater.device.courier import Courier, on_disk
from headwater.device.link import Link
from headwater.device.link_options import LinkOptions
from headwater.protos import edge_pb2 as pb
from tests.device.exchanges import ExchangingEdge
from tests.device.fake_edge import serving

CONTENT = random.Random(5).randbytes(200_000)
SHA256 = hashlib.sha256(CONTENT).digest()


@asynccontextmanager
async def carrying(
    edge: ExchangingEdge, patience_s: float = 60.0
) -> AsyncIterator[tuple[Link, Courier, Callable[[bytes], pb.Offer]]]:
    options = LinkOptions("cam-1", b"b" * 32, first_pause_s=0.01, longest_pause_s=0.05)
    async with asyncio.timeout(60), serving(edge), Link(f"127.0.0.1:{edge.port}", options) as link:
        await link.wait_connected()
        yield link, Courier(link, patience_s=patience_s), edge.put


async def test_offers_and_transfers_share_a_link(tmp_path: Path) -> None:
    edge = ExchangingEdge()
    offers: asyncio.Queue[pb.Offer] = asyncio.Queue()
    options = LinkOptions("cam-1", b"b" * 32, capabilities=("federated",))
    async with (
        asyncio.timeout(60),
        serving(edge),
        Link(f"127.0.0.1:{edge.port}", options, on_offer=offers.put_nowait) as link,
    ):
        await link.wait_connected()
        assert edge.hellos[0].capabilities == ["federated"]
        await edge.send(pb.ServerMessage(offer=edge.put(CONTENT)))
        path = await Courier(link).download(await offers.get(), tmp_path)
    assert path.read_bytes() == CONTENT


async def test_what_is_offered_comes_whole_and_is_named_by_its_hash(tmp_path: Path) -> None:
    edge = ExchangingEdge()
    async with carrying(edge) as (_, courier, put):
        path = await courier.download(put(CONTENT, offer=7), tmp_path / "new" / "blobs")
    assert path == tmp_path / "new" / "blobs" / SHA256.hex()
    assert path.read_bytes() == CONTENT
    (opening,) = edge.opens
    assert (opening.device, opening.offer, opening.upload) == ("cam-1", 7, False)


async def test_nothing_is_content_too(tmp_path: Path) -> None:
    async with carrying(ExchangingEdge()) as (_, courier, put):
        assert (await courier.download(put(b""), tmp_path)).read_bytes() == b""


@pytest.mark.parametrize("streams_too", [False, True])
async def test_a_download_goes_on_where_it_broke_off(tmp_path: Path, streams_too: bool) -> None:
    def on_chunk(number: int) -> bool:
        if number == 5 and streams_too:
            edge.break_streams()
        return number != 5

    edge = ExchangingEdge(on_chunk=on_chunk)
    async with carrying(edge) as (_, courier, put):
        assert (await courier.download(put(CONTENT), tmp_path)).read_bytes() == CONTENT
    assert [opening.have_bytes for opening in edge.opens] == [0, 4 * edge.chunk_bytes]


async def test_a_download_goes_on_in_the_next_process(tmp_path: Path) -> None:
    reached = asyncio.Event()
    edge = ExchangingEdge(on_chunk=lambda number: number < 5 or bool(reached.set()))
    async with carrying(edge) as (_, courier, put):
        job = asyncio.create_task(courier.download(put(CONTENT), tmp_path))
        await reached.wait()
        job.cancel()
        await asyncio.wait([job])
    edge.on_chunk = lambda _: True
    edge.port = 0
    async with carrying(edge) as (_, courier, put):
        assert (await courier.download(put(CONTENT), tmp_path)).read_bytes() == CONTENT
    assert edge.opens[-1].have_bytes == 4 * edge.chunk_bytes


async def test_who_is_cancelled_again_and_again_leaves_no_file_open() -> None:
    begun, may_end = threading.Event(), threading.Event()
    closed: list[str] = []

    def work() -> str:
        begun.set()
        assert may_end.wait(60)
        return "a file"

    job = asyncio.create_task(on_disk(work, closed.append))
    await asyncio.to_thread(begun.wait)
    for _ in range(3):
        job.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not job.done(), "it waits for the thread"
    may_end.set()
    await asyncio.wait([job])
    assert job.cancelled()
    assert closed == ["a file"]


async def test_what_has_another_hash_is_refused_and_thrown_away(tmp_path: Path) -> None:
    edge = ExchangingEdge()
    async with carrying(edge) as (_, courier, put):
        offer = put(CONTENT)
        edge.contents[SHA256] = CONTENT[:-1] + b"?"
        with pytest.raises(TransferError, match="what came is no"):
            await courier.download(offer, tmp_path)
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240 - a test has nothing else to do


async def test_a_reply_goes_up_with_its_envelope(tmp_path: Path) -> None:
    edge = ExchangingEdge()
    (tmp_path / "reply").write_bytes(CONTENT)
    async with carrying(edge) as (_, courier, put):
        await courier.upload(put(b"question", offer=9), tmp_path / "reply", SHA256, b"envelope")
    ((opening, data),) = edge.uploads
    assert data == CONTENT
    assert (opening.offer, opening.envelope, opening.upload) == (9, b"envelope", True)
    assert (opening.content_sha256, opening.content_bytes) == (SHA256, len(CONTENT))


async def test_an_upload_goes_on_from_what_the_server_has(tmp_path: Path) -> None:
    edge = ExchangingEdge(on_chunk=lambda number: number != 3)
    (tmp_path / "reply").write_bytes(CONTENT)
    async with carrying(edge) as (_, courier, put):
        await courier.upload(put(b"question"), tmp_path / "reply", SHA256)
    assert edge.uploads[0][1] == CONTENT
    sent = sum(len(chunk.data) for chunk in edge.chunks)
    assert sent == len(CONTENT) + len(edge.chunks[2].data), "only the chunk that was lost was sent again"


async def stuck(edge: ExchangingEdge, courier: Courier, offer: pb.Offer, folder: Path) -> asyncio.Task[None]:
    """An upload of which the server has a chunk, and says nothing."""
    (folder / "reply").write_bytes(CONTENT)
    edge.gate.clear()
    job = asyncio.create_task(courier.upload(offer, folder / "reply", SHA256))
    await edge.until(lambda: bool(edge.chunks))
    return job


async def test_a_link_that_closes_its_connection_cancels_no_transfer(tmp_path: Path) -> None:
    edge = ExchangingEdge()
    async with carrying(edge) as (link, courier, put):
        job = await stuck(edge, courier, put(b"question"), tmp_path)
        edge.break_streams()
        await edge.until(lambda: len(edge.hellos) == 2)
        edge.gate.set()
        await job
    assert edge.uploads[0][1] == CONTENT
    assert link.connections == 2


async def test_who_is_cancelled_leaves_the_transfer(tmp_path: Path) -> None:
    edge = ExchangingEdge()
    async with carrying(edge) as (_, courier, put):
        job = await stuck(edge, courier, put(b"question"), tmp_path)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job


async def test_no_chunk_is_larger_than_the_server_says(tmp_path: Path) -> None:
    edge = ExchangingEdge(most_bytes=100)
    (tmp_path / "reply").write_bytes(CONTENT[:1000])
    async with carrying(edge) as (_, courier, put):
        await courier.upload(put(b"question"), tmp_path / "reply", hashlib.sha256(CONTENT[:1000]).digest())
    assert [len(chunk.data) for chunk in edge.chunks] == [100] * 10


async def test_a_server_that_refuses_for_good_is_not_asked_again(tmp_path: Path) -> None:
    edge = ExchangingEdge(close=pb.TransferClose(status=pb.STATUS_INVALID_FRAME, detail="no such offer"))
    (tmp_path / "reply").write_bytes(b"reply")
    async with carrying(edge) as (_, courier, put):
        with pytest.raises(TransferError, match="INVALID_FRAME: no such offer"):
            await courier.upload(put(b"question"), tmp_path / "reply", hashlib.sha256(b"reply").digest())
    assert len(edge.opens) == 1


async def test_a_server_without_transfers_says_so(tmp_path: Path) -> None:
    edge = ExchangingEdge()
    edge.on_chunk = lambda _: True

    async def unimplemented(_: object, context: grpc.aio.ServicerContext[object, object]) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "nothing to exchange")

    edge.Exchange = unimplemented  # type: ignore[method-assign,assignment]
    async with carrying(edge) as (_, courier, put):
        with pytest.raises(TransferError, match="takes no transfers: nothing to exchange"):
            await courier.download(put(CONTENT), tmp_path)


async def test_no_chunk_goes_while_a_frame_has_no_answer(tmp_path: Path) -> None:
    edge = ExchangingEdge(answer=lambda _: None)
    (tmp_path / "reply").write_bytes(CONTENT)
    async with carrying(edge) as (link, courier, put):
        frame = asyncio.create_task(link.send(b"frame"))
        await edge.until(lambda: bool(edge.frames))
        job = asyncio.create_task(courier.upload(put(b"question"), tmp_path / "reply", SHA256))
        await edge.until(lambda: bool(edge.opens))
        edge.gate.clear()
        assert not edge.chunks
        answer = pb.Answer(sequence=1, status=pb.STATUS_OK)
        await edge.send(pb.ServerMessage(answer=answer))
        assert (await frame).answer == answer
        await edge.until(lambda: len(edge.chunks) == 1)
        second = asyncio.create_task(link.send(b"another"))
        await edge.until(lambda: len(edge.frames) == 2)
        edge.gate.set()  # acknowledged, but the second frame flies
        for _ in range(3):  # as many round trips as a chunk would need
            link.control(pb.DeviceMessage(heartbeat=pb.Heartbeat()))
            heard = len(edge.others) + 1
            await edge.until(lambda heard=heard: len(edge.others) >= heard)  # type: ignore[misc]
        assert len(edge.chunks) == 1
        await edge.send(pb.ServerMessage(answer=pb.Answer(sequence=2, status=pb.STATUS_OK)))
        await second
        await job
    assert edge.uploads


async def test_a_device_that_is_never_without_frames_gets_through_with_short_chunks(tmp_path: Path) -> None:
    edge = ExchangingEdge(answer=lambda _: None)
    (tmp_path / "reply").write_bytes(CONTENT[:20_000])
    async with carrying(edge, patience_s=0.01) as (link, courier, put):
        frame = asyncio.create_task(link.send(b"frame"))
        await edge.until(lambda: bool(edge.frames))
        sha256 = hashlib.sha256(CONTENT[:20_000]).digest()
        await courier.upload(put(b"question"), tmp_path / "reply", sha256)
        frame.cancel()
    assert edge.uploads
    assert len(edge.chunks[0].data) <= 4096 // 10, "a tenth of what an idle line would begin with"


async def test_transfers_go_one_after_the_other(tmp_path: Path) -> None:
    edge = ExchangingEdge()
    edge.gate.clear()
    (tmp_path / "reply").write_bytes(CONTENT)
    async with carrying(edge) as (_, courier, put):
        up = asyncio.create_task(courier.upload(put(b"question"), tmp_path / "reply", SHA256))
        await edge.until(lambda: bool(edge.chunks))
        down = asyncio.create_task(courier.download(put(b"other"), tmp_path))
        await asyncio.sleep(0)
        assert len(edge.opens) == 1
        edge.gate.set()
        await asyncio.gather(up, down)
    assert [opening.upload for opening in edge.opens] == [True, False]
