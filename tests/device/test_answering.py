"""One picture's way: what is decided when, what is measured, and by which clock."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from typing import Self

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from headwater.compression.errors import LinkError
from headwater.device import answering
from headwater.device.answering import Slack
from headwater.device.control.controller import Decision
from headwater.device.feed import Picture
from headwater.device.head import Head
from headwater.device.record import FrameRecord
from headwater.protos import edge_pb2 as pb
from tests import tiny
from tests.device.fake_edge import FakeEdge
from tests.device.scripted import (
    MODE,
    NEVER_MS,
    SOON_MS,
    Scripted,
    agent_at,
    assert_of_exit,
    infer,
    let_the_deadline_pass,
    ok,
    silent,
)

# ---------------------------------------------------------------- what the controller may say


async def test_the_controller_decides_again_once_the_exit_has_judged() -> None:
    edge, scripted = FakeEdge(answer=ok), Scripted(Decision(11), Decision(9, 2, reason="an easy one"))
    async with agent_at(edge, scripted, deadline_ms=NEVER_MS) as agent:
        record = await infer(agent, 5)
        ((situation, confidence),) = scripted.refinements
        assert confidence == record.confidence
        assert situation.age_ms > scripted.situations[0].age_ms
        assert (record.mode, record.width, record.gain, record.groups) == (9, 0.75, 1, 2)
        assert record.reason == "an easy one"
        assert edge.frames[0].data == tiny.bundle().frames().pack(tiny.frame(tiny.bundle(), 5, 9, 2))
        scripted.refined = Decision(11, action="local", reason="no use")
        assert_of_exit(await infer(agent, 6), 6)
        assert len(edge.frames) == 1
    assert [observation.mode for observation in scripted.observations] == [9, 11]


async def test_a_frame_longer_than_foretold_goes_at_a_lower_gain() -> None:
    bundle = tiny.bundle()
    sizes = [len(bundle.frames().pack(tiny.frame(bundle, 5, mode))) for mode in range(8, 12)]
    edge, scripted = FakeEdge(answer=ok), Scripted(Decision(11, most_bytes=sizes[1]))
    async with agent_at(edge, scripted) as agent:
        record = await infer(agent, 5)
    assert (record.mode, record.gain, record.bytes) == (9, 1, sizes[1])
    assert scripted.observations[0].mode == 9


async def test_where_there_is_no_exit_the_controller_is_told_so() -> None:
    scripted = Scripted()
    async with agent_at(FakeEdge(answer=ok), scripted, tasks=(), deadline_ms=NEVER_MS) as agent:
        record = await infer(agent, 1)
    assert (record.source, record.confidence) == ("edge", None)
    assert not scripted.situations[0].exit_available
    assert scripted.situations[0].deadline_ms == NEVER_MS
    assert scripted.refinements[0][1] is None


async def test_a_picture_may_be_skipped() -> None:
    edge, scripted, records = FakeEdge(answer=ok), Scripted(Decision(3, action="skip", reason="no bytes left")), []
    async with agent_at(edge, scripted) as agent:
        with pytest.raises(LinkError, match=r"no answer \(skipped\): no bytes left"):
            await infer(agent, 1)
        record, reply, _ = await agent._answering.answer(Picture("x", Image.new("L", (32, 32)), {}, time.monotonic()))
        records.append(record)
        assert reply is None
    assert (records[0].source, records[0].action, records[0].bytes) == ("none", "skip", 0)
    assert scripted.outcomes == ["skipped"] * 2
    assert edge.frames == []


async def test_the_whole_model_answers_here_and_its_time_is_told() -> None:
    edge, scripted = FakeEdge(answer=ok), Scripted(Decision(3, action="whole", reason="quick enough"))
    async with agent_at(edge, scripted, whole_model=True) as agent:
        record = await infer(agent, 7)
    assert (record.source, record.action, record.status, record.reason) == ("local", "whole", "ok", "quick enough")
    assert (record["shape"].label, record.confidence, record.head_ms) == ("middle", None, 0.0)
    assert record.whole_ms > 0
    assert (scripted.outcomes, scripted.observations[0].head_ms) == (["whole"], record.whole_ms)
    whole_ms = scripted.situations[0].whole_ms
    assert whole_ms is not None
    assert whole_ms > 0
    assert edge.frames == []


async def test_no_picture_is_taken_while_the_head_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, begun, go_on = Head.latent, threading.Semaphore(0), threading.Semaphore(0)

    def latent(self: Head, image: NDArray[np.uint8], width: float) -> NDArray[np.float32]:
        begun.release()
        assert go_on.acquire(timeout=30)
        return plain(self, image, width)

    taken, records = 0, list[FrameRecord]()

    async def pictures() -> AsyncIterator[Picture]:
        nonlocal taken
        for seed in range(4):
            taken += 1
            yield Picture(str(seed), Image.fromarray(tiny.image(seed)[0]), {}, time.monotonic())

    edge, scripted = FakeEdge(answer=silent), Scripted()
    async with agent_at(edge, scripted) as agent:
        monkeypatch.setattr(Head, "latent", latent)
        work = asyncio.create_task(agent.run(pictures(), records.append))
        for count in range(1, 5):
            assert await asyncio.to_thread(begun.acquire, timeout=30)
            assert taken == count
            go_on.release()
        await edge.until(lambda: len(edge.frames) == 4)
        for frame in edge.frames:
            await edge.send(pb.ServerMessage(answer=ok(frame)))
        await work
    assert [record.name for record in records] == ["0", "1", "2", "3"]


# ---------------------------------------------------------------- what is measured


async def test_a_head_that_has_become_slow_is_known_with_the_very_next_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, slow_s = Head.latent, 0.0

    def latent(self: Head, image: NDArray[np.uint8], width: float) -> NDArray[np.float32]:
        time.sleep(slow_s)
        return plain(self, image, width)

    monkeypatch.setattr(Head, "latent", latent)
    scripted = Scripted()
    async with agent_at(FakeEdge(answer=ok), scripted, deadline_ms=NEVER_MS) as agent:
        await infer(agent, 1)
        slow_s = 0.2
        await infer(agent, 2)
        scripted.decision = Decision(MODE, action="local")
        await infer(agent, 3)
    assert [observation.head_ms >= 200 for observation in scripted.observations] == [False, True, True]


async def test_the_oldest_frame_on_its_way_is_told_though_nobody_waits_for_it() -> None:
    edge, scripted = FakeEdge(answer=silent), Scripted()
    async with agent_at(edge, scripted, deadline_ms=NEVER_MS) as agent:
        for seed in (1, 2):
            asked = asyncio.create_task(infer(agent, seed))
            await edge.until(lambda seed=seed: len(edge.frames) == seed)
            await let_the_deadline_pass(agent)
            await asked
    first, second = scripted.situations
    assert (first.oldest_ms, first.silent_ms, first.frames_unanswered) == (0.0, 0.0, 0)
    assert second.oldest_ms >= scripted.observations[0].waited_ms
    assert second.silent_ms > 0
    assert (second.frames_unanswered, second.bytes_unanswered) == (1, scripted.observations[0].sent_bytes)


def test_the_slack_follows_what_the_event_loop_s_lag_was() -> None:
    slack = Slack()
    assert (slack.ms(1000), slack.ms(20)) == (5.0, 4.0)
    slack.add(0.004)
    slack.add(0.001)
    assert slack.ms(1000) == 8.0
    slack.add(5.0)
    assert slack.ms(1000) == 200.0
    for _ in range(Slack.LAGS):
        slack.add(0.0)
    assert slack.ms(1000) == 5.0


# ---------------------------------------------------------------- the time of day


class Jumping(datetime):
    """A clock that is set forwards and backwards whenever somebody looks."""

    rng = random.Random(0)

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(days=cls.rng.uniform(-1000, 1000))


@pytest.mark.parametrize("answer", [ok, silent])
async def test_a_clock_that_jumps_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[pb.FeatureFrame], pb.Answer | None]
) -> None:
    wall = time.time
    rng = random.Random(1)
    monkeypatch.setattr(answering, "datetime", Jumping)
    edge, scripted = FakeEdge(answer=answer, welcome=pb.Welcome(heartbeat_ms=20, max_in_flight=64)), Scripted()
    deadline_ms = NEVER_MS if answer is ok else SOON_MS
    async with agent_at(edge, scripted, deadline_ms=deadline_ms) as agent:
        monkeypatch.setattr(time, "time", lambda: wall() + rng.uniform(-1e8, 1e8))
        records = [await infer(agent, seed) for seed in range(6)]
        await edge.until(lambda: any(message.HasField("heartbeat") for message in edge.others))
    assert [record.source for record in records] == ["edge" if answer is ok else "local"] * 6
    assert [record.sequence for record in records] == list(range(1, 7))
    assert all(0 < record.latency_ms < NEVER_MS for record in records)
    assert len({record.taken[:10] for record in records}) > 1, "nothing jumped"
    assert all(0 <= situation.age_ms < NEVER_MS for situation in scripted.situations)
    assert [one.time_s for one in scripted.observations] == sorted(one.time_s for one in scripted.observations)


async def test_records_are_whole_however_a_picture_ends() -> None:
    """Each goes to JSON and back."""
    scripted = Scripted(Decision(3, action="local"))
    async with agent_at(None, scripted, deadline_ms=SOON_MS) as agent:
        record = await infer(agent, 1)
    read = FrameRecord.from_json(record.to_json())
    assert replace(read, results={}, taken=record.taken).source == "local"
    assert read.results.keys() == record.results.keys()
    assert (read.action, read.reason, read.deadline_ms) == (record.action, record.reason, record.deadline_ms)
