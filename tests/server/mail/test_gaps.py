"""Chunks among the frames of other devices: small, one at a time, between batches, and never held up for good."""

import asyncio
import math

import pytest

from headwater.compression.transfer import MOST_BYTES
from headwater.server.mail import gaps
from headwater.server.mail.gaps import BUSY_BYTES, Gaps


class Frames:
    """Frames that come, and are being answered, as a test says."""

    def __init__(self, *, lately: bool = True, busy: bool = False) -> None:
        self.submitted_s = asyncio.get_running_loop().time() if lately else -math.inf
        self.answered, self.asked = asyncio.Event(), asyncio.Event()
        if not busy:
            self.answered.set()

    async def idle(self) -> None:
        self.asked.set()
        await self.answered.wait()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REST_S", "HOLD_S"):
        monkeypatch.setattr(gaps, name, 1e6)


def found(frames: Frames) -> Gaps:
    return Gaps(frames, lambda _: ())


class Turn:
    """A chunk that is under way until it is told that it has come."""

    def __init__(self, of: Gaps) -> None:
        self.begun, self._come = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._take(of))

    async def _take(self, of: Gaps) -> None:
        async with of.turn():
            self.begun.set()
            await self._come.wait()

    async def end(self) -> None:
        self._come.set()
        await self._task


@pytest.mark.usefixtures("patient")
async def test_where_nobody_sends_frames_chunks_go_at_once_beside_each_other_and_are_large() -> None:
    there = found(Frames(lately=False, busy=True))
    assert there.most_bytes == MOST_BYTES
    turns = [Turn(there), Turn(there)]
    for turn in turns:
        await turn.begun.wait()
    for turn in turns:
        await turn.end()


@pytest.mark.usefixtures("patient")
async def test_where_frames_come_chunks_are_small_and_one_is_under_way() -> None:
    there = found(Frames())
    assert there.most_bytes == BUSY_BYTES
    first = Turn(there)
    await first.begun.wait()
    second = Turn(there)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not second.begun.is_set()
    await first.end()
    await second.begun.wait()
    await second.end()


@pytest.mark.usefixtures("patient")
async def test_a_chunk_waits_for_the_batch_that_runs() -> None:
    frames = Frames(busy=True)
    turn = Turn(found(frames))
    await frames.asked.wait()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not turn.begun.is_set()
    frames.answered.set()
    await turn.begun.wait()
    await turn.end()


async def test_a_server_that_never_rests_carries_chunks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "REST_S", 0.001)
    turn = Turn(found(Frames(busy=True)))
    await turn.begun.wait()
    await turn.end()


async def test_a_chunk_on_a_slow_line_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaps, "HOLD_S", 0.001)
    there = found(Frames())
    slow, quick = Turn(there), Turn(there)
    await slow.begun.wait()
    await quick.begun.wait()
    await slow.end()
    third = Turn(there)
    await quick.end()
    await third.begun.wait()
    await third.end()


@pytest.mark.usefixtures("patient")
async def test_a_call_that_is_cancelled_leaves_its_turn_to_the_next() -> None:
    frames = Frames(busy=True)
    there = found(frames)
    waiting = asyncio.create_task(there.turn().__aenter__())
    await frames.asked.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
    frames.answered.set()
    turn = Turn(there)
    await turn.begun.wait()
    await turn.end()
