"""The agent's part in federated learning: what it says of itself, who gets its offers, and who has to wait for whom."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from numpy.typing import NDArray
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.device.agent import Agent
from headwater.device.head import Head
from headwater.device.settings import DeviceSettings
from headwater.protos import edge_pb2 as pb
from tests import tiny
from tests.device.exchanges import ExchangingEdge
from tests.device.fake_edge import serving
from tests.device.scripted import ok

pytest.importorskip("flwr", reason="federated learning needs the extra [federated]")

from tests.device.federated.questions import APP, offer, question


@asynccontextmanager
async def agent_at(edge: ExchangingEdge, bundle: Bundle | Path, settings: DeviceSettings) -> AsyncIterator[Agent]:
    async with asyncio.timeout(300), serving(edge), Agent(bundle, f"127.0.0.1:{edge.port}", settings) as agent:
        yield agent


def settings(folder: Path) -> DeviceSettings:
    return DeviceSettings(
        name="cam-1", state=folder, train_data=folder, train_app=APP, train_memory_mb=100, train_nice=0
    )


async def test_an_agent_with_data_answers_messages_beside_its_pictures(tmp_path: Path) -> None:
    bundle = tiny.bundle().save(tmp_path / "tiny")
    edge = ExchangingEdge(answer=ok)
    async with agent_at(edge, bundle, settings(tmp_path)) as agent:
        parcel = question()
        edge.put(parcel.content)
        await edge.send(pb.ServerMessage(offer=offer(parcel, 3)))
        await agent.infer(Image.fromarray(tiny.image(1)[0]))
        await edge.until(lambda: bool(edge.uploads))
        assert agent.learner is not None
        assert agent.learner.counts.answered == 1
    assert edge.hellos[0].capabilities == ["federated"]
    assert edge.uploads[0][0].offer == 3


async def test_an_agent_without_data_refuses_messages(tmp_path: Path) -> None:
    edge = ExchangingEdge(answer=ok)
    async with agent_at(edge, tiny.bundle(), DeviceSettings(state=tmp_path)):
        await edge.send(pb.ServerMessage(offer=edge.put(b"message", offer=3)))
        await edge.until(lambda: bool(edge.others))
    assert not edge.hellos[0].capabilities
    assert (edge.others[0].offer_reply.offer, edge.others[0].offer_reply.accepted) == (3, False)


async def test_training_stands_still_while_the_head_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works, goes_on = threading.Event(), threading.Event()
    original = Head.latent

    def latent(self: Head, image: NDArray[object], width: float) -> object:
        works.set()
        goes_on.wait()
        return original(self, image, width)  # type: ignore[arg-type]

    edge = ExchangingEdge(answer=ok)
    async with agent_at(edge, tiny.bundle().save(tmp_path / "tiny"), settings(tmp_path)) as agent:
        assert agent.learner is not None
        pulls: list[bool] = []
        agent.learner.trainer.reins._pull = pulls.append
        agent.learner.trainer.reins.begin()
        monkeypatch.setattr(Head, "latent", latent)
        answer = asyncio.create_task(agent.infer(Image.fromarray(tiny.image(1)[0])))
        await asyncio.to_thread(works.wait)
        assert pulls == [True]
        goes_on.set()
        await answer
        assert pulls == [True, False]
