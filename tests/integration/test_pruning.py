"""`headwater server prune` on a live fleet, to its end: by the commands that users have, in processes of their own.

The network is the shipped one, since of a smaller one the time is the runtime's own, which no channel less makes
shorter; it sees a handful of pictures, and what it learns from them does not matter here.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.learning.reading import network_of
from headwater.compression.learning.surgery import units_of
from headwater.device import read_records
from headwater.server.federation.survey import survey
from tests.integration.processes import HEADWATER, AgentProcess, ServerProcess
from tests.versions import write_keys

GIVEN = Path(__file__).parents[2] / "simulations" / "bundles" / "solar"
NAMES = ("cam-1", "cam-2")
WITHIN_S = 900
"""Training processes run when nobody else does."""
TARGET = 0.5


def pictures(folder: Path, count: int) -> Path:
    """So many of each label: the bundle's own golden images, each a little darker than the one before."""
    images = Bundle.load(GIVEN).arrays("golden.safetensors")["image"]
    for number in range(count):
        for label, image in zip(("intact", "defective"), images, strict=True):
            (folder / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray((image[0] * (1 - 0.02 * number)).astype("uint8")).save(folder / label / f"{number}.png")
    return folder


class Rig:
    """A server's state, keys, everybody's pictures, a server, and devices that learn while they answer."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        self.key, self.public = write_keys(folder)
        self.own = folder / "own"
        pictures(self.own, 6)
        pictures(self.own / "test", 3)
        self.server = ServerProcess(GIVEN, more=("--state", str(self.state)))

    def agent(self, name: str) -> AgentProcess:
        data = pictures(self.folder / name, 4)
        words = {
            "--name": name,
            "--bundle": GIVEN,
            "--server": self.server.address,
            "--source": data / "intact",
            "--state": self.folder / f"{name}-state",
            "--records": self.folder / f"{name}.jsonl",
            "--train-data": data,
            "--train-nice": 0,  # a test's machine may be busy
            "--trusted-key": self.public,
            "--report-s": 0.5,
            "--fps": 5,
            "--log-level": "error",
        }
        plain = [str(word) for pair in words.items() for word in pair]
        return AgentProcess(*plain, "--repeat", "--train-on-battery")

    async def command(self, agents: list[AgentProcess], *words: object) -> str:
        command = [*HEADWATER, "server", *map(str, words), "--state", str(self.state)]
        running = asyncio.create_task(
            asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
        )
        await until(running.done, agents)
        done = await running
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def answered_by(self, name: str) -> set[str]:
        """The bundles by which frames of a device were answered."""
        path = self.folder / f"{name}.jsonl"
        return {record.bundle for record in read_records(path)} if path.exists() else set()


async def until(holds: Callable[[], bool], agents: list[AgentProcess]) -> None:
    """Read what agents print, so that they do not stand still, until it holds."""
    async with asyncio.timeout(WITHIN_S):
        while not await asyncio.to_thread(holds):
            for agent in agents:
                await agent.line()


@pytest.mark.slow
async def test_a_live_fleet_is_pruned_to_half_the_time_and_takes_the_smaller_bundle(tmp_path: Path) -> None:
    rig, out = Rig(tmp_path), tmp_path / "smaller.zip"
    config = tmp_path / "headwater.toml"
    config.write_text("[federation]\nleast = 2\nbatch = 4\nepochs = 1.0\ndeadline_s = 600.0\n", encoding="utf-8")
    with rig.server:
        async with AsyncExitStack() as stack:
            agents = [await stack.enter_async_context(rig.agent(name)) for name in NAMES]
            given = Bundle.load(GIVEN)
            await until(lambda: all(rig.answered_by(name) == {given.short_id} for name in NAMES), agents)
            words = ("--bundle", GIVEN, "--data", rig.own, "--out", out, "--config", config, "--target-latency", TARGET)
            said = await rig.command(agents, "prune", *words, "--rounds", 1, "--epochs", 1)
            made = Bundle.load(out)
            assert made.short_id in said
            opened = ("--data", rig.own, "--max-regression", 100, "--max-growth", 10000, "--canary", 1)
            assert made.short_id in await rig.command(agents, "publish", out, "--key", rig.key, *opened)
            await until(lambda: all(made.short_id in rig.answered_by(name) for name in NAMES), agents)
    (round_,) = survey(rig.state).rounds
    assert round_.states == {"believed": len(NAMES)}
    before, after = (units_of(network_of(each)) for each in (given, made))
    assert sum(u.channels for u in after.values()) < sum(u.channels for u in before.values())
    assert made.manifest.parent == given.id.hex()
    for old, new in zip(given.manifest.modes, made.manifest.modes, strict=True):
        assert new.head_macs < old.head_macs
    for name in NAMES:
        assert {record.status for record in read_records(tmp_path / f"{name}.jsonl")} == {"ok"}
