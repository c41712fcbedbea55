"""The agent in process, against a server on a real port that scripts its answers."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.errors import (
    BundleError,
    DataError,
    DeadlineError,
    FrameError,
    LinkError,
    SettingsError,
    UnknownBundleError,
)
from headwater.compression.exits import ExitScore, score_of
from headwater.device.agent import Agent
from headwater.device.control.controller import Decision, FixedController, Observation, Situation
from headwater.device.control.deadline import DeadlineController
from headwater.device.feed import Picture
from headwater.device.record import FrameRecord, read_records
from headwater.device.settings import DeviceSettings
from headwater.protos import edge_pb2 as pb
from tests import tiny
from tests.device.fake_edge import FakeEdge, serving


def answer(frame: pb.FeatureFrame) -> pb.Answer:
    """Three scores for `shape`, the second the greatest; the frame's mode in the timing."""
    shape = pb.TaskResult(task="shape", scores=[0.25, 0.5, 0.25])
    timing = pb.ServerTiming(queue_us=100, decode_us=200, run_us=700, batch=frame.data[0] & 63)
    return pb.Answer(sequence=frame.sequence, status=pb.STATUS_OK, results=[shape], timing=timing)


def refuse(status: pb.Status, detail: str) -> FakeEdge:
    return FakeEdge(answer=lambda frame: pb.Answer(sequence=frame.sequence, status=status, detail=detail))


async def pictures(count: int) -> AsyncIterator[Picture]:
    loop = asyncio.get_running_loop()
    for seed in range(count):
        image = Image.fromarray(tiny.image(seed)[0])
        yield Picture(f"{seed}.png", image, {"shape": "left"}, loop.time())


def address(edge: FakeEdge) -> str:
    return f"127.0.0.1:{edge.port}"


class Watching:
    """A controller that goes through the modes and keeps what it is told."""

    def __init__(self) -> None:
        self.situations: list[Situation] = []
        self.observations: list[Observation] = []

    def choose(self, situation: Situation) -> Decision:
        self.situations.append(situation)
        return Decision(len(self.situations) % 16)

    def refine(self, decision: Decision, situation: Situation, confidence: float | None) -> Decision:  # noqa: ARG002
        return decision

    def observe(self, observation: Observation) -> None:
        self.observations.append(observation)


@pytest.mark.parametrize("kind", ["image", "array", "bytes", "path", "text"])
async def test_answers_a_picture_however_it_is_given(tiny_bundle: Bundle, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.png"
    image = Image.fromarray(tiny.image(3)[0])
    image.save(path)
    given = {"image": image, "array": np.asarray(image), "bytes": path.read_bytes(), "path": path, "text": str(path)}
    edge = FakeEdge(answer=answer)
    async with serving(edge), Agent(tiny_bundle, address(edge), DeviceSettings(width=0.5, gain=1)) as agent:
        record = await agent.infer(given[kind])
    assert record["shape"].label == "middle"
    assert record["shape"].scores == {"left": 0.25, "middle": 0.5, "right": 0.25}
    mode = tiny_bundle.mode(0.5, 1).index
    assert edge.frames[0].data == tiny_bundle.frames().pack(tiny.frame(tiny_bundle, 3, mode))
    assert (record.mode, record.width, record.gain, record.groups, record.action) == (mode, 0.5, 1, 3, "send")
    assert (record.bytes, record.source, record.attempts) == (len(edge.frames[0].data), "edge", 1)
    assert record.server.total_ms == pytest.approx(1.0)
    assert record.latency_ms >= record.round_trip_ms > 0
    assert record.name == ("x.png" if kind in {"path", "text"} else "")


async def test_runs_a_feed_and_tells_the_controller(tiny_bundle: Bundle, tmp_path: Path) -> None:
    edge, watching, records = FakeEdge(answer=answer), Watching(), list[FrameRecord]()
    settings = DeviceSettings(records=tmp_path / "r.jsonl", fps=200, deadline_ms=5000, window=4, tasks=("shape",))
    async with serving(edge), Agent(tiny_bundle, address(edge), settings, controller=watching) as agent:
        await agent.run(pictures(30), records.append)
    assert sorted(record.name for record in records) == sorted(f"{seed}.png" for seed in range(30))
    assert all(record.status == "ok" and record.correct == {"shape": False} for record in records)
    assert all(record.server.batch == record.mode for record in records), "an answer of another frame"
    assert len(watching.situations) == len(watching.observations) == 30
    assert {situation.interval_ms for situation in watching.situations} == {5.0}
    limits = [situation.deadline_ms for situation in watching.situations]
    assert all(limit is not None and 4000 <= limit <= 4995 for limit in limits), (
        "less what the agent's own answer takes"
    )
    assert all(situation.exit_available and situation.whole_ms is None for situation in watching.situations)
    assert all(record.deadline_ms == 5000 and record.in_time for record in records)
    assert all(situation.frames_unanswered < 4 and situation.connected for situation in watching.situations)
    assert {observation.mode for observation in watching.observations} == set(range(16))
    assert all(observation.outcome == "answered" for observation in watching.observations)
    assert {tuple(frame.tasks) for frame in edge.frames} == {("shape",)}
    assert all(0 < frame.deadline_ms <= 5000 for frame in edge.frames)
    assert len(list(read_records(tmp_path / "r.jsonl"))) == 30


async def test_stops_at_the_count(tiny_bundle: Bundle) -> None:
    edge, records = FakeEdge(answer=answer), list[FrameRecord]()
    async with serving(edge), Agent(tiny_bundle, address(edge)) as agent:
        await agent.run(pictures(30), records.append, count=7)
    assert len(records) == len(edge.frames) == 7


async def test_no_more_pictures_are_taken_than_the_window(tiny_bundle: Bundle) -> None:
    edge = FakeEdge(answer=lambda _: None)
    taken = 0

    async def counted() -> AsyncIterator[Picture]:
        nonlocal taken
        async for picture in pictures(30):
            taken += 1
            yield picture

    async with serving(edge), Agent(tiny_bundle, address(edge), DeviceSettings(window=3)) as agent:
        work = asyncio.create_task(agent.run(counted()))
        await edge.until(lambda: len(edge.frames) == 3)
        assert taken == 3
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (pb.STATUS_INVALID_FRAME, FrameError),
        (pb.STATUS_UNKNOWN_BUNDLE, UnknownBundleError),
        (pb.STATUS_EXPIRED, DeadlineError),
        (pb.STATUS_INTERNAL, LinkError),
    ],
)
async def test_a_refused_frame_raises_with_the_servers_words(
    tiny_bundle: Bundle, status: pb.Status, error: type[Exception]
) -> None:
    edge = refuse(status, "because")
    async with serving(edge), Agent(tiny_bundle, address(edge)) as agent:
        with pytest.raises(error, match="because"):
            await agent.infer(tiny.image(0)[0])


