"""Processes that stand still, as in a debugger, a snapshot or a machine out of memory, and go on."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from benchmarks.soaking.footing import Footing
from headwater.compression.bundle import Bundle
from tests.faults.fed import Fed, save, stored
from tests.integration.processes import END_TIMEOUT_S, ServerProcess

KEEP = ("--keep", "unanswered")


@pytest.mark.slow
async def test_while_a_server_stands_still_devices_answer_and_what_they_kept_arrives(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    archive, bundle = tmp_path / "archive.db", save(tiny_bundle, tmp_path)
    more = ("--archive", str(archive), "--heartbeat-ms", "100")
    with Footing(tmp_path / "card") as card, ServerProcess(bundle, more=more) as server:
        async with Fed(bundle, server.address, card, *KEEP, "--deadline-ms", "300") as agent:
            await agent.show(0)
            server.send(signal.SIGSTOP)
            still = [await agent.show(seed) for seed in range(1, 4)]
            names = [record.name for record in still]
            server.send(signal.SIGCONT)
            async with asyncio.timeout(END_TIMEOUT_S):
                while not set(names) <= set(stored(archive)):  # noqa: ASYNC110 - another process' work
                    await asyncio.sleep(0.02)
            status, _, err = await agent.finish(b"")
    assert status == 0, err
    assert [record.source for record in still] == ["local"] * 3
    kept = [record.name for record in agent.shown if record.source == "local"]
    assert sorted(stored(archive)) == sorted(kept), "each once"
    assert set(names) <= set(kept)


@pytest.mark.slow
async def test_a_device_that_stood_still_is_answered_again(tiny_bundle: Bundle, tmp_path: Path) -> None:
    bundle = save(tiny_bundle, tmp_path)
    with Footing(tmp_path / "card") as card, ServerProcess(bundle, more=("--heartbeat-ms", "50")) as server:
        async with Fed(bundle, server.address, card) as agent:
            await agent.show(0)
            agent.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.5)  # ten heartbeats: the server takes it for gone, or not; both are to be right
            agent.process.send_signal(signal.SIGCONT)
            for seed in range(1, 4):
                await agent.show(seed)
            status, _, err = await agent.finish(b"")
    assert status == 0, err
    assert [record.source for record in agent.shown] == ["edge"] * 4
    assert len({record.sequence for record in agent.shown}) == 4
