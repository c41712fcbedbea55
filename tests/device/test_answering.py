"""One picture's way: what is decided when, and that the local exit steps in wherever the server's answer is missing.

Nothing here races a clock: deadlines are hours away, and a test lets one pass by hand once the frame is where it is to
be. Only where nothing but a local answer can come is a deadline short.
"""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from typing import Self

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.errors import LinkError
from headwater.device import answering
from headwater.device.agent import Agent
from headwater.device.answering import Slack
from headwater.device.controller import Decision, Observation, Situation
from headwater.device.feed import Picture
from headwater.device.head import Head
from headwater.device.record import FrameRecord
from headwater.device.settings import DeviceSettings
from headwater.protos import edge_pb2 as pb
from tests import tiny
from tests.device.fake_edge import FakeEdge, serving
from tests.server.edges import until

SOON_MS = 100
"""A deadline that is to pass."""
NEVER_MS = 600_000
"""One that is not."""
MODE = 11


class Scripted:
    """A controller that does as the test says, and keeps what it is told."""

    def __init__(self, decision: Decision | None = None, refined: Decision | None = None) -> None:
        self.decision = decision or Decision(MODE)
        self.refined = refined
        self.situations: list[Situation] = []
        self.refinements: list[tuple[Situation, float | None]] = []
        self.observations: list[Observation] = []

    def choose(self, situation: Situation) -> Decision:
        self.situations.append(situation)
        return self.decision

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:
        self.refinements.append((situation, confidence))
        return self.refined or decision

    def observe(self, observation: Observation) -> None:
        self.observations.append(observation)

    @property
    def outcomes(self) -> list[str]:
        return [observation.outcome for observation in self.observations]


def silent(_: pb.FeatureFrame) -> None:
    """No answer."""


def ok(frame: pb.FeatureFrame) -> pb.Answer:
    shape = pb.TaskResult(task="shape", scores=[0.25, 0.5, 0.25])
    timing = pb.ServerTiming(queue_us=100, decode_us=200, run_us=700, batch=2)
    return pb.Answer(sequence=frame.sequence, status=pb.STATUS_OK, results=[shape], timing=timing)


@asynccontextmanager
async def agent_at(
    edge: FakeEdge | None, scripted: Scripted, bundle: Bundle | None = None, **settings: object
) -> AsyncIterator[Agent]:
    """An agent that asks for the task of the exit; without an edge there is no server."""
    chosen = DeviceSettings(**{"tasks": ("shape",), "retry_s": 0.1, **settings})  # type: ignore[arg-type]
    if edge is None:
        async with Agent(
            bundle or tiny.bundle(), "127.0.0.1:1", chosen, controller=scripted, connect_timeout_s=None
        ) as agent:
            yield agent
        return
    async with (
        serving(edge),
        Agent(bundle or tiny.bundle(), f"127.0.0.1:{edge.port}", chosen, controller=scripted) as agent,
    ):
        yield agent


async def let_the_deadline_pass(agent: Agent, count: int = 1) -> None:
    """Wait until so many frames are on their way, or wait for it, and do what the timers would."""
    window = agent.link.window
    await until(lambda: window.unanswered >= count)
    for outgoing in [*window._waiting, *window.flying.values()]:
        window.give_up(outgoing, time.monotonic())


async def infer(agent: Agent, seed: int) -> FrameRecord:
    return await agent.infer(Image.fromarray(tiny.image(seed)[0]), name=str(seed))


def assert_of_exit(record: FrameRecord, seed: int, mode: int = MODE) -> None:
    """The answer is the local exit's to this picture."""
    logits = tiny.exit_logits(tiny.bundle(), seed, mode).astype(float)
    wanted = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(list(record["shape"].scores.values()), wanted, atol=1e-5)
    assert (record.source, record.status) == ("local", "ok")
    assert record.confidence == pytest.approx(wanted.max(), abs=1e-5)


# ---------------------------------------------------------------- the exit steps in


