"""Kept frames arrive exactly once, whoever is killed and when: real processes, SIGKILL, ids compared on both sides."""

import asyncio
import random
import signal
import sys
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest

from headwater.compression.bundle import Bundle
from headwater.device.spool import Spool, SpoolStats
from headwater.server.archive import Chosen, read
from tests import tiny
from tests.integration.processes import END_TIMEOUT_S, ServerProcess

PROGRAM = Path(__file__).with_name("keeping_device.py")


class Device:
    """A keeping device across its kills."""

    def __init__(self, folder: Path, server: str) -> None:
        self.spool = folder / "spool.db"
        self.said: defaultdict[str, list[str]] = defaultdict(list)
        """The ids after each word."""
        self._words = (str(self.spool), str(folder / "frames.txt"), server)
        self._runs = 0
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        self._runs += 1
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), *self._words, f"run{self._runs}", stdin=pipe, stdout=pipe
        )

    async def says(self, word: str, times: int) -> None:
        """Wait until it has said a word so many times more."""
        wanted = len(self.said[word]) + times
        while len(self.said[word]) < wanted:
            assert await self._line(), "the device has ended"

    async def _line(self) -> bool:
        assert self._process.stdout is not None
        async with asyncio.timeout(END_TIMEOUT_S):
            line = (await self._process.stdout.readline()).decode()
        if line.endswith("\n"):  # a kill may cut one
            word, frame_id = line.split()
            self.said[word].append(frame_id)
        return bool(line)

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._end()

    async def finish(self) -> int:
        """Let it keep no more, and wait until it has delivered all."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return await self._end()

    async def _end(self) -> int:
        while await self._line():
            pass
        return await self._process.wait()


def write_frames(bundle: Bundle, path: Path) -> None:
    frames = [bundle.frames().pack_file(tiny.frame(bundle, seed, seed % 4)) for seed in range(24)]
    path.write_text("\n".join(each.hex() for each in (bundle.id, *frames)))


@pytest.mark.parametrize("victims", ["server device both device device"])
async def test_kills_lose_nothing_and_double_nothing(tmp_path: Path, tiny_bundle: Bundle, victims: str) -> None:
    await kill_and_compare(tmp_path, tiny_bundle, victims.split(), seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
async def test_twenty_kills_lose_nothing_and_double_nothing(tmp_path: Path, tiny_bundle: Bundle, seed: int) -> None:
    victims = 12 * ["server"] + 6 * ["device"] + 4 * ["both"]
    random.Random(seed).shuffle(victims)
    await kill_and_compare(tmp_path, tiny_bundle, victims, seed)


async def kill_and_compare(folder: Path, bundle: Bundle, victims: list[str], seed: int) -> None:
    rng = random.Random(seed)
    archive = folder / "archive.db"
    write_frames(bundle, folder / "frames.txt")
    with ServerProcess(bundle.save(folder / "tiny.zip"), more=("--archive", str(archive))) as server:
        device = Device(folder, server.address)
        try:
            await device.start()
            for victim in victims:
                # The moment is counted in what the device did, and then some time more that nothing depends on.
                await device.says(rng.choice(["keep", "kept", "gone"]), rng.randint(5, 40))
                await asyncio.sleep(rng.uniform(0.0, 0.02))
                if victim != "server":
                    await device.kill()
                if victim != "device":
                    await asyncio.to_thread(server.end, signal.SIGKILL)
                    await asyncio.to_thread(server.start)
                if victim != "server":
                    await device.start()
            await device.says("gone", 1)
            assert await device.finish() == 0
        finally:
            await device.kill()
        await answered(archive)
    compare(device, archive, kills=sum(victim != "server" for victim in victims))


async def answered(archive: Path) -> None:
    async with asyncio.timeout(END_TIMEOUT_S):
        while any(read(archive, Chosen(status="waiting"))):  # noqa: ASYNC110 - another process' work
            await asyncio.sleep(0.05)


def compare(device: Device, archive: Path, kills: int) -> None:
    rows = [facts for facts, _ in read(archive, Chosen())]
    stored = [str(row["id"]) for row in rows]
    begun, kept, gone = (device.said[word] for word in ("keep", "kept", "gone"))
    assert len(stored) == len(set(stored)), "each id once"
    assert len({row["name"] for row in rows}) == len(rows), "each picture once"
    assert set(kept) <= set(stored) <= set(begun), "none is lost, none is made up"
    assert len(set(stored) - set(kept)) <= kills, "kept, and killed before it could say so"
    assert len(gone) == len(set(gone))
    assert set(gone) <= set(stored), "deleted only when stored"
    assert {row["status"] for row in rows} == {"ok"}
    with Spool(device.spool, 64 << 20, 3600) as spool:
        assert spool.stats == SpoolStats(kept=len(stored), delivered=len(stored))
    assert len(stored) > 20
