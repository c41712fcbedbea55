"""Flower's own strategy in one process, a server in another, agents in others: together, and killed in every phase."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.device import read_records
from headwater.protos.nodes import node_id
from headwater.server.federation.grid import StreamGrid
from headwater.server.mail.mailbox import Mailbox
from tests import tiny
from tests.integration.processes import AgentProcess, ServerProcess

NAMES = ("cam-1", "cam-2")
WITHIN_S = 300
"""Training processes run when nobody else does."""


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "tiny.zip"
    tiny_bundle.save(path)
    return path


class Fleet:
    """A server with a mailbox, and agents that take part; each may be killed and started again."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder = folder
        self.bundle = bundle
        self.state = folder / "server"
        self.server = ServerProcess(bundle, more=("--state", str(self.state)))
        for number, name in enumerate(NAMES, 1):
            (folder / name).mkdir()
            (folder / name / "number").write_text(str(number), encoding="utf-8")

    def agent(self, name: str, *more: str, source: str = "-") -> AgentProcess:
        """An agent without pictures, unless it is given some."""
        words = {
            "--name": name,
            "--bundle": self.bundle,
            "--server": self.server.address,
            "--source": source,
            "--state": self.folder / f"{name}-state",
            "--train-data": self.folder / name,
            "--train-app": "tests.integration.fleet_app:app",
            "--retry-s": 0.2,
            "--train-nice": 0,  # a test's machine may be busy
        }
        arguments = [str(word) for pair in words.items() for word in pair]
        return AgentProcess(*arguments, "--train-on-battery", *more)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The server and all agents, connected."""
        with self.server:
            async with AsyncExitStack() as agents:
                for name in NAMES:
                    await agents.enter_async_context(self.agent(name))
                await self.until(lambda: self.connected == set(NAMES))
                yield

    @property
    def connected(self) -> set[str]:
        with Mailbox(self.state) as box:
            return {one.name for one in box.devices() if one.connected}

    def calls(self, name: str) -> list[str]:
        """What the app of a device was called with, each time."""
        path = self.folder / name / "calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def hold(self, name: str) -> Path:
        path = self.folder / name / "hold"
        path.touch()
        return path

    @staticmethod
    async def until(holds: Callable[[], object]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not holds():  # noqa: ASYNC110 - other processes make it so
                await asyncio.sleep(0.02)

    def rounds(self, count: int = 2) -> list[float]:
        """Run Flower's own strategy; the mean of the arrays."""
        with StreamGrid(self.state) as grid:
            start = ArrayRecord({"w": Array(np.zeros(5, np.float32))})
            result = FedAvg(fraction_evaluate=0.0).start(grid, start, num_rounds=count, timeout=WITHIN_S)
        values: list[float] = result.arrays.to_numpy_ndarrays()[0].tolist()
        return values


@pytest.fixture
def fleet(tmp_path: Path, bundle: Path) -> Iterator[Fleet]:
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])  # training processes import the app from here
    yield Fleet(tmp_path, bundle)
    os.environ.clear()
    os.environ.update(before)


async def test_flowers_own_strategy_runs_on_a_live_fleet(fleet: Fleet) -> None:
    async with fleet.running():
        assert await asyncio.to_thread(fleet.rounds) == [3.0] * 5
    assert [len(fleet.calls(name)) for name in NAMES] == [2, 2]


@pytest.mark.slow
async def test_a_server_and_an_agent_that_are_killed_while_a_device_trains_change_nothing(fleet: Fleet) -> None:
    hold = fleet.hold("cam-2")
    with fleet.server:
        async with fleet.agent("cam-1"):
            async with fleet.agent("cam-2"):
                await fleet.until(lambda: fleet.connected == set(NAMES))
                rounds = asyncio.create_task(asyncio.to_thread(fleet.rounds))
                await fleet.until(lambda: fleet.calls("cam-2"))
                fleet.server.end(signal.SIGKILL)
                fleet.server.start()
                await fleet.until(lambda: fleet.connected == set(NAMES))
            # and the agent was killed, and its training process with it
            await fleet.until(lambda: fleet.connected == {"cam-1"})
            async with fleet.agent("cam-2"):
                await fleet.until(lambda: len(fleet.calls("cam-2")) == 2)
                hold.unlink()
                assert await rounds == [3.0] * 5
    assert len(set(fleet.calls("cam-2"))) == 2  # the first message twice, the second once
    assert len(fleet.calls("cam-1")) == 2


ROUNDS = """
import sys
from pathlib import Path
from tests.integration.test_federated import Fleet
fleet = object.__new__(Fleet)
fleet.state = Path(sys.argv[1])
print(fleet.rounds())
"""


@pytest.mark.slow
async def test_a_strategy_that_is_killed_finds_its_messages_and_replies_again(fleet: Fleet) -> None:
    hold = fleet.hold("cam-2")
    command = [sys.executable, "-c", ROUNDS, str(fleet.state)]
    async with fleet.running():
        first = await asyncio.create_subprocess_exec(*command)
        await fleet.until(lambda: fleet.calls("cam-2") and fleet.calls("cam-1"))
        first.kill()
        await first.wait()
        hold.unlink()
        again = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        assert again.stdout.splitlines()[-1] == str([3.0] * 5)
    assert [len(fleet.calls(name)) for name in NAMES] == [2, 2]  # no device trained twice for the same


@pytest.mark.slow
async def test_messages_wait_for_a_device_that_sleeps_and_frames_go_on(fleet: Fleet, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(40):
        Image.fromarray(tiny.image(seed)[0]).save(photos / f"{seed:03}.png")
    with fleet.server, StreamGrid(fleet.state) as grid:
        async with fleet.agent("cam-1"):
            await fleet.until(lambda: fleet.connected == {"cam-1"})
        await fleet.until(lambda: not fleet.connected)
        content = RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(200_000, np.float32))})})
        (key,) = grid.push_messages([Message(content, node_id("cam-1"), "train", group_id="1", ttl=WITHIN_S)])
        records = tmp_path / "records.jsonl"
        more = ("--repeat", "--fps", "50", "--records", str(records))
        async with fleet.agent("cam-1", *more, source=str(photos)) as agent:
            await fleet.until(lambda: grid.mailbox.find([key], settled=True))
            agent.process.terminate()
            status, _, _ = await agent.finish()
        (reply,) = grid.pull_messages([key])
    assert status == 0
    assert reply.content.metric_records["metrics"]["steps"] == 1
    shown = list(read_records(records))
    assert shown
    assert {record.status for record in shown} == {"ok"}
    assert sorted(record.sequence for record in shown) == list(range(1, len(shown) + 1)), "each once, as answers come"
