"""Server and devices as processes, under load, while bundles are released, gone back from, and everybody is killed."""

import asyncio
import json
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.device import FrameRecord, read_records
from headwater.server.rollout.versions import Versions
from tests import tiny
from tests.integration.processes import END_TIMEOUT_S, HEADWATER, AgentProcess, ServerProcess
from tests.versions import version, write_keys

PHOTOS = 60
CONVERGE_S = 240


class Rig:
    """A folder with a server's state, keys, pictures and bundles, and a server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.key, self.public = write_keys(folder)
        self.photos = folder / "photos"
        self.photos.mkdir()
        for seed in range(PHOTOS):
            Image.fromarray(tiny.image(seed)[0]).save(self.photos / f"{seed:03}.png")
        self.given = version(0).save(folder / "v0.zip")
        self.server = ServerProcess(self.given, more=("--state", str(self.state)))

    def agent(self, name: str, *more: str) -> AgentProcess:
        words = {
            "--bundle": self.given,
            "--server": self.server.address,
            "--source": self.photos,
            "--records": self.folder / f"{name}.jsonl",
            "--retry-s": "0.2",
            "--name": name,
            "--state": self.folder / name,
            "--trusted-key": self.public,
            "--report-s": "0.2",
            "--log-level": "error",
            "--width": "1",
            "--fps": "25",
        }
        plain = [str(word) for pair in words.items() for word in pair]
        return AgentProcess(*plain, "--repeat", *more)

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [*HEADWATER, "server", *words, "--state", str(self.state)],
            capture_output=True,
            text=True,
            timeout=END_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def publish(self, number: int) -> None:
        path = version(number).save(self.folder / f"v{number}.zip")
        more = ("--key", str(self.key), "--canary", "1", "--max-regression", "100", "--max-growth", "10000")
        assert version(number).short_id in self.command("publish", str(path), *more)

    def in_use(self, number: int) -> set[str]:
        """The devices that use a version, as far as the newest release of it knows."""
        with Versions(self.state) as versions:
            serial = next(one.serial for one in versions.releases() if one.bundle == version(number).id)
            return {name for name, (standing, _) in versions.members(serial).items() if standing == "in use"}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    with made.server:
        yield made


async def wait_for(holds: Callable[[], bool], agents: list[AgentProcess]) -> None:
    """Read what agents print, so that they do not stand still, until it holds."""
    async with asyncio.timeout(CONVERGE_S):
        while not await asyncio.to_thread(holds):
            for agent in agents:
                for _ in range(5):
                    await agent.line()


def check(path: Path, versions: int) -> Counter[str]:
    """Every picture was answered, once, by the very bundle that coded it; how often each bundle did."""
    records = list(read_records(path))
    assert sorted(record.sequence for record in records) == list(range(1, len(records) + 1)), "a frame was lost"
    by_id = {version(number).short_id: version(number) for number in range(versions)}
    for record in records:
        check_one(record, by_id[record.bundle])
    return Counter(record.bundle for record in records)


def check_one(record: FrameRecord, bundle: Bundle) -> None:
    assert record.status == "ok", record
    for task, scores in tiny.answer(bundle, int(record.name[:3]), record.mode).items():
        np.testing.assert_allclose(list(record[task].scores.values()), scores, atol=2e-4)


async def end(agent: AgentProcess) -> None:
    agent.process.send_signal(signal.SIGTERM)
    status, _, err = await agent.finish()
    assert (status, err) == (0, "")


def answered_by(rig: Rig, name: str, number: int) -> bool:
    """Whether a device has a record of this version by now."""
    path = rig.folder / f"{name}.jsonl"
    return path.exists() and version(number).short_id in path.read_text(encoding="utf-8")


async def swap_under_load(rig: Rig, swaps: int) -> None:
    async with rig.agent("a") as one, rig.agent("b", "--progressive", "--progressive-bytes", "60") as other:
        agents = [one, other]
        for number in range(swaps + 1):
            if number:
                await asyncio.to_thread(rig.publish, number)
                await wait_for(lambda number=number: rig.in_use(number) == {"a", "b"}, agents)  # type: ignore[misc]
            # Each has answered with this bundle before there is another: what it prints may be of earlier ones.
            await wait_for(lambda number=number: all(answered_by(rig, name, number) for name in ("a", "b")), agents)  # type: ignore[misc]
        for agent in agents:
            await end(agent)
    for name in ("a", "b"):
        counts = check(rig.folder / f"{name}.jsonl", swaps + 1)
        assert set(counts) == {version(number).short_id for number in range(swaps + 1)}


async def test_three_swaps_under_load_lose_no_frame(rig: Rig) -> None:
    await swap_under_load(rig, 3)
    shown = json.loads(await asyncio.to_thread(rig.command, "versions", "--json"))
    async with asyncio.timeout(CONVERGE_S):  # each said how the last one did before it left; a turn writes it down
        while shown["bundles"][0]["field"]["answered"] == 0:
            shown = json.loads(await asyncio.to_thread(rig.command, "versions", "--json"))
    assert [one["bundle"] for one in shown["releases"]] == [version(number).id.hex() for number in (3, 2, 1)]
    assert all(one["devices"]["a"]["standing"] == "in use" for one in shown["releases"])
    table = await asyncio.to_thread(rig.command, "versions")
    assert "Releases" in table
    assert version(3).short_id in table.replace("\n", "")


@pytest.mark.slow
async def test_twenty_swaps_under_load_lose_no_frame(rig: Rig) -> None:
    await swap_under_load(rig, 20)


@pytest.mark.slow
async def test_back_by_command_while_frames_flow(rig: Rig) -> None:
    async with rig.agent("a") as agent:
        await asyncio.to_thread(rig.publish, 1)
        await wait_for(lambda: rig.in_use(1) == {"a"}, [agent])
        said = await asyncio.to_thread(rig.command, "rollback", "--reason", "a try")
        assert f"back to tiny {version(0).short_id}" in said
        await wait_for(lambda: rig.in_use(0) == {"a"}, [agent])
        for _ in range(10):
            await agent.line()
        await end(agent)
    assert list(read_records(rig.folder / "a.jsonl"))[-1].bundle == version(0).short_id
    check(rig.folder / "a.jsonl", 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_kills_of_either_side_at_random_moments(rig: Rig, seed: int) -> None:
    """However often either is killed, the device ends with the newest bundle and never without one."""
    rng, kills = random.Random(seed), 0
    for number in range(1, 4):
        await asyncio.to_thread(rig.publish, number)
        while number not in (await asyncio.to_thread(reached, rig)):
            async with rig.agent("a") as agent:
                await agent.line()  # it answers after every kill, whatever it was killed in
                await asyncio.sleep(rng.uniform(0.0, 0.6))  # the moment of the kill; nothing waits for it
                agent.process.kill()
                await agent.process.communicate()
            kills += 1
            assert kills < 200
            if rng.random() < 0.3:
                await asyncio.to_thread(rig.server.end, signal.SIGKILL)
                await asyncio.to_thread(rig.server.start)
    async with rig.agent("a") as agent:
        for _ in range(10):
            await agent.line()
        await end(agent)
    assert list(read_records(rig.folder / "a.jsonl"))[-1].bundle == version(3).short_id


def reached(rig: Rig) -> set[int]:
    """The versions that the device's own state names."""
    path = rig.folder / "a" / "bundles" / "state.json"
    if not path.is_file():
        return set()
    current = json.loads(path.read_text())["current"]
    return {number for number in range(4) if version(number).id.hex() == current}
