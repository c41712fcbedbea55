"""An agent that is offered bundles while it answers: what it takes and what it leaves; every picture is answered."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from headwater.compression import patch
from headwater.compression.background import NICE
from headwater.compression.bundle import Bundle
from headwater.compression.errors import SettingsError
from headwater.device import Agent, FrameRecord
from headwater.device.head import Head
from headwater.device.loaded import load
from headwater.device.rollout import swapping
from headwater.device.rollout.swapping import CAPABILITY, MOST_FAULTS, PROOF
from headwater.device.settings import DeviceSettings
from headwater.protos import edge_pb2 as pb
from tests import tiny
from tests.device.fake_edge import FakeEdge, serving
from tests.server.edges import until
from tests.versions import KEY, broken, release, signed, version, write_keys


class Fleet(FakeEdge):
    """A server that answers frames by the bundle that coded them, and offers others."""

    def __init__(self, *served: Bundle) -> None:
        super().__init__(answer=self.reply)
        self.served = {bundle.id: bundle for bundle in served}
        self.contents: dict[int, bytes] = {}
        self.greeted = 0

    @property
    def refuse(self) -> tuple[grpc.StatusCode, str] | None:  # type: ignore[override]
        """A hello with a bundle that is not served is refused."""
        self.greeted = len(self.others)
        known = self.hellos[-1].bundle_id in self.served
        return None if known else (grpc.StatusCode.FAILED_PRECONDITION, "the bundle is not served here")

    @refuse.setter
    def refuse(self, _: None) -> None:
        """Nothing: it follows from what is served."""

    def reply(self, frame: pb.FeatureFrame) -> pb.Answer | None:
        bundle = self.served.get(frame.bundle_id or self.now)
        if bundle is None:
            return pb.Answer(sequence=frame.sequence, status=pb.STATUS_UNKNOWN_BUNDLE, detail="not served here")
        bundle.frames().unpack(frame.data)
        results = [pb.TaskResult(task=task.name, scores=np.eye(len(task.labels))[0]) for task in tiny.TASKS]
        return pb.Answer(sequence=frame.sequence, status=pb.STATUS_OK, results=results, bundle_id=bundle.id[:5])

    @property
    def now(self) -> bytes:
        """Of frames that name no bundle."""
        others = self.others[self.greeted :]
        said = [message.use_bundle.bundle_id for message in others if message.HasField("use_bundle")]
        return said[-1] if said else self.hellos[-1].bundle_id

    async def offer(self, number: int, bundle: Bundle, serial: int, *, old: Bundle | None = None, back: bool = False):  # noqa: ANN201
        self.contents[number] = patch.make(bundle, old, device=True)
        await self.send(
            pb.ServerMessage(
                offer=pb.Offer(
                    offer=number,
                    kind=pb.OFFER_KIND_BUNDLE,
                    bundle_id=bundle.id,
                    envelope=release(bundle, serial, back=back),
                )
            )
        )

    @property
    def notices(self) -> list[tuple[str, int]]:
        """Short ids and states, in order."""
        said = [message.bundle_notice for message in self.others if message.HasField("bundle_notice")]
        return [(notice.bundle_id[:5].hex(), notice.state) for notice in said]

    @property
    def details(self) -> str:
        return " ".join(message.bundle_notice.detail for message in self.others)


def write(folder: Path, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "content").write_bytes(data)
    return folder / "content"


@asynccontextmanager
async def agent_at(edge: Fleet, folder: Path, given: Bundle | None = None) -> AsyncIterator[Agent]:
    _, public = write_keys(folder)
    settings = DeviceSettings(state=folder, trusted_key=public, width=1.0, retry_s=0.1)

    async def download(offer: pb.Offer, target: Path) -> Path:
        return await asyncio.to_thread(write, target, edge.contents[offer.offer])

    async with (
        serving(edge),
        Agent(given or version(0), f"127.0.0.1:{edge.port}", settings, connect_timeout_s=10) as agent,
    ):
        agent._courier.download = download  # type: ignore[method-assign]
        yield agent


async def said(edge: Fleet, bundle: Bundle, state: pb.BundleState) -> None:
    await edge.until(lambda: (bundle.short_id, state) in edge.notices)


async def infer(agent: Agent, count: int = 1) -> list[FrameRecord]:
    return [await agent.infer(tiny.image(seed)[0]) for seed in range(count)]


def coded_by(edge: Fleet, bundle: Bundle, frame: pb.FeatureFrame) -> bool:
    try:
        bundle.frames().unpack(frame.data)
    except Exception:  # noqa: BLE001 - it is another's
        return False
    return (frame.bundle_id or edge.now) == bundle.id


async def test_a_swap_in_the_middle_of_frames(tmp_path: Path) -> None:
    edge = Fleet(version(0), version(1))
    async with agent_at(edge, tmp_path) as agent:
        assert list(edge.hellos[0].capabilities) == [CAPABILITY]
        answer, edge.answer = edge.answer, lambda _: None  # frames fly while the bundle changes
        flying = [asyncio.create_task(agent.infer(tiny.image(seed)[0])) for seed in range(4)]
        await edge.until(lambda: len(edge.frames) == 4)
        await edge.offer(1, version(1), 5, old=version(0))
        await said(edge, version(1), pb.BUNDLE_STATE_IN_USE)
        edge.answer = answer
        await infer(agent)
        edge.break_streams()  # what flew is sent again, and says by which bundle it was coded
        assert all(record.status == "ok" for record in await asyncio.gather(*flying))
        again = [frame for frame in edge.frames[5:] if frame.sequence <= 4]
        assert {frame.bundle_id for frame in again} == {version(0).id}
        assert edge.hellos[1].bundle_id == version(1).id
        assert edge.frames[4].bundle_id == b"", "both ends know"
        assert coded_by(edge, version(1), edge.frames[4])
    states = [pb.BUNDLE_STATE_FETCHED, pb.BUNDLE_STATE_IN_USE]
    assert edge.notices == [(version(1).short_id, state) for state in states]


async def test_a_bundle_is_checked_and_loaded_by_a_thread_that_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[str, int]] = []

    def noting(*given: Any) -> Any:  # noqa: ANN401 - as load has it
        loaded.append((threading.current_thread().name, os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
        return load(*given)

    monkeypatch.setattr(swapping, "load", noting)
    edge = Fleet(version(0), version(1))
    async with agent_at(edge, tmp_path):
        await edge.offer(1, version(1), 5)
        await said(edge, version(1), pb.BUNDLE_STATE_IN_USE)
    (_, first), (thread, later) = loaded
    assert thread.startswith("headwater-swap")
    assert later == min(first + NICE, 19)


async def test_use_is_said_before_the_first_frame_of_it(tmp_path: Path) -> None:
    edge = Fleet(version(0), version(1))
    async with agent_at(edge, tmp_path) as agent:
        await infer(agent)
        await edge.offer(1, version(1), 5)
        await said(edge, version(1), pb.BUNDLE_STATE_IN_USE)
        await infer(agent, 3)
        assert [message.use_bundle.bundle_id for message in edge.others if message.HasField("use_bundle")] == [
            version(1).id
        ]
        assert agent.manifest.created == version(1).manifest.created


async def test_it_is_there_after_a_restart_and_proves_itself(tmp_path: Path) -> None:
    edge = Fleet(version(0), version(1))
    async with agent_at(edge, tmp_path) as agent:
        await edge.offer(1, version(1), 5)
        await said(edge, version(1), pb.BUNDLE_STATE_IN_USE)
        assert agent._store is not None
        assert agent._store.state.trial
    async with agent_at(edge, tmp_path) as agent:
        assert edge.hellos[-1].bundle_id == version(1).id
        await infer(agent, PROOF)
        assert agent._store is not None
        store = agent._store
        await until(lambda: not store.state.trial)


@pytest.mark.parametrize("wrong", ["golden", "signature", "damaged", "older"])
async def test_what_it_does_not_take(tmp_path: Path, wrong: str) -> None:
    edge, given = Fleet(version(3)), version(3)
    offered = {
        "golden": broken(4),
        "signature": Bundle.build(version(4).manifest, {n: version(4).read(n) for n in version(4).manifest.files}),
        "damaged": version(4),
        "older": version(2),
    }[wrong]
    async with agent_at(edge, tmp_path, given) as agent:
        await edge.offer(1, offered, 5)
        if wrong == "damaged":
            edge.contents[1] = edge.contents[1][:-100]
        await said(edge, offered, pb.BUNDLE_STATE_REFUSED)
        wanted = {"golden": "is off by", "signature": "is not signed", "damaged": "too early", "older": "older than"}
        assert wanted[wrong] in edge.details
        (record,) = await infer(agent)
        assert record.status == "ok"
        assert agent.manifest is given.manifest
        edge.others.clear()
        edge.greeted = 0
        await edge.offer(2, version(5), 6)  # it goes on with the next release
        edge.served[version(5).id] = version(5)
        await said(edge, version(5), pb.BUNDLE_STATE_IN_USE)


async def test_a_stranger_s_release_is_not_even_fetched(tmp_path: Path) -> None:
    edge = Fleet(version(0))
    async with agent_at(edge, tmp_path):
        offer = pb.Offer(offer=9, kind=pb.OFFER_KIND_BUNDLE, bundle_id=version(1).id, envelope=b"HWR\x01nonsense")
        await edge.send(pb.ServerMessage(offer=offer))
        await edge.until(lambda: any(message.HasField("offer_reply") for message in edge.others))
    (reply,) = [message.offer_reply for message in edge.others if message.HasField("offer_reply")]
    assert (reply.offer, reply.accepted) == (9, False)


async def test_an_agent_without_a_key_takes_none() -> None:
    edge = Fleet(version(0))
    async with serving(edge), Agent(version(0), f"127.0.0.1:{edge.port}"):
        await edge.offer(1, version(1), 5)
        await edge.until(lambda: any(message.HasField("offer_reply") for message in edge.others))
        assert list(edge.hellos[0].capabilities) == []
    assert "takes none" in edge.others[0].offer_reply.reason


async def test_the_server_s_roll_back_needs_no_download(tmp_path: Path) -> None:
    edge = Fleet(version(0), version(1))
    async with agent_at(edge, tmp_path) as agent:
        await edge.offer(1, version(1), 5)
        await said(edge, version(1), pb.BUNDLE_STATE_IN_USE)
        edge.contents.clear()
        await edge.offer(2, version(0), 6, back=True)
        del edge.contents[2]
        await said(edge, version(0), pb.BUNDLE_STATE_IN_USE)
        (record,) = await infer(agent)
        assert record.status == "ok"
        assert agent.manifest is version(0).manifest


async def test_frames_that_the_server_will_not_have_are_coded_again_by_the_bundle_before(tmp_path: Path) -> None:
    edge = Fleet(version(0))  # it offers what it does not serve
    async with agent_at(edge, tmp_path) as agent:
        await edge.offer(1, version(1), 5)
        await said(edge, version(1), pb.BUNDLE_STATE_IN_USE)
        records = await asyncio.gather(*(agent.infer(tiny.image(seed)[0]) for seed in range(6)))
        assert {record.status for record in records} == {"ok"}
        await said(edge, version(1), pb.BUNDLE_STATE_ROLLED_BACK)
        assert agent.manifest is version(0).manifest
        edge.others.clear()
        edge.greeted = 0
        await edge.offer(1, version(1), 5)
        await said(edge, version(1), pb.BUNDLE_STATE_REFUSED)


async def test_a_server_that_lost_the_bundle_gets_the_one_before(tmp_path: Path) -> None:
    edge = Fleet(version(0), version(1))
    async with agent_at(edge, tmp_path) as agent:
        await edge.offer(1, version(1), 5)
        await said(edge, version(1), pb.BUNDLE_STATE_IN_USE)
        answer, edge.answer = edge.answer, lambda _: None
        flying = asyncio.create_task(agent.infer(tiny.image(1)[0]))
        await edge.until(lambda: len(edge.frames) == 1)
        del edge.served[version(1).id]
        edge.answer = answer
        edge.break_streams()
        assert (await flying).status == "ok"
        assert [hello.bundle_id for hello in edge.hellos] == [version(n).id for n in (0, 1, 0)]


async def test_a_head_that_fails_in_the_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = Fleet(version(0), version(1))
    async with agent_at(edge, tmp_path) as agent:
        await edge.offer(1, version(1), 5)
        await said(edge, version(1), pb.BUNDLE_STATE_IN_USE)
        left, run = agent._answering.loaded.maker.head, Head.latent

        def failing(head: Head, *given: object) -> object:
            if head is left:
                raise ValueError("an instruction that this processor has not")
            return run(head, *given)  # type: ignore[arg-type]

        monkeypatch.setattr(Head, "latent", failing)
        (record,) = await infer(agent)
        assert record.status == "ok"
        await said(edge, version(1), pb.BUNDLE_STATE_ROLLED_BACK)
        assert "an instruction that" in edge.details
        left = agent._answering.loaded.maker.head
        with pytest.raises(ValueError, match="an instruction"):  # there is nothing else to go back to
            await infer(agent)


async def test_a_bundle_whose_first_frames_the_server_fails_on(tmp_path: Path) -> None:
    edge = Fleet(version(0), version(1))
    async with agent_at(edge, tmp_path) as agent:
        await edge.offer(1, version(1), 5)
        await said(edge, version(1), pb.BUNDLE_STATE_IN_USE)
        right = edge.answer

        def wrong(frame: pb.FeatureFrame) -> pb.Answer | None:
            if coded_by(edge, version(1), frame):
                return pb.Answer(sequence=frame.sequence, status=pb.STATUS_INVALID_FRAME)
            return right(frame)

        edge.answer = wrong
        for seed in range(MOST_FAULTS):
            with pytest.raises(Exception, match="invalid_frame"):
                await agent.infer(tiny.image(seed)[0])
        await said(edge, version(1), pb.BUNDLE_STATE_ROLLED_BACK)
        assert (await infer(agent))[0].status == "ok"


async def test_a_newer_release_ends_the_one_that_is_being_fetched(tmp_path: Path) -> None:
    edge = Fleet(version(0), version(1), version(2))
    async with agent_at(edge, tmp_path) as agent:
        fetch, held = agent._courier.download, asyncio.Event()

        async def held_for_the_first(offer: pb.Offer, target: Path) -> Path:
            if offer.offer == 1:
                held.set()
                await asyncio.Event().wait()
            return await fetch(offer, target)

        agent._courier.download = held_for_the_first  # type: ignore[method-assign]
        await edge.offer(1, version(1), 5)
        await held.wait()
        await edge.offer(2, version(2), 6)
        await said(edge, version(2), pb.BUNDLE_STATE_IN_USE)
        assert (version(1).short_id, pb.BUNDLE_STATE_IN_USE) not in edge.notices


def test_a_key_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="give --state DIR"):
        DeviceSettings(trusted_key=tmp_path / "key.pub")


def test_the_keys_of_these_tests_are_one_pair() -> None:
    assert signed(tiny.bundle()).signature == signed(tiny.bundle(), KEY).signature