async def test_a_silent_server_is_answered_for_and_its_late_answer_still_teaches() -> None:
    edge, scripted = FakeEdge(answer=silent), Scripted()
    async with agent_at(edge, scripted, deadline_ms=NEVER_MS) as agent:
        asked = asyncio.create_task(infer(agent, 1))
        await edge.until(lambda: len(edge.frames) == 1)
        await let_the_deadline_pass(agent)
        record = await asked
        assert_of_exit(record, 1)
        (frame,) = edge.frames
        assert (record.detail, record.action, record.stepped_in) == ("no answer before the deadline", "send", True)
        assert (record.bytes, record.attempts, record.round_trip_ms) == (len(frame.data), 1, 0.0)
        await edge.send(pb.ServerMessage(answer=ok(frame)))
        await until(lambda: len(scripted.observations) == 2)
    local, late = scripted.observations
    assert (local.outcome, local.sent, local.round_trip_ms, local.confidence) == (
        "local",
        True,
        None,
        record.confidence,
    )
    assert 0 < local.waited_ms <= record.latency_ms
    assert min(local.prepare_ms, local.head_ms, local.exit_ms, local.code_ms) > 0
    assert (late.outcome, late.mode, late.sent_bytes, late.server_ms, late.batch) == (
        "late",
        MODE,
        record.bytes,
        1.0,
        2,
    )
    assert late.round_trip_ms is not None
    assert late.round_trip_ms > local.waited_ms
    assert late.time_s > local.time_s > 0
    assert (late.prepare_ms, late.head_ms, late.exit_ms, late.code_ms) == (0.0, 0.0, 0.0, 0.0)


async def test_a_deadline_passes_by_itself() -> None:
    edge, scripted = FakeEdge(answer=silent), Scripted()
    async with agent_at(edge, scripted, deadline_ms=SOON_MS) as agent:
        for seed in range(3):
            assert_of_exit(await infer(agent, seed), seed)
    assert scripted.outcomes == ["local"] * 3


async def test_frames_that_were_given_up_are_not_remembered_for_ever() -> None:
    edge, scripted = FakeEdge(answer=silent), Scripted()
    async with agent_at(edge, scripted, deadline_ms=NEVER_MS, window=2) as agent:
        for seed in range(6):
            asked = asyncio.create_task(infer(agent, seed))
            await edge.until(lambda seed=seed: len(edge.frames) == seed + 1)
            await let_the_deadline_pass(agent)
            assert_of_exit(await asked, seed)
            edge.break_streams()
            await until(lambda: not agent.link.connected.is_set())
            await agent.link.wait_connected()
        assert len(agent._answering._given_up) == 2
        assert agent.pending == 0


@pytest.mark.parametrize(
    ("status", "detail"), [(pb.STATUS_UNKNOWN_TASK, "unknown_task: because"), (pb.STATUS_EXPIRED, "because")]
)
async def test_a_refused_frame_is_answered_for_at_once(status: pb.Status, detail: str) -> None:
    def refuse(frame: pb.FeatureFrame) -> pb.Answer:
        return pb.Answer(sequence=frame.sequence, status=status, detail="because")

    edge, scripted = FakeEdge(answer=refuse), Scripted()
    async with agent_at(edge, scripted, deadline_ms=NEVER_MS) as agent:
        record = await infer(agent, 2)
    assert_of_exit(record, 2)
    assert record.detail == detail
    assert scripted.outcomes == ["local" if status == pb.STATUS_EXPIRED else "failed"]


async def test_an_answer_that_does_not_fit_is_answered_for() -> None:
    def strange(frame: pb.FeatureFrame) -> pb.Answer:
        wrong = pb.TaskResult(task="shape", scores=[1.0])
        return pb.Answer(sequence=frame.sequence, status=pb.STATUS_OK, results=[wrong])

    scripted = Scripted()
    async with agent_at(FakeEdge(answer=strange), scripted, deadline_ms=NEVER_MS) as agent:
        record = await infer(agent, 3)
    assert_of_exit(record, 3)
    assert record.detail.startswith("internal: the server sent 1 scores")


