"""Clocks that jump by an hour while frames flow: what is timed is timed by clocks that do not jump."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import datetime
from pathlib import Path

import pytest

from benchmarks.soaking.footing import Footing
from headwater.compression.bundle import Bundle
from headwater.device.record import FrameRecord
from headwater.server.archive import Chosen, read
from headwater.simulations.link import LinkProxy
from headwater.simulations.trace import LinkTrace
from tests.faults.fed import Fed, save, stored
from tests.integration.processes import ServerProcess

HOUR_S = 3600.0
LINK = LinkTrace.constant("quick", 50e6)


def off_s(record: FrameRecord) -> float:
    """How far the clock was off by which a picture was taken; the machine takes its time, but no quarter of an hour."""
    return round((datetime.fromisoformat(record.taken).timestamp() - time.time()) / HOUR_S, 1) * HOUR_S


@pytest.mark.parametrize("jump_s", [pytest.param(HOUR_S, marks=pytest.mark.slow), -HOUR_S])
async def test_the_clocks_of_both_ends_jump_and_every_frame_is_answered(
    tiny_bundle: Bundle, tmp_path: Path, jump_s: float
) -> None:
    bundle = save(tiny_bundle, tmp_path)
    with Footing(tmp_path / "card") as card, Footing(tmp_path / "disk") as disk:
        archive = disk.folder / "archive.db"
        with ServerProcess(bundle, more=("--archive", str(archive)), env={**os.environ, **disk.env}) as server:
            words = ("--keep", "all", "--spool-max-hours", "0.5")
            async with LinkProxy(server.address, LINK) as proxy, Fed(bundle, proxy.address, card, *words) as agent:
                await agent.show(0)
                for footing in (card, disk, card, disk):
                    footing.clock_s = 0.0 if footing.clock_s else jump_s
                    await agent.show(len(agent.shown))
                    await agent.show(len(agent.shown))
                assert proxy.connections == 1, "nobody took the other for gone"
                status, _, err = await agent.finish(b"")
    assert (status, err) == (0, "")
    assert [record.source for record in agent.shown] == ["edge"] * 9
    assert all(0 <= record.latency_ms < 900_000 for record in agent.shown)
    assert [off_s(record) for record in agent.shown] == [0, *[jump_s] * 4, *[0] * 4]
    assert sorted(stored(archive)) == sorted(record.name for record in agent.shown), "each once"


@pytest.mark.slow
async def test_a_clock_that_jumps_ages_no_kept_frame(tiny_bundle: Bundle, tmp_path: Path) -> None:
    """Kept for half an hour at most; the clock jumps by an hour, then the link comes."""
    archive, bundle = tmp_path / "archive.db", save(tiny_bundle, tmp_path)
    with Footing(tmp_path / "card") as card, ServerProcess(bundle, more=("--archive", str(archive))) as server:
        async with LinkProxy(server.address, LINK) as proxy:
            proxy.black_out()
            words = ("--deadline-ms", "1", "--keep", "unanswered", "--spool-max-hours", "0.5")
            async with Fed(bundle, proxy.address, card, *words) as agent:
                await agent.show(0)
                card.clock_s = HOUR_S
                await agent.show(1)
                card.clock_s = -HOUR_S
                await agent.show(2)
                proxy.restore()
                async with asyncio.timeout(60):
                    while len(stored(archive)) < 3:  # noqa: ASYNC110 - another process' work
                        await asyncio.sleep(0.02)
                status, _, err = await agent.finish(b"")
    assert status == 0, err
    captured = [int(str(facts["captured_unix_ms"])) / 1e3 for facts, _ in read(archive, Chosen())]
    assert [round((one - time.time()) / HOUR_S) for one in captured] == [0, 1, -1]
