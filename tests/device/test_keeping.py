"""Which frames an agent puts into its spool, and what is in them."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.errors import LinkError
from headwater.device.agent import Agent
from headwater.device.control.controller import Decision
from headwater.device.feed import Picture
from headwater.device.record import FrameRecord, read_records
from headwater.device.settings import DeviceSettings
from headwater.device.spool import Spool
from headwater.protos import edge_pb2 as pb
from tests import tiny
from tests.device.fake_edge import FakeEdge, serving
from tests.device.scripted import MODE, NEVER_MS, Scripted, infer, ok
from tests.server.edges import until


def refuse(frame: pb.FeatureFrame) -> pb.Answer:
    return pb.Answer(sequence=frame.sequence, status=pb.STATUS_UNKNOWN_TASK, detail="because")


def kept(path: Path) -> list[pb.KeptFrame]:
    with Spool(path, 1 << 20, 3600) as spool:
        return spool.oldest(100)


@asynccontextmanager
async def keeping(edge: FakeEdge, scripted: Scripted, path: Path, **settings: object) -> AsyncIterator[Agent]:
    plain = {"tasks": ("shape",), "deadline_ms": NEVER_MS, "spool": path, "keep": "unanswered", **settings}
    chosen = DeviceSettings(**plain)  # type: ignore[arg-type]
    async with serving(edge), Agent(tiny.bundle(), f"127.0.0.1:{edge.port}", chosen, controller=scripted) as agent:
        yield agent


def assert_kept(frame: pb.KeptFrame, bundle: Bundle, record: FrameRecord, seed: int, mode: int) -> None:
    """It is the frame of this picture, with what the device said of it."""
    wanted = tiny.frame(bundle, seed, mode)
    assert bundle.frames().unpack_file(frame.data) == wanted
    assert (frame.bundle_id, frame.sequence, frame.name) == (bundle.id, record.sequence, str(seed))
    assert frame.session > 0
    assert abs(frame.captured_unix_ms - datetime.fromisoformat(record.taken).timestamp() * 1e3) <= 1
    if record.source == "local":
        scores = {label: round(score, 4) for label, score in record["shape"].scores.items()}
        assert json.loads(frame.local_answer) == {"shape": scores}


async def test_what_no_server_answered_is_kept(tiny_bundle: Bundle, tmp_path: Path) -> None:
    edge, scripted, records = FakeEdge(answer=ok), Scripted(), list[FrameRecord]()
    async with keeping(edge, scripted, tmp_path / "spool") as agent:
        records.append(await infer(agent, 0))
        edge.answer = refuse
        records.append(await infer(agent, 1))
        scripted.decision = Decision(4, action="local")
        records.append(await infer(agent, 2))
        scripted.decision = Decision(4, action="skip")
        with pytest.raises(LinkError, match="skipped"):
            await infer(agent, 3)
    assert [record.source for record in records] == ["edge", "local", "local"]
    instead, local = kept(tmp_path / "spool")
    assert_kept(instead, tiny_bundle, records[1], 1, MODE)
    assert_kept(local, tiny_bundle, records[2], 2, 4)
    assert instead.session == local.session


async def test_a_frame_without_any_answer_is_kept_too(tiny_bundle: Bundle, tmp_path: Path) -> None:
    async with keeping(FakeEdge(answer=refuse), Scripted(), tmp_path / "spool", tasks=()) as agent:
        with pytest.raises(Exception, match="because"):
            await infer(agent, 5)
    (frame,) = kept(tmp_path / "spool")
    assert (frame.local_answer, frame.name) == ("", "5")
    assert tiny_bundle.frames().unpack_file(frame.data) == tiny.frame(tiny_bundle, 5, MODE)


async def test_all_are_kept_where_that_is_asked_for(tiny_bundle: Bundle, tmp_path: Path) -> None:
    edge, scripted = FakeEdge(answer=ok), Scripted()
    async with keeping(edge, scripted, tmp_path / "spool", keep="all", whole_model=True) as agent:
        answered = await infer(agent, 6)
        scripted.decision = Decision(12, action="whole")
        whole = await infer(agent, 7)
    first, second = kept(tmp_path / "spool")
    assert_kept(first, tiny_bundle, answered, 6, MODE)
    assert json.loads(first.local_answer), "what the exit says goes with it, though the server had the word"
    assert_kept(second, tiny_bundle, whole, 7, 12)


async def test_nothing_is_kept_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with keeping(FakeEdge(answer=refuse), Scripted(), tmp_path / "spool", keep="none") as agent:
        await infer(agent, 1)
    assert kept(tmp_path / "spool") == []


async def test_what_has_no_answer_when_nobody_waits_any_longer_is_recorded_and_kept(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    pictures = asyncio.Event()

    async def taken() -> AsyncIterator[Picture]:
        for seed in range(3):
            yield Picture(str(seed), Image.fromarray(tiny.image(seed)[0]), {}, asyncio.get_running_loop().time())
        await pictures.wait()

    settings = DeviceSettings(spool=tmp_path / "spool", keep="unanswered", records=tmp_path / "records")
    async with Agent(tiny_bundle, "127.0.0.1:1", settings, connect_timeout_s=None) as agent:
        running = asyncio.create_task(agent.run(taken()))
        await until(lambda: agent.link.window.unanswered == 3)
        agent.link.window.stop("the agent was stopped", 0.0)
        pictures.set()
        await running
    found = [
        (record.name, record.source, record.status, record.detail) for record in read_records(tmp_path / "records")
    ]
    assert sorted(found) == [(str(seed), "none", "cancelled", "the agent was stopped") for seed in range(3)]
    assert sorted(frame.name for frame in kept(tmp_path / "spool")) == ["0", "1", "2"]


async def test_who_stops_in_the_middle_loses_no_frame_that_was_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, slow = Spool.keep, threading.Event()

    def keep(self: Spool, frame: object) -> None:
        assert slow.wait(30)
        plain(self, frame)  # type: ignore[arg-type]

    async def pictures() -> AsyncIterator[Picture]:
        for seed in range(3):
            yield Picture(str(seed), Image.fromarray(tiny.image(seed)[0]), {}, asyncio.get_running_loop().time())

    monkeypatch.setattr(Spool, "keep", keep)
    records = list[FrameRecord]()
    async with keeping(FakeEdge(answer=refuse), Scripted(), tmp_path / "spool") as agent:
        work = asyncio.create_task(agent.run(pictures(), records.append))
        await until(lambda: len(records) == 3)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        slow.set()
    assert sorted(frame.name for frame in kept(tmp_path / "spool")) == ["0", "1", "2"]


async def test_the_record_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, slow, at_disk = Spool.keep, threading.Event(), threading.Semaphore(0)

    def keep(self: Spool, frame: object) -> None:
        at_disk.release()
        assert slow.wait(30)
        plain(self, frame)  # type: ignore[arg-type]

    async def pictures() -> AsyncIterator[Picture]:
        for seed in range(6):
            yield Picture(str(seed), Image.fromarray(tiny.image(seed)[0]), {}, asyncio.get_running_loop().time())

    monkeypatch.setattr(Spool, "keep", keep)
    records = list[FrameRecord]()
    async with keeping(FakeEdge(answer=refuse), Scripted(), tmp_path / "spool", window=3) as agent:
        work = asyncio.create_task(agent.run(pictures(), records.append))
        assert await asyncio.to_thread(at_disk.acquire, timeout=30)
        await until(lambda: len(records) == 3)
        assert agent.pending == 0
        alone = await infer(agent, 9)
        assert len(records) == 3, "no more than a window of them waits for the disk"
        slow.set()
        await work
    assert [record.name for record in records] == [str(seed) for seed in range(6)]
    assert sorted(frame.name for frame in kept(tmp_path / "spool")) == [*map(str, range(6)), alone.name]
