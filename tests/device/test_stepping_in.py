"""The local exit steps in wherever the server's answer is missing, and the controller hears of it.

Nothing here races a clock: deadlines are minutes away; a test lets one pass by hand once the frame is where it is to
be. Only where nothing but a local answer can come is a deadline short.
"""

import asyncio
import time

import grpc
import pytest
from PIL import Image

from headwater.compression.errors import LinkError
from headwater.device.agent import Agent
from headwater.device.answering import Slack
from headwater.device.control.controller import Decision
from headwater.device.feed import Picture
from headwater.device.settings import DeviceSettings
from headwater.protos import edge_pb2 as pb
from tests import tiny
from tests.device.fake_edge import FakeEdge, serving
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
from tests.server.edges import until


async def test_how_late_a_frame_was_given_up_counts_for_the_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    lags: list[float] = []
    monkeypatch.setattr(Slack, "add", lambda _, lag_s: lags.append(lag_s))
    counts = []
    for answer, deadline_ms in ((ok, NEVER_MS), (silent, 1500)):  # long enough to be sent before, on any machine
        async with agent_at(FakeEdge(answer=answer), Scripted(), deadline_ms=deadline_ms) as agent:
            before = len(lags)
            await infer(agent, 1)
            counts.append(len(lags) - before)
    assert counts[1] == counts[0] + 1, "one for each turn of the worker, and one for the giving up"
    assert lags[-1] > 0


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


async def test_an_answer_that_comes_in_the_very_moment_teaches_too() -> None:
    edge, scripted = FakeEdge(answer=silent), Scripted()
    async with agent_at(edge, scripted, deadline_ms=NEVER_MS) as agent:
        asked = asyncio.create_task(infer(agent, 1))
        await edge.until(lambda: len(edge.frames) == 1)
        await let_the_deadline_pass(agent)
        agent.link.window.answered(ok(edge.frames[0]), time.monotonic())  # before the sender has had its turn
        assert_of_exit(await asked, 1)
    assert scripted.outcomes == ["local", "late"]
    local, late = scripted.observations
    assert late.round_trip_ms is not None
    assert local.waited_ms > 0
    assert (late.mode, late.sent_bytes) == (MODE, local.sent_bytes)


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
