"""Disks that are full or cannot be written, of either end: answers go on, and nothing that was kept is lost."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.soaking.footing import Footing
from headwater.compression.bundle import Bundle
from headwater.device.record import read_records
from headwater.simulations.link import LinkProxy
from headwater.simulations.trace import LinkTrace
from tests.faults.fed import Fed, save, stored
from tests.integration.processes import END_TIMEOUT_S, ServerProcess

LINK = LinkTrace.constant("quick", 50e6)
KEEP = ("--keep", "all")


def full(footing: Footing) -> None:
    footing.room = 0


def torn(footing: Footing) -> None:
    """Full in the middle of a line."""
    footing.room = random.Random(4).randrange(200, 600)


def read_only(footing: Footing) -> None:
    footing.read_only = True


DISKS = [torn, pytest.param(full, marks=pytest.mark.slow), pytest.param(read_only, marks=pytest.mark.slow)]
Fault = Callable[[Footing], None]


async def until_stored(archive: Path, count: int) -> None:
    async with asyncio.timeout(END_TIMEOUT_S):
        while len(stored(archive)) < count:  # noqa: ASYNC110 - another process' work
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("fault", DISKS)
async def test_a_device_answers_on_and_its_records_are_whole_again(
    tiny_bundle: Bundle, tmp_path: Path, fault: Fault
) -> None:
    archive, bundle = tmp_path / "archive.db", save(tiny_bundle, tmp_path)
    with Footing(tmp_path / "card") as card, ServerProcess(bundle, more=("--archive", str(archive))) as server:
        async with Fed(bundle, server.address, card, *KEEP) as agent:
            for seed in range(3):
                await agent.show(seed)
            await until_stored(archive, 3)
            fault(card)
            for seed in range(3, 8):
                await agent.show(seed)
            assert len(list(read_records(agent.records))) < 8
            card.mend()
            for seed in range(8, 10):
                await agent.show(seed)
            status, _, err = await agent.finish(b"")
    assert status == 0, err
    assert [record.source for record in agent.shown] == ["edge"] * 10
    assert list(read_records(agent.records)) == agent.shown, "none is torn, none is missing, in order"
    names = [record.name for record in agent.shown]
    found = stored(archive)
    assert found == [name for name in names if name in found], "each once, in order"
    assert {*names[:3], *names[8:]} <= set(found), "what was kept before and after has arrived"
    assert "records cannot be written" in err
    assert "did not take a frame" in err, "what could not be kept is told"


@pytest.mark.slow
@pytest.mark.parametrize("fault", DISKS)
async def test_a_server_whose_archive_cannot_be_written_answers_on_and_stores_it_later(
    tiny_bundle: Bundle, tmp_path: Path, fault: Fault
) -> None:
    bundle = save(tiny_bundle, tmp_path)
    with Footing(tmp_path / "card") as card, Footing(tmp_path / "disk") as disk:
        archive = disk.folder / "archive.db"
        with ServerProcess(bundle, more=("--archive", str(archive)), env={**os.environ, **disk.env}) as server:
            async with LinkProxy(server.address, LINK) as proxy, Fed(bundle, proxy.address, card, *KEEP) as agent:
                for seed in range(3):
                    await agent.show(seed)
                await until_stored(archive, 3)
                fault(disk)
                for seed in range(3, 8):
                    await agent.show(seed)
                disk.mend()
                proxy.cut()  # a device comes again half a minute after it was refused, or on the next connection
                await agent.show(8)
                await until_stored(archive, 9)
                status, _, err = await agent.finish(b"")
        assert status == 0, err
        assert [record.source for record in agent.shown] == ["edge"] * 9
        assert sorted(stored(archive)) == sorted(record.name for record in agent.shown), "each once"


@pytest.mark.slow
async def test_what_was_delivered_while_a_card_could_not_be_written_is_deleted_later(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    archive, bundle = tmp_path / "archive.db", save(tiny_bundle, tmp_path)
    with Footing(tmp_path / "card") as card, ServerProcess(bundle, more=("--archive", str(archive))) as server:
        async with LinkProxy(server.address, LINK) as proxy:
            # Answered by the exit, so kept; a picture is taken when the one before it is on the disk.
            words = ("--keep", "unanswered", "--deadline-ms", "1", "--window", "1")
            proxy.black_out()
            async with Fed(bundle, proxy.address, card, *words) as agent:
                for seed in range(6):
                    await agent.show(seed)
                card.read_only = True
                proxy.restore()
                await until_stored(archive, 5)
                card.read_only = False
                status, _, err = await agent.finish(b"")
    assert status == 0, err
    assert {record.source for record in agent.shown} == {"local"}
    names = [record.name for record in agent.shown]
    assert stored(archive) in (names[:5], names), "each once; the last was kept before the card failed, or it was not"
