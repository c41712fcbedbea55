"""When a running agent counts as stuck, by a clock of the test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headwater.device.agent import Agent
from headwater.device.feed import Feed
from headwater.device.progress import PATIENCE_S, Progress
from headwater.device.screen import State, Totals
from headwater.device.settings import DeviceSettings
from headwater.device.sources import CameraSource, FolderSource, Shot
from tests import tiny
from tests.device.cameras import FakeCapture


class Still:
    """A feed whose source is no camera."""

    def silent_s(self, _: float) -> float:
        return 0.0


def progress(
    feed: Feed | Still, *, pending: int = 0, deadline_ms: int | None = None
) -> tuple[Progress, Any, list[float]]:
    agent: Any = SimpleNamespace(pending=pending, settings=DeviceSettings(deadline_ms=deadline_ms))
    now = [1000.0]
    totals = Totals()
    made = Progress(
        agent,
        cast("Feed", feed),
        totals,
        lambda: State(connected=False, why_not="no server answers", unanswered=pending, dropped=0, skipped=0),
        clock=lambda: now[0],
    )
    return made, totals, now


def test_frames_long_past_their_deadline_are_stuck_until_one_ends() -> None:
    made, totals, now = progress(Still(), pending=3, deadline_ms=2000)
    assert made.stuck() == ""
    now[0] += PATIENCE_S + 2
    assert made.stuck() == ""
    now[0] += 1
    assert made.stuck() == "3 frames are past their deadline, and none of them ended for 61 s"
    totals.statuses["skipped"] += 1
    assert made.stuck() == ""


@pytest.mark.parametrize(("pending", "deadline_ms"), [(3, None), (0, 2000)])
def test_frames_without_a_deadline_may_wait_for_ever(pending: int, deadline_ms: int | None) -> None:
    made, _, now = progress(Still(), pending=pending, deadline_ms=deadline_ms)
    now[0] += 1e6
    assert made.stuck() == ""


async def test_a_camera_that_hangs_in_a_read_is_stuck() -> None:
    gate = threading.Semaphore(1)
    async with Feed(CameraSource(0, lambda _: FakeCapture(9, gate))) as feed:
        await anext(feed)
        made, _, now = progress(feed)
        now[0] = feed._moved_s + PATIENCE_S
        assert made.stuck() == ""
        now[0] += 1
        assert made.stuck() == f"the source has neither given a picture nor failed for {PATIENCE_S + 1:.0f} s"
        gate.release()
        await anext(feed)
        now[0] = feed._moved_s + 1
        assert made.stuck() == ""
        gate.release(9)


async def test_a_camera_that_is_not_there_is_not_stuck_and_neither_is_a_file(tmp_path: Path) -> None:
    class Away:
        live = True
        tried = threading.Semaphore(0)

        def shots(self) -> Iterator[Shot]:
            self.tried.release()
            raise FileNotFoundError

        def close(self) -> None: ...

    async with Feed(FolderSource(tmp_path)) as feed:
        assert feed.silent_s(feed._moved_s + 1e6) == 0
    ended = Feed(Away())
    async with ended:
        with pytest.raises(FileNotFoundError):
            await anext(ended)
        assert ended.silent_s(ended._moved_s + 1e6) == 0


def test_status_is_the_link_and_then_the_run_so_far() -> None:
    made, totals, _ = progress(Still())
    totals.statuses["ok"] += 1
    assert made.status().startswith("no server answers; 1 of 1 frames answered")


async def test_a_turn_is_the_head_s_thread_s() -> None:
    agent = Agent(tiny.bundle(), "127.0.0.1:1", connect_timeout_s=None)
    made = Progress(agent, cast("Feed", Still()), Totals(), lambda: cast("State", None))
    held, holds = threading.Event(), threading.Event()
    async with agent:
        busy = asyncio.create_task(agent._in_worker(lambda: (holds.set(), held.wait())))
        await asyncio.to_thread(holds.wait)
        turn = asyncio.create_task(made.turn())
        await asyncio.sleep(0.02)
        assert not turn.done()
        held.set()
        await asyncio.gather(busy, turn)
