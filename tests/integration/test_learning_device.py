"""A real agent and its training process, killed in every phase of a message: each is answered once, and the same."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

pytest.importorskip("flwr", reason="federated learning needs the extra [federated]")

from headwater.protos import edge_pb2 as pb
from tests import tiny
from tests.device.exchanges import ExchangingEdge
from tests.device.fake_edge import serving
from tests.device.federated.questions import APP, offer, question
from tests.integration.processes import AgentProcess

AGENT_MB = 150
"""What the agent may take, training or not."""


class Fleet:
    """One device, and an edge that offers it everything on every stream until the reply is there."""

    def __init__(self, folder: Path, state: str, edge: ExchangingEdge) -> None:
        self.folder, self.state, self.edge = folder, folder / state, edge
        self.questions = [question(number=number) for number in (1, 2, 3)]

    @asynccontextmanager
    async def device(self) -> AsyncIterator[psutil.Process]:
        """The agent, until the end of the block or its death."""
        known = len(self.edge.hellos)
        arguments = {
            "--bundle": self.folder / "tiny",
            "--server": f"127.0.0.1:{self.edge.port}",
            "--source": "-",
            "--name": "cam-1",
            "--retry-s": "0.1",
            "--state": self.state,
            "--train-data": self.folder,
            "--train-app": APP,
            "--train-memory-mb": "100",
            "--train-nice": "0",
        }
        async with AgentProcess(*(str(word) for pair in arguments.items() for word in pair)) as agent:
            await self.edge.until(lambda: len(self.edge.hellos) > known)
            await asyncio.sleep(0)  # the welcome goes first
            for number, parcel in enumerate(self.questions, 1):
                if number not in {opening.offer for opening, _ in self.edge.uploads}:
                    self.edge.put(parcel.content)
                    await self.edge.send(pb.ServerMessage(offer=offer(parcel, number)))
            yield psutil.Process(agent.process.pid)

    async def all_answered(self) -> list[str]:
        """The reply to each question, as its hash."""
        await self.edge.until(lambda: {opening.offer for opening, _ in self.edge.uploads} == {1, 2, 3})
        replies = {opening.offer: hashlib.sha256(data).hexdigest() for opening, data in self.edge.uploads}
        return [replies[number] for number in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of the device, with its bundle; each of a test's fleets has a state of its own in it."""
    tiny.bundle().save(tmp_path / "tiny")
    return tmp_path


@asynccontextmanager
async def fleet(folder: Path, state: str) -> AsyncIterator[Fleet]:
    edge = ExchangingEdge(chunk_bytes=64)
    async with asyncio.timeout(600), serving(edge):
        yield Fleet(folder, state, edge)


def at_chunk(edge: ExchangingEdge, *, up: bool) -> asyncio.Event:
    """Set when the second question's first chunk, or that of its reply, goes; it breaks off there."""
    reached = asyncio.Event()

    def on_chunk(_: int) -> bool:
        opening = edge.opens[-1]
        if reached.is_set() or opening.upload != up or opening.offer != 2:
            return True
        reached.set()
        return False

    edge.on_chunk = on_chunk
    return reached


def wait_for(path: Path) -> None:
    """Wait until another process has made a file."""
    while not path.exists():
        time.sleep(0.01)


async def undisturbed(folder: Path, change: Callable[[Fleet], None] = lambda _: None) -> list[str]:
    async with fleet(folder, "undisturbed") as one:
        change(one)
        async with one.device():
            return await one.all_answered()


@pytest.mark.slow
@pytest.mark.parametrize("up", [False, True])
async def test_an_agent_killed_in_a_transfer_goes_on_and_answers_the_same(folder: Path, up: bool) -> None:
    wanted = await undisturbed(folder)
    async with fleet(folder, "disturbed") as one:
        reached = at_chunk(one.edge, up=up)
        async with one.device() as agent:
            await reached.wait()
            agent.kill()
        async with one.device():
            assert await one.all_answered() == wanted


@pytest.mark.slow
async def test_an_agent_killed_before_it_knows_that_its_reply_came_does_not_train_again(folder: Path) -> None:
    wanted = await undisturbed(folder)
    async with fleet(folder, "disturbed") as one:
        one.edge.on_upload = lambda opening: opening.offer != 2
        async with one.device() as agent:
            await one.edge.until(lambda: 2 in {opening.offer for opening, _ in one.edge.uploads})
            agent.kill()
        first = one.edge.uploads.pop()
        one.edge.on_upload = lambda _: True
        async with one.device():
            assert await one.all_answered() == wanted
        assert first[1] in [data for _, data in one.edge.uploads]


async def test_an_agent_killed_while_it_trains_takes_its_child_along_and_answers_the_same(folder: Path) -> None:
    gate = folder / "gate"
    parcel = question("wait", number=2, path=str(gate))
    async with fleet(folder, "disturbed") as one:
        one.questions[1] = parcel
        async with one.device() as agent:
            await one.edge.until(lambda: len(one.edge.uploads) == 1)
            await asyncio.to_thread(wait_for, folder / "gate.begun")
            (child,) = agent.children()
            size = agent.memory_info().rss
            agent.kill()
            await asyncio.to_thread(child.wait)
        gate.touch()
        async with one.device():
            disturbed = await one.all_answered()
    assert size < AGENT_MB * 1_000_000, "and neither torch nor Flower are in it"

    def same_questions(other: Fleet) -> None:
        other.questions[1] = parcel

    assert disturbed == await undisturbed(folder, same_questions)