async def test_in_a_run_a_refused_frame_is_a_record(tiny_bundle: Bundle) -> None:
    edge, watching, records = refuse(pb.STATUS_UNKNOWN_TASK, "it has others"), Watching(), list[FrameRecord]()
    async with serving(edge), Agent(tiny_bundle, address(edge), controller=watching) as agent:
        await agent.run(pictures(3), records.append)
    assert [(record.status, record.source, record.detail) for record in records] == [
        ("unknown_task", "none", "it has others")
    ] * 3
    assert {observation.outcome for observation in watching.observations} == {"failed"}


async def test_an_answer_that_does_not_fit_the_bundle_is_a_record(tiny_bundle: Bundle) -> None:
    def strange(frame: pb.FeatureFrame) -> pb.Answer:
        wrong = pb.TaskResult(task="shape", scores=[1.0])
        return pb.Answer(sequence=frame.sequence, status=pb.STATUS_OK, results=[wrong])

    edge, records = FakeEdge(answer=strange), list[FrameRecord]()
    async with serving(edge), Agent(tiny_bundle, address(edge)) as agent:
        await agent.run(pictures(2), records.append)
    assert [(record.status, record.source, record.results) for record in records] == [("internal", "none", {})] * 2
    assert "1 scores for 'shape'" in records[0].detail


async def test_without_an_exit_for_what_is_asked_a_deadline_that_passes_is_an_error(tiny_bundle: Bundle) -> None:
    settings = DeviceSettings(deadline_ms=80)
    async with Agent(tiny_bundle, "127.0.0.1:1", settings, connect_timeout_s=None) as agent:
        with pytest.raises(DeadlineError, match="not sent before the deadline"):
            await agent.infer(tiny.image(0)[0])


async def test_a_server_that_is_not_there_is_an_error_on_entering(tiny_bundle: Bundle) -> None:
    with pytest.raises(LinkError, match=r"no server answers at 127\.0\.0\.1:1 "):
        async with Agent(tiny_bundle, "127.0.0.1:1", connect_timeout_s=0.3):
            pass


async def test_a_server_that_refuses_ends_a_run(tiny_bundle: Bundle) -> None:
    edge = FakeEdge(refuse=(grpc.StatusCode.FAILED_PRECONDITION, "served are: other 1234"))
    async with serving(edge), Agent(tiny_bundle, address(edge), connect_timeout_s=None) as agent:
        with pytest.raises(UnknownBundleError, match="served are: other 1234"):
            await agent.run(pictures(30))


