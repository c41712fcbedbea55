"""When the training process stands still, without a process."""

import asyncio

import pytest

from headwater.device.federated import reins as module
from headwater.device.federated.reins import Reins


class Horse:
    """What is held: it remembers every pull."""

    def __init__(self) -> None:
        self.pulls: list[bool] = []
        self.pulled = asyncio.Event()

    def __call__(self, stop: bool) -> None:
        self.pulls.append(stop)
        self.pulled.set()

    async def next(self) -> bool:
        async with asyncio.timeout(10):
            await self.pulled.wait()
        self.pulled.clear()
        return self.pulls[-1]


async def test_only_work_is_held() -> None:
    horse = Horse()
    reins = Reins(horse)
    reins.hold("frames")
    assert not horse.pulls
    reins.begin()
    reins.release("frames")
    reins.hold("surroundings")
    reins.end()
    assert horse.pulls == [True, False, True, False]


async def test_it_goes_on_when_nothing_holds_it_any_more() -> None:
    horse = Horse()
    reins = Reins(horse)
    reins.begin()
    reins.hold("frames")
    reins.hold("surroundings")
    reins.hold("frames")
    reins.release("frames")
    assert horse.pulls == [True]
    reins.release("surroundings")
    assert horse.pulls == [True, False]
    reins.end()


async def test_frames_without_a_gap_leave_it_a_slice_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE_S", 0.01)
    horse = Horse()
    reins = Reins(horse, patience_s=0.001)
    reins.begin()
    reins.hold("frames")
    assert [await horse.next() for _ in range(5)] == [True, False, True, False, True]
    reins.hold("surroundings")
    reins.release("frames")
    reins.end()


async def test_no_slice_on_a_battery() -> None:
    horse = Horse()
    reins = Reins(horse, patience_s=0.0)
    reins.begin()
    reins.hold("surroundings")
    reins.hold("frames")
    for _ in range(10):
        await asyncio.sleep(0)
    assert horse.pulls == [True]
    reins.end()