async def test_a_server_that_is_full_leaves_the_answer_to_the_exit() -> None:
    def busy(frame: pb.FeatureFrame) -> pb.Answer:
        timing = pb.ServerTiming(retry_after_ms=50)
        return pb.Answer(sequence=frame.sequence, status=pb.STATUS_BUSY, timing=timing)

    edge, scripted = FakeEdge(answer=busy), Scripted()
    async with agent_at(edge, scripted, deadline_ms=NEVER_MS) as agent:
        asked = [asyncio.create_task(infer(agent, seed)) for seed in range(4)]
        await until(lambda: agent.link.window.counts.busy > 0)
        await let_the_deadline_pass(agent, 4)
        records = await asyncio.gather(*asked)
    for seed, record in enumerate(records):
        assert_of_exit(record, seed)
    assert scripted.outcomes == ["local"] * 4


async def test_a_server_that_will_not_have_this_device_is_done_without_until_it_will(
    caplog: pytest.LogCaptureFixture,
) -> None:
    edge, scripted = FakeEdge(answer=ok, refuse=(grpc.StatusCode.FAILED_PRECONDITION, "served are: other")), Scripted()
    settings = DeviceSettings(tasks=("shape",), deadline_ms=NEVER_MS, retry_s=0.1)
    async with (
        serving(edge),
        Agent(tiny.bundle(), f"127.0.0.1:{edge.port}", settings, controller=scripted, connect_timeout_s=None) as agent,
    ):
        records = [await infer(agent, seed) for seed in range(3)]
        while len(edge.hellos) < 4:  # noqa: ASYNC110 - the fake refuses before it notifies
            await asyncio.sleep(0.001)
        edge.refuse = None
        await agent.link.wait_connected()
        assert (await infer(agent, 3)).source == "edge"
    assert len([one for one in caplog.records if one.levelname == "ERROR"]) == 1, "said once, not at each attempt"
    for seed, record in enumerate(records):
        assert_of_exit(record, seed)
        assert "served are: other" in record.detail
    assert [record.sequence for record in records] == sorted({record.sequence for record in records})
    assert scripted.outcomes == ["local"] * 3 + ["answered"]


async def test_with_no_server_at_all_every_picture_has_its_answer() -> None:
    scripted = Scripted()
    async with agent_at(None, scripted, deadline_ms=NEVER_MS) as agent:
        asked = asyncio.create_task(infer(agent, 1))
        await let_the_deadline_pass(agent)
        sent = await asked
        scripted.decision = Decision(MODE, action="local", reason="no connection")
        at_once = await infer(agent, 2)
    assert_of_exit(sent, 1)
    assert (sent.bytes, sent.attempts, sent.detail) == (0, 0, "not sent before the deadline")
    assert_of_exit(at_once, 2)
    assert (at_once.action, at_once.reason, at_once.code_ms) == ("local", "no connection", 0.0)
    assert [(one.outcome, one.sent, one.waited_ms) for one in scripted.observations] == [("local", False, 0.0)] * 2
    assert not any(situation.connected for situation in scripted.situations)


async def test_without_a_deadline_the_server_has_the_last_word() -> None:
    def refuse(frame: pb.FeatureFrame) -> pb.Answer:
        return pb.Answer(sequence=frame.sequence, status=pb.STATUS_INTERNAL, detail="because")

    async with agent_at(FakeEdge(answer=refuse), Scripted()) as agent:
        with pytest.raises(LinkError, match=r"no answer \(internal\): because"):
            await infer(agent, 1)


async def test_a_picture_that_waited_too_long_is_not_sent_any_more() -> None:
    edge, scripted = FakeEdge(answer=ok), Scripted()
    image = Image.fromarray(tiny.image(4)[0])
    async with agent_at(edge, scripted, deadline_ms=1000) as agent:
        record, _, _ = await agent._answering.answer(Picture("old", image, {}, time.monotonic() - 10))
    assert_of_exit(record, 4)
    assert (record.action, record.reason, record.in_time) == ("local", "no time left to send", False)
    assert edge.frames == []
    assert scripted.situations[0].age_ms > 10_000


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