async def test_an_error_of_the_feed_comes_after_the_answers(tiny_bundle: Bundle) -> None:
    async def broken() -> AsyncIterator[Picture]:
        async for picture in pictures(3):
            yield picture
        raise DataError("the camera is gone")

    edge, records = FakeEdge(answer=answer), list[FrameRecord]()
    async with serving(edge), Agent(tiny_bundle, address(edge)) as agent:
        with pytest.raises(DataError, match="the camera is gone"):
            await agent.run(broken(), records.append)
    assert len(records) == 3


@pytest.mark.parametrize("timeout_s", [10.0, None])
async def test_a_task_that_neither_side_has_is_refused(tiny_bundle: Bundle, timeout_s: float | None) -> None:
    welcome = pb.Welcome(tasks=[pb.TaskSpec(name="column", labels=["a", "b"])])
    edge, settings = FakeEdge(answer=answer, welcome=welcome), DeviceSettings(tasks=("shape", "defect"))
    message = "no task 'defect': the bundle tiny has shape, bright; the server 127.0.0.1:.* has column; ask for"
    async with serving(edge):
        with pytest.raises(SettingsError, match=message):
            async with Agent(tiny_bundle, address(edge), settings, connect_timeout_s=timeout_s) as agent:
                await agent.run(pictures(3))
    assert not edge.frames


async def test_what_only_the_server_has_is_answered_with_its_labels(tiny_bundle: Bundle) -> None:
    def both(frame: pb.FeatureFrame) -> pb.Answer:
        column = pb.TaskResult(task="column", scores=[0.25, 0.75])
        return pb.Answer(sequence=frame.sequence, status=pb.STATUS_OK, results=[column])

    specs = [pb.TaskSpec(name="shape", labels=tiny.TASKS[0].labels), pb.TaskSpec(name="column", labels=["a", "b"])]
    edge, records = FakeEdge(answer=both, welcome=pb.Welcome(tasks=specs)), list[FrameRecord]()
    settings = DeviceSettings(tasks=("column",))
    async with serving(edge), Agent(tiny_bundle, address(edge), settings, connect_timeout_s=None) as agent:
        await agent.run(pictures(2), records.append)
    assert [record["column"].label for record in records] == ["b", "b"]
    assert {tuple(frame.tasks) for frame in edge.frames} == {("column",)}


async def test_a_picture_that_is_no_png_is_a_record(tmp_path: Path) -> None:
    def strange(frame: pb.FeatureFrame) -> pb.Answer:
        return pb.Answer(
            sequence=frame.sequence,
            status=pb.STATUS_OK,
            results=[pb.TaskResult(task="reconstruct", image=b"a picture")],
        )

    edge, records = FakeEdge(answer=strange), list[FrameRecord]()
    settings = DeviceSettings(tasks=("reconstruct",), save_images=tmp_path / "pictures")
    async with serving(edge), Agent(tiny.later(), address(edge), settings) as agent:
        await agent.run(pictures(2), records.append)
    assert {(record.status, record.detail) for record in records} == {
        ("internal", "the server sent 9 bytes for 'reconstruct' that are no PNG")
    }
    assert list((tmp_path / "pictures").iterdir()) == []


async def test_an_unknown_mode_is_refused_before_connecting(tiny_bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"no mode of width 0\.3"):
        async with Agent(tiny_bundle, settings=DeviceSettings(width=0.3)):
            pass


async def test_a_picture_that_cannot_be_read(tiny_bundle: Bundle, tmp_path: Path) -> None:
    edge = FakeEdge(answer=answer)
    async with serving(edge), Agent(tiny_bundle, address(edge)) as agent:
        with pytest.raises(DataError, match="cannot be read as a picture"):
            await agent.infer(tmp_path / "none.png")
        assert (await agent.infer(tiny.image(0)[0])).sequence == 1


@pytest.mark.parametrize(("settings", "kind"), [({}, DeadlineController), ({"gain": 0}, FixedController)])
async def test_which_controller(tiny_bundle: Bundle, settings: dict[str, int], kind: type) -> None:
    edge = FakeEdge(answer=answer)
    async with serving(edge), Agent(tiny_bundle, address(edge), DeviceSettings(**settings)) as agent:  # type: ignore[arg-type]
        assert type(agent.controller) is kind


async def test_heeds_the_servers_wish(tiny_bundle: Bundle) -> None:
    edge, watching = FakeEdge(answer=answer), Watching()
    async with serving(edge), Agent(tiny_bundle, address(edge), controller=watching) as agent:
        await edge.send(pb.ServerMessage(mode_hint=pb.ModeHint(max_bytes=5, max_groups=200)))
        await agent.infer(tiny.image(0)[0])
        await agent.infer(tiny.image(0)[0])
    assert (watching.situations[1].max_bytes, watching.situations[1].max_groups) == (5, 3)


