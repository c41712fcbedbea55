"""When kept frames are written, with a clock that the test turns; and what becomes of them on a link."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headwater.device.delivery import FEW, Delivery
from headwater.device.kept import KeptFrame
from headwater.device.link import Link
from headwater.device.link_options import LinkOptions
from headwater.device.spool import Spool
from headwater.device.window import Window
from headwater.protos import edge_pb2 as pb
from tests.device.fake_edge import FakeEdge, ok, serving
from tests.device.windows import answer, submit, write_all

BUNDLE = bytes(range(32))
KEEPS = pb.Welcome(heartbeat_ms=60_000, max_in_flight=64, keeps=True)


def frame(number: int, size: int = 100) -> KeptFrame:
    return KeptFrame(7, number, 0, BUNDLE, bytes([number % 256]) * size, id=number.to_bytes(16, "big"))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool.db", 1 << 20, 3600) as spool:
        yield spool


@pytest.fixture
def window() -> Window:
    return Window(4, random.Random(0))


@pytest.fixture
async def delivery(spool: Spool) -> AsyncIterator[Delivery]:
    """With 40 frames in the spool, and connected."""
    for number in range(1, 41):
        spool.keep(frame(number))
    delivery = Delivery(spool, random.Random(0), lambda: None)
    delivery.greeted(keeps=True)
    await delivery._turn()
    yield delivery
    spool.release()


def written(delivery: Delivery, window: Window, now_s: float) -> list[int]:
    numbers = []
    while (kept := delivery.next(window, now_s)) is not None:
        numbers.append(kept.sequence)
    return numbers


def ack(*numbers: int) -> pb.KeptAck:
    return pb.KeptAck(stored=[frame(number).id for number in numbers])


async def test_one_at_first_then_what_the_link_carries_in_a_tenth_of_a_second(
    delivery: Delivery, window: Window
) -> None:
    size = pb.KeptFrame(**vars(frame(1))).ByteSize()
    assert written(delivery, window, 0.0) == [1]
    delivery.acknowledged(ack(1), 0.05)  # a frame in 0.05 s: two in 0.1 s
    assert written(delivery, window, 0.05) == [2, 3]
    delivery.acknowledged(ack(2, 3), 0.075)  # two in 0.025 s: eight in 0.1 s
    assert written(delivery, window, 0.075) == list(range(4, 12))
    delivery.acknowledged(ack(*range(4, 12)), 1.075)  # the link turned bad: eight took a second
    assert written(delivery, window, 1.075) == [12]
    assert delivery._limit == pytest.approx(0.8 * size)


async def test_never_more_than_a_few(delivery: Delivery, window: Window) -> None:
    written(delivery, window, 0.0)
    delivery.acknowledged(ack(1), 0.0001)
    await delivery._turn()
    assert written(delivery, window, 0.0001) == list(range(2, 2 + FEW))


async def test_nothing_while_a_live_frame_waits_or_flies(delivery: Delivery, window: Window) -> None:
    for _ in range(5):
        submit(window)
    assert written(delivery, window, 0.0) == []
    write_all(window)
    assert written(delivery, window, 0.0) == []
    for sequence in (1, 2, 3, 4):
        window.answered(answer(sequence), 0.1)
    write_all(window, 0.1)
    assert written(delivery, window, 0.1) == []
    window.answered(answer(5), 0.2)
    assert written(delivery, window, 0.2) == [1]


async def test_a_link_without_gaps_gives_a_quarter_and_none_while_frames_are_given_up(
    delivery: Delivery, window: Window
) -> None:
    outgoing = [submit(window, 0.0, give_up_s=9.0) for _ in range(4)]
    write_all(window)
    size = pb.KeptFrame(**vars(frame(1))).ByteSize()
    delivery.live_written(4 * size - 4)
    assert written(delivery, window, 0.0) == []
    delivery.live_written(4)
    assert written(delivery, window, 0.0) == [1]
    delivery.live_written(40 * size)
    assert written(delivery, window, 0.0) == [], "one at a time"
    delivery.acknowledged(ack(1), 0.1)
    assert written(delivery, window, 0.1) == [2]
    delivery.acknowledged(ack(2), 0.2)
    window.give_up(outgoing[0], 9.0)
    assert written(delivery, window, 9.0) == []
    delivery.live_written(4 * size)
    assert written(delivery, window, 9.1) == [3]


async def test_a_full_server_gets_none_until_it_wants_frames_again(delivery: Delivery, window: Window) -> None:
    submit(window)
    write_all(window)
    window.answered(answer(1, pb.STATUS_BUSY, 1000), 0.0)
    window.next(window.hold_until_s)
    window.answered(answer(1), window.hold_until_s)
    assert written(delivery, window, 0.5) == []
    held_s = delivery.held_for_s(window, 0.5)
    assert held_s is not None
    assert written(delivery, window, 0.5 + held_s) == [1]


async def test_what_was_refused_goes_again_after_the_pause_in_order(delivery: Delivery, window: Window) -> None:
    written(delivery, window, 0.0)
    delivery.acknowledged(ack(1), 0.0001)
    assert written(delivery, window, 0.0001)[:3] == [2, 3, 4]
    refused = pb.KeptAck(refused=[frame(number).id for number in range(2, 18)], retry_after_ms=30_000, detail="full")
    delivery.acknowledged(refused, 1.0)
    held_s = delivery.held_for_s(window, 1.0)
    assert held_s is not None
    assert 30 <= held_s <= 45
    assert written(delivery, window, 30.9) == []
    assert written(delivery, window, 1.0 + held_s)[:3] == [2, 3, 4]


async def test_a_server_that_does_not_keep_gets_none(delivery: Delivery, window: Window) -> None:
    delivery.greeted(keeps=False)
    assert written(delivery, window, 0.0) == []
    assert delivery.held_for_s(window, 0.0) is None


async def test_what_flew_goes_first_on_the_next_connection(delivery: Delivery, window: Window, spool: Spool) -> None:
    assert written(delivery, window, 0.0) == [1]
    delivery.acknowledged(ack(1), 0.001)
    assert written(delivery, window, 0.01) == list(range(2, 17))
    delivery.acknowledged(ack(3), 0.02)
    delivery.lost()
    assert written(delivery, window, 0.03) == []
    delivery.greeted(keeps=True)
    assert written(delivery, window, 0.04) == [2]
    delivery.acknowledged(ack(2), 0.05)
    assert written(delivery, window, 0.05)[:3] == [4, 5, 6]
    await delivery._turn()
    assert spool.stats.delivered == 3


# ---------------------------------------------------------------- on a link


@asynccontextmanager
async def linked(edge: FakeEdge, spool: Spool, linger_s: float = 10.0) -> AsyncIterator[Link]:
    options = LinkOptions("pi", BUNDLE, first_pause_s=0.01, longest_pause_s=0.05, linger_s=linger_s)
    async with serving(edge), Link(f"127.0.0.1:{edge.port}", options, spool=spool, rng=random.Random(1)) as link:
        await link.wait_connected(10)
        yield link


def delivered(edge: FakeEdge) -> list[int]:
    return [message.kept.sequence for message in edge.others if message.HasField("kept")]


async def empty(spool: Spool) -> None:
    async with asyncio.timeout(10):
        while spool.stats.frames:  # noqa: ASYNC110 - another thread's work has no event here
            await asyncio.sleep(0.001)


class Keeping(FakeEdge):
    """Acknowledges every kept frame, unless told not to."""

    acknowledges = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.before: list[int] = []
        """How many live frames had come before each kept one."""

    async def _notify(self) -> None:
        if len(delivered(self)) > len(self.before):
            self.before.append(len(self.frames))
            if self.acknowledges:
                ack = pb.KeptAck(stored=[self.others[-1].kept.id])
                await self.send(pb.ServerMessage(kept_ack=ack))
        await super()._notify()


async def test_a_spool_is_delivered_in_order_and_emptied(spool: Spool) -> None:
    for number in range(1, 51):
        spool.keep(frame(number))
    edge = Keeping(welcome=KEEPS)
    async with linked(edge, spool):
        await empty(spool)
        spool.keep(frame(99))
        await empty(spool)
    assert delivered(edge) == [*range(1, 51), 99]
    assert (spool.stats.delivered, spool.stats.kept) == (51, 51)


async def test_what_was_not_acknowledged_is_delivered_on_the_next_connection(spool: Spool) -> None:
    spool.keep(frame(1))
    edge = Keeping(welcome=KEEPS)
    edge.acknowledges = False
    async with linked(edge, spool):
        await edge.until(lambda: delivered(edge) == [1])
        edge.acknowledges = True
        edge.break_streams()
        await empty(spool)
    assert delivered(edge) == [1, 1]


async def test_live_frames_go_first(spool: Spool) -> None:
    for number in range(1, 11):
        spool.keep(frame(number))
    edge = Keeping(answer=lambda _: None, welcome=pb.Welcome(heartbeat_ms=60_000, max_in_flight=64))
    async with serving(edge):
        options = LinkOptions("pi", BUNDLE, window=3, first_pause_s=0.01, longest_pause_s=0.05)
        async with Link(f"127.0.0.1:{edge.port}", options, spool=spool, rng=random.Random(1)) as link:
            await link.wait_connected(10)
            sends = [asyncio.create_task(link.send(bytes([number]))) for number in range(5)]
            await edge.until(lambda: len(edge.frames) == 3)
            edge.welcome, edge.answer = KEEPS, ok
            edge.break_streams()
            await asyncio.gather(*sends)
            await empty(spool)
    assert delivered(edge) == list(range(1, 11))
    assert edge.before == [8] * 10, "three that broke off, then all five"


async def test_a_server_without_an_archive_is_not_bothered(spool: Spool) -> None:
    spool.keep(frame(1))
    edge = Keeping()
    async with linked(edge, spool) as link:
        await link.send(b"x")
        await link.send(b"y")
    assert delivered(edge) == []
    assert spool.stats.frames == 1
    with_archive = Keeping(welcome=KEEPS)
    async with linked(with_archive, spool):
        await empty(spool)


async def test_what_a_disk_did_not_delete_is_deleted_when_it_can(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.device.delivery.AGAIN_S", 0.01)
    spool.keep(frame(1))
    spool._db.execute("PRAGMA query_only = 1")
    edge = Keeping(welcome=KEEPS)
    async with linked(edge, spool):
        while not spool.undeleted:  # noqa: ASYNC110 - another thread's work has no event here
            await asyncio.sleep(0.001)
        spool._db.execute("PRAGMA query_only = 0")
        await empty(spool)
    assert delivered(edge) == [1]
    assert spool.stats.delivered == 1


async def test_what_is_kept_last_is_delivered_before_the_end(spool: Spool) -> None:
    edge = Keeping(welcome=KEEPS)
    async with linked(edge, spool):
        for number in range(1, 41):
            spool.keep(frame(number))
    assert delivered(edge) == list(range(1, 41))
    assert spool.stats.frames == 0


async def test_the_end_does_not_wait_for_a_server_that_says_nothing(spool: Spool) -> None:
    edge = Keeping(welcome=KEEPS)
    edge.acknowledges = False
    async with linked(edge, spool, linger_s=0.05):
        spool.keep(frame(1))
    assert spool.stats.frames == 1


async def test_a_stopping_server_may_acknowledge_what_flies(spool: Spool) -> None:
    spool.keep(frame(1))
    edge = Keeping(welcome=KEEPS)
    edge.acknowledges = False
    async with linked(edge, spool) as link:
        await edge.until(lambda: delivered(edge) == [1])
        await edge.send(pb.ServerMessage(drain=pb.Drain(grace_ms=1000)))
        while not link.window.draining:  # noqa: ASYNC110 - the other end's message has no event here
            await asyncio.sleep(0.001)
        await edge.send(pb.ServerMessage(kept_ack=ack(1)))
        await empty(spool)
    assert delivered(edge) == [1]
