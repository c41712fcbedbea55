"""Kept frames on a stream: stored, acknowledged, answered when nothing else is to do, or refused and why."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from headwater.compression.bundle import Bundle
from headwater.protos import edge_pb2 as pb
from headwater.server import keeper
from headwater.server.archive import Chosen, read
from headwater.server.session import Outbox
from tests import tiny
from tests.server.edges import Edge, Talk, edge, until
from tests.server.kept import kept


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive.db"


def facts(path: Path) -> list[dict[str, Any]]:
    return [one for one, _ in read(path, Chosen())]


async def ack(talk: Talk) -> pb.KeptAck:
    message = await talk.read()
    assert message.WhichOneof("kind") == "kept_ack", message
    found: pb.KeptAck = message.kept_ack
    return found


async def deliver(talk: Talk, *frames: pb.KeptFrame) -> None:
    for one in frames:
        await talk.send(pb.DeviceMessage(kept=one))


async def acks(talk: Talk, count: int) -> list[bytes]:
    stored: list[bytes] = []
    while len(stored) < count:
        stored += (await ack(talk)).stored
    return stored


def keeper_of(edge: Edge) -> keeper.Keeper:
    found = edge.server.service.keeper
    assert found is not None
    return found


def taken(own: keeper.Keeper) -> list[bytes]:
    """Ids of the frames that come from now on."""
    ids: list[bytes] = []
    take = own.take

    def noted(device: str, frame: pb.KeptFrame, outbox: Outbox) -> None:
        take(device, frame, outbox)
        ids.append(frame.id)

    own.take = noted  # type: ignore[method-assign]
    return ids


def counted(edge: Edge, metric: str, outcome: str) -> float:
    return edge.server.metrics.registry.get_sample_value(f"headwater_{metric}_total", {"outcome": outcome}) or 0.0


async def test_frames_are_stored_acknowledged_and_answered(path: Path, tiny_bundle: Bundle) -> None:
    frames = [kept(tiny_bundle, number) for number in range(20)]
    async with edge(archive=path) as running, Talk(running, device="cam") as talk:
        assert talk.welcome.keeps
        await deliver(talk, *frames)
        assert sorted(await acks(talk, 20)) == [one.id for one in frames]
        await until(lambda: all(row["status"] == "ok" for row in facts(path)))
        assert counted(running, "kept_frames", "stored") == counted(running, "kept_answers", "ok") == 20
    for row in facts(path):
        assert row["device"] == "cam"
        for task, scores in tiny.answer(tiny_bundle, row["sequence"], 0).items():
            np.testing.assert_allclose(list(row["answer"][task].values()), scores, atol=1e-4)
    assert list(facts(path)[0]["answer"]["shape"]) == list(tiny.TASKS[0].labels)


async def test_a_frame_that_comes_again_is_acknowledged_and_not_stored_again(path: Path, tiny_bundle: Bundle) -> None:
    async with edge(archive=path) as running:
        for session in (1, 2):
            async with Talk(running, session=session) as talk:
                await deliver(talk, kept(tiny_bundle, 1), kept(tiny_bundle, 1))
                assert await acks(talk, 2) == [kept(tiny_bundle, 1).id] * 2
        assert counted(running, "kept_frames", "stored") == 1
        assert counted(running, "kept_frames", "repeated") == 3
    assert len(facts(path)) == 1


async def test_a_server_without_an_archive_says_so_and_acknowledges_nothing(tiny_bundle: Bundle) -> None:
    async with edge() as running, Talk(running) as talk:
        assert not talk.welcome.keeps
        await deliver(talk, kept(tiny_bundle, 1))
        await talk.frame(1)
        assert (await talk.answer()).sequence == 1


async def test_live_frames_are_answered_before_kept_ones(path: Path, tiny_bundle: Bundle) -> None:
    async with edge(archive=path, max_batch=1) as running, Talk(running) as talk:
        running.gate.shut()
        await talk.frame(1)
        await running.gate.holds()
        await deliver(talk, kept(tiny_bundle, 50))
        await acks(talk, 1)
        for sequence in (2, 3):
            await talk.frame(sequence)
        await until(lambda: running.waiting == 2)
        running.gate.open()
        assert [(await talk.answer()).sequence for _ in range(3)] == [1, 2, 3]
        await until(lambda: facts(path)[0]["status"] == "ok")
        assert running.gate.batches == [[1], [2], [3], [0]]


async def test_what_cannot_be_answered_is_stored_with_the_reason(path: Path, tiny_bundle: Bundle) -> None:
    other = tiny.bundle("other", seed=1)
    damaged = kept(tiny_bundle, 2).data[:-1]
    frames = [kept(other, 1), kept(tiny_bundle, 2, data=damaged), kept(tiny_bundle, 3, data=bytes(70_000))]
    async with edge(archive=path) as running, Talk(running) as talk:
        await deliver(talk, *frames)
        await acks(talk, 3)
        await until(lambda: all(row["status"] != "waiting" for row in facts(path)))
        rows = facts(path)
        assert [row["status"] for row in rows] == ["unknown_bundle", "invalid_frame", "invalid_frame"]
        assert "is not served here" in rows[0]["detail"]
        assert [row["answer"] for row in rows] == [None] * 3
        running.server.registry.add(other)
        await running.server.reload()  # as after SIGHUP
        await until(lambda: facts(path)[0]["status"] == "ok")


async def test_what_an_earlier_run_did_not_answer_is_answered(path: Path, tiny_bundle: Bundle) -> None:
    async with edge(archive=path) as running, Talk(running) as talk:
        running.gate.shut()
        await talk.frame(1)
        await running.gate.holds()
        await deliver(talk, kept(tiny_bundle, 2))
        await acks(talk, 1)
        running.server.service.admission.draining = True  # before the gate opens
    assert facts(path)[0]["status"] == "waiting"
    async with edge(archive=path):
        await until(lambda: facts(path)[0]["status"] == "ok")


async def test_a_failed_batch_is_noted_and_tried_at_the_next_start(path: Path, tiny_bundle: Bundle) -> None:
    async with edge(archive=path) as running, Talk(running) as talk:
        running.gate.error = RuntimeError("no memory")
        await deliver(talk, kept(tiny_bundle, 1))
        await until(lambda: facts(path)[0]["status"] == "internal" if facts(path) else False)
    async with edge(archive=path):
        await until(lambda: facts(path)[0]["status"] == "ok")


async def test_a_disk_that_takes_nothing_refuses_and_keeps_the_stream(path: Path, tiny_bundle: Bundle) -> None:
    async with edge(archive=path) as running, Talk(running) as talk:
        db = keeper_of(running)._archive._db
        await deliver(talk, kept(tiny_bundle, 1))
        assert (await ack(talk)).stored
        await until(lambda: facts(path)[0]["status"] == "ok")
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        await deliver(talk, kept(tiny_bundle, 2, data=bytes(9000)))
        refused = await ack(talk)
        assert (list(refused.refused), refused.retry_after_ms) == ([kept(tiny_bundle, 2).id], keeper.BROKEN_MS)
        assert "full" in refused.detail
        await talk.frame(1)
        assert (await talk.answer()).status == pb.STATUS_OK
        assert counted(running, "kept_frames", "refused") == 1


async def test_too_many_at_once_are_refused(path: Path, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "MOST_PENDING", 2)
    async with edge(archive=path) as running, Talk(running) as talk:
        own = keeper_of(running)
        with own._archive._lock:  # the disk is busy: the first to come is being stored, two more may wait
            ids = taken(own)
            await deliver(talk, kept(tiny_bundle, 1))
            await until(lambda: bool(ids) and not own._pending)
            await deliver(talk, *(kept(tiny_bundle, number) for number in (2, 3, 4)))
            assert list((await ack(talk)).refused) == [kept(tiny_bundle, 4).id]
        assert sorted(await acks(talk, 3)) == [kept(tiny_bundle, number).id for number in (1, 2, 3)]


@pytest.mark.parametrize(
    "wrong",
    [{"id": b"short"}, {"bundle_id": b"short"}, {"data": b""}, {"sequence": 1 << 63}, {"captured_unix_ms": 1 << 63}],
)
async def test_what_no_agent_sends_ends_the_stream(path: Path, tiny_bundle: Bundle, wrong: dict[str, Any]) -> None:
    async with edge(archive=path) as running, Talk(running) as talk:
        await deliver(talk, kept(tiny_bundle, 1, **wrong))
        with pytest.raises(grpc.aio.AioRpcError, match="a kept frame has") as ended:
            await talk.read()
        assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert facts(path) == []


async def test_a_device_that_is_gone_is_stored_all_the_same(path: Path, tiny_bundle: Bundle) -> None:
    async with edge(archive=path) as running:
        own = keeper_of(running)
        async with Talk(running) as talk:
            with own._archive._lock:
                ids = taken(own)
                await deliver(talk, *(kept(tiny_bundle, number) for number in range(3)))
                await until(lambda: len(ids) == 3)
                talk.call.cancel()
                await until(lambda: not running.server.service._conversations)
        await until(lambda: len(facts(path)) == 3)


async def test_two_servers_may_share_an_archive(path: Path, tiny_bundle: Bundle) -> None:
    frames = [kept(tiny_bundle, number) for number in range(30)]
    async with edge(archive=path) as one, edge(archive=path) as two, Talk(one) as left, Talk(two) as right:
        for each in frames:
            await deliver(left, each)
            await deliver(right, each)
        assert sorted(await acks(left, 30)) == sorted(await acks(right, 30)) == [each.id for each in frames]
        assert sum(counted(each, "kept_frames", "stored") for each in (one, two)) == 30
        await until(lambda: all(row["status"] == "ok" for row in facts(path)))
    assert len(facts(path)) == 30


async def test_a_draining_server_still_stores(path: Path, tiny_bundle: Bundle) -> None:
    async with edge(archive=path, peers=("edge-2:50051", "edge-3:50051")) as running, Talk(running) as talk:
        stopping = asyncio.create_task(running.server.stop(30))
        drain = (await talk.read()).drain
        assert list(drain.servers) == ["edge-2:50051", "edge-3:50051"]
        await deliver(talk, kept(tiny_bundle, 1))
        assert await acks(talk, 1)
        await talk.goodbye()
        await stopping
    assert json.dumps(facts(path)[0])