async def test_reports_now_and_then(tiny_bundle: Bundle) -> None:
    edge = FakeEdge(answer=answer)
    async with serving(edge), Agent(tiny_bundle, address(edge), DeviceSettings(width=1.0, report_s=0.1)) as agent:
        await agent.infer(tiny.image(0)[0])
        await edge.until(lambda: any(message.report.frames_answered == 1 for message in edge.others))
    report = next(message.report for message in edge.others if message.report.frames_answered)
    assert report.mode == 15
    assert report.memory_kib > 10_000
    assert report.head_ms > 0
    assert report.round_trip_us > 0
    (use,) = report.bundles
    assert (use.bundle_id, use.answered, use.failed, use.judged) == (tiny_bundle.id, 1, 0, 0)
    assert 0 < use.confidence <= 1


async def test_who_leaves_says_what_was_done_since_the_last_report(tiny_bundle: Bundle) -> None:
    edge = FakeEdge(answer=answer)
    async with serving(edge):
        async with Agent(tiny_bundle, address(edge), DeviceSettings(width=1.0, report_s=3600)) as agent:
            await agent.infer(tiny.image(0)[0])
        await edge.until(lambda: any(message.HasField("goodbye") for message in edge.others))
    *_, last, goodbye = edge.others
    assert goodbye.HasField("goodbye")
    assert [use.answered for use in last.report.bundles] == [1]


@pytest.mark.parametrize("score", ["softmax", "energy"])
async def test_confident_pictures_are_answered_here_and_only_the_others_are_sent(
    tiny_bundle: Bundle, tmp_path: Path, score: ExitScore
) -> None:
    edge, watching, records = FakeEdge(answer=answer), Watching(), list[FrameRecord]()
    settings = DeviceSettings(tasks=("shape",), max_drop=2, exit_score=score, records=tmp_path / "r.jsonl")
    async with serving(edge), Agent(tiny_bundle, address(edge), settings, controller=watching) as agent:
        await agent.run(pictures(48), records.append)
        report = agent._reporter.report()
    here = {record.name: record for record in records if record.source == "local"}
    sent = {record.name: record for record in records if record.source == "edge"}
    assert len(here) + len(sent) == 48
    assert sorted(edge.sequences) == sorted(record.sequence for record in sent.values())
    assert sorted(record.sequence for record in records) == list(range(1, 49))
    for record in records:
        logits = tiny.exit_logits(tiny_bundle, int(record.name.removesuffix(".png")), record.mode)
        threshold = tiny_bundle.exits.threshold_for(record.mode, 2.0, score)
        assert (record.name in here) is bool(score_of(logits, score) >= threshold)
    assert {(record.bytes, record.attempts, record.groups, record.status) for record in here.values()} == {
        (0, 0, 0, "ok")
    }
    assert all(record.exit_ms > 0 and record.latency_ms >= record.exit_ms + record.head_ms for record in records)
    assert all(record["shape"].score == max(record["shape"].scores.values()) for record in here.values())
    assert (report.frames_local, report.frames_answered, report.frames_dropped) == (len(here), len(sent), 0)
    assert len(list(read_records(tmp_path / "r.jsonl"))) == 48
    local = [observation for observation in watching.observations if observation.outcome == "local"]
    assert len(local) == len(here)
    assert {(one.sent_bytes, one.round_trip_ms, one.attempts) for one in local} == {(0, None, 0)}
    assert all(observation.exit_ms > 0 for observation in watching.observations)


async def test_a_picture_is_answered_here_with_no_server_in_reach(tiny_bundle: Bundle) -> None:
    settings = DeviceSettings(tasks=("shape",), max_drop=50, width=1.0, gain=0)
    async with Agent(tiny_bundle, "127.0.0.1:1", settings, connect_timeout_s=None) as agent:
        record = await agent.infer(tiny.image(1)[0], truth={"shape": "middle"})
    assert (record.source, record.correct) == ("local", {"shape": True})


async def test_without_max_drop_everything_is_sent_and_the_exit_s_confidence_told(tiny_bundle: Bundle) -> None:
    edge, watching, records = FakeEdge(answer=answer), Watching(), list[FrameRecord]()
    settings = DeviceSettings(tasks=("shape",), deadline_ms=60_000)
    async with serving(edge), Agent(tiny_bundle, address(edge), settings, controller=watching) as agent:
        await agent.run(pictures(12), records.append)
    assert {record.source for record in records} == {"edge"}
    assert len(edge.frames) == 12
    for record in records:
        logits = tiny.exit_logits(tiny_bundle, int(record.name.removesuffix(".png")), record.mode)
        assert record.confidence == pytest.approx(float(score_of(logits, "softmax")))
    told = {observation.confidence for observation in watching.observations}
    assert told == {record.confidence for record in records}
