"""Frames in parts over real sockets: whole, late, damaged, withdrawn, resent; and that nothing of them stays."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc
import pytest

from headwater.compression.bundle import Bundle
from headwater.compression.parts import split
from headwater.protos import edge_pb2 as pb
from headwater.server import parts as server_parts
from headwater.server.parts import slack_s
from headwater.server.session import Outbox, Session
from tests import tiny
from tests.server.edges import TIMEOUT_S, Edge, Talk, assert_answers, edge, until

MODE = 15  # width 1, the finest gain: some 100 bytes in each of three groups


def parts(bundle: Bundle, seed: int, mode: int = MODE, groups: int = 3) -> list[bytes]:
    """A part a channel group."""
    ends = bundle.coder().encode(tiny.symbols(bundle, seed, mode), mode).group_ends
    return [part.data for part in split(bundle.frames(), tiny.frame(bundle, seed, mode, groups), ends, least_bytes=0)]


async def send(
    talk: Talk,
    sequence: int,
    numbers: list[int],
    *,
    mode: int = MODE,
    groups: int = 3,
    data: bytes | None = None,
    **first: Any,  # noqa: ANN401 - fields of the message
) -> None:
    """Send parts of the frame whose seed is its number; ``first`` goes with part 0 only."""
    coded = parts(talk.bundle, sequence, mode, groups)
    for number in numbers:
        fields = first if number == 0 else {}
        await talk.frame(sequence, data=data or coded[number], groups=groups, part=number, **fields)


def session_of(server: Edge) -> Session:
    (session,) = server.server.service._sessions
    return session


def count(server: Edge, name: str, **labels: str) -> int:
    value = server.server.metrics.registry.get_sample_value(f"headwater_{name}_total", labels)
    assert value is not None
    return int(value)


def damage(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,))


# ---------------------------------------------------------------- whole frames


@pytest.mark.parametrize("groups", [1, 2, 3])
async def test_all_parts_are_answered_as_the_whole_frame_is(tiny_bundle: Bundle, groups: int) -> None:
    async with edge() as server, Talk(server) as talk:
        for mode in range(16):
            sequence = mode + 1
            await send(talk, sequence, list(range(groups)), mode=mode, groups=groups)
            answer = await talk.answer()
            assert_answers(answer, tiny_bundle, sequence, mode, groups)
            assert (answer.sequence, answer.groups_used, answer.detail) == (sequence, groups, "")
        assert count(server, "frames_in_parts", cut="no") == 16
        assert len(session_of(server).parts) == 0


async def test_other_messages_may_come_between_parts(tiny_bundle: Bundle) -> None:
    async with edge() as server, Talk(server) as talk:
        for number in range(3):
            await talk.send(pb.DeviceMessage(report=pb.Report(mode=number)))
            await send(talk, 1, [number])
            await send(talk, 2, [number], mode=14)
            if number < 2:
                await talk.frame(10 + number)  # without a deadline, a frame in parts waits for its last one
                assert (await talk.answer()).sequence == 10 + number
        answers = {answer.sequence: answer for answer in [await talk.answer(), await talk.answer()]}
        assert_answers(answers[1], tiny_bundle, 1, MODE)
        assert_answers(answers[2], tiny_bundle, 2, 14)


async def test_the_first_part_says_what_is_asked(tiny_bundle: Bundle) -> None:
    async with edge() as server, Talk(server) as talk:
        await send(talk, 1, [0, 1, 2], tasks=["bright"])
        answer = await talk.answer()
        assert [result.task for result in answer.results] == ["bright"]
        await send(talk, 2, [0], tasks=["colour"])
        assert (await talk.answer()).status == pb.STATUS_UNKNOWN_TASK
        await send(talk, 3, [0], bundle_id=bytes(32))
        assert (await talk.answer()).status == pb.STATUS_UNKNOWN_BUNDLE
        await talk.frame(4, data=parts(tiny_bundle, 4)[0], groups=4)
        assert "in 4 channel groups; this bundle has 1 to 3" in (await talk.answer()).detail
        assert len(session_of(server).parts) == 0


# ---------------------------------------------------------------- time


async def test_by_the_deadline_a_frame_is_answered_from_the_groups_that_came(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_parts, "SLACK_S", 2.8)  # a loaded machine turns its loop late
    async with edge() as server, Talk(server) as talk:
        for groups in (1, 2):
            await send(talk, groups, list(range(groups)), deadline_ms=3000)
            answer = await talk.answer()
            assert_answers(answer, tiny_bundle, groups, MODE, groups)
            assert answer.groups_used == groups
            assert answer.detail == f"answered from {groups} of 3 channel groups, the others were not there in time"
            assert 0 < answer.timing.collect_us <= 3_000_000
        assert count(server, "frames_in_parts", cut="yes") == 2
        assert len(session_of(server).parts) == 0


async def test_the_time_that_the_server_needs_is_subtracted() -> None:
    async with edge() as server, Talk(server) as talk:
        queue = server.server.batcher.queue
        queue._batch_s = 0.25
        await send(talk, 1, [0], deadline_ms=60_000)
        await until(lambda: len(session_of(server).parts) == 1)
        (frame,) = session_of(server).parts._open.values()
        assert frame.timer is not None
        assert frame.timer.when() == pytest.approx(frame.arrived + 60 - queue.expected_s() - slack_s(60))
        queue._batch_s = 0.75
        await send(talk, 1, [1])
        await until(lambda: frame.parts == 2)
        assert frame.timer.when() == pytest.approx(frame.arrived + 60 - 0.75 - slack_s(60))
        await send(talk, 1, [2])
        assert (await talk.answer()).groups_used == 3
        assert frame.timer.cancelled()


async def test_a_queue_that_became_shorter_leaves_more_time() -> None:
    async with edge() as server, Talk(server) as talk:
        queue = server.server.batcher.queue
        queue._batch_s = 30.0
        await send(talk, 1, [0], deadline_ms=60_000)
        await until(lambda: len(session_of(server).parts) == 1)
        queue._batch_s = 10.0
        session_of(server).parts._time_is_up(1)
        (frame,) = session_of(server).parts._open.values()
        assert frame.timer is not None
        assert frame.timer.when() == pytest.approx(frame.arrived + 50 - slack_s(60))


async def test_a_deadline_that_leaves_no_time_is_answered_from_the_first_part(tiny_bundle: Bundle) -> None:
    async with edge() as server, Talk(server) as talk:
        server.server.batcher.queue._batch_s = 60.0  # more than there is
        await send(talk, 1, [0], deadline_ms=30_000)
        assert_answers(await talk.answer(), tiny_bundle, 1, MODE, 1)


async def test_without_a_deadline_the_server_may_be_told_when_to_answer(tiny_bundle: Bundle) -> None:
    async with edge(answer_partial_after_ms=20) as server, Talk(server) as talk:
        await send(talk, 1, [0, 1])
        answer = await talk.answer()
        assert answer.groups_used in {1, 2}
        assert_answers(answer, tiny_bundle, 1, MODE, answer.groups_used)
        await send(talk, 2, [0], deadline_ms=60_000)  # has a deadline of its own
        await until(lambda: len(session_of(server).parts) == 1)
        (frame,) = session_of(server).parts._open.values()
        assert frame.timer is not None
        assert frame.timer.when() > frame.arrived + 30


async def test_parts_after_the_answer_are_ignored_and_counted(tiny_bundle: Bundle) -> None:
    async with edge(answer_partial_after_ms=1) as server, Talk(server) as talk:
        await send(talk, 1, [0])
        assert (await talk.answer()).groups_used == 1
        await send(talk, 1, [1, 2])
        await talk.frame(2)
        assert_answers(await talk.answer(), tiny_bundle, 2, 0)  # no answer to either part came before
        assert count(server, "late_parts") == 2
        assert server.gate.batches == [[1], [2]]


async def test_parts_that_come_while_the_frame_waits_or_runs_are_late_too() -> None:
    async with edge(answer_partial_after_ms=1) as server, Talk(server) as talk:
        server.gate.shut()
        await send(talk, 1, [0])
        await server.gate.holds()
        await send(talk, 1, [1, 2])
        await until(lambda: count(server, "late_parts") == 2)
        server.gate.open()
        assert (await talk.answer()).groups_used == 1


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize("sound", [1, 2])
async def test_a_damaged_part_is_answered_from_the_sound_ones_before_it(tiny_bundle: Bundle, sound: int) -> None:
    async with edge() as server, Talk(server) as talk:
        await send(talk, 1, list(range(sound)))
        await send(talk, 1, [sound], data=damage(parts(tiny_bundle, 1)[sound]))
        answer = await talk.answer()
        assert_answers(answer, tiny_bundle, 1, MODE, sound)
        assert answer.groups_used == sound
        assert answer.detail.startswith(f"part {sound} was refused: the frame's checksum is")
        await send(talk, 1, [sound])
        await talk.frame(2)
        assert (await talk.answer()).sequence == 2
        assert count(server, "late_parts") == 1


async def test_a_part_that_is_missing_or_comes_twice_is_answered_from_those_before_it(tiny_bundle: Bundle) -> None:
    async with edge() as server, Talk(server) as talk:
        await send(talk, 1, [0, 2])
        answer = await talk.answer()
        assert_answers(answer, tiny_bundle, 1, MODE, 1)
        assert "part 2 was refused: it came in place of part 1" in answer.detail
        await send(talk, 2, [0, 1, 1])
        assert_answers(await talk.answer(), tiny_bundle, 2, MODE, 2)


async def test_a_damaged_first_part_is_no_frame_and_what_follows_it_is_ignored(tiny_bundle: Bundle) -> None:
    async with edge() as server, Talk(server) as talk:
        await send(talk, 1, [0], data=damage(parts(tiny_bundle, 1)[0]))
        await send(talk, 1, [1, 2])
        assert (await talk.answer()).status == pb.STATUS_INVALID_FRAME
        await send(talk, 1, [0, 1, 2])
        assert_answers(await talk.answer(), tiny_bundle, 1, MODE)
        assert count(server, "late_parts") == 2


async def test_all_parts_together_are_no_larger_than_a_frame_may_be(tiny_bundle: Bundle) -> None:
    first, second, _ = parts(tiny_bundle, 1)
    async with edge(max_frame_bytes=len(first) + len(second)) as server, Talk(server) as talk:
        await send(talk, 1, [0, 1, 2])
        answer = await talk.answer()
        assert_answers(answer, tiny_bundle, 1, MODE, 2)
        assert "at most" in answer.detail
        await send(talk, 2, [0], data=bytes(len(first) + len(second) + 1))
        assert (await talk.answer()).status == pb.STATUS_INVALID_FRAME


# ---------------------------------------------------------------- limits, ends and new beginnings


async def test_open_frames_count_as_unanswered() -> None:
    async with edge(max_in_flight=2) as server, Talk(server) as talk:
        await send(talk, 1, [0])
        await send(talk, 2, [0])
        await send(talk, 3, [0])
        await talk.frame(4)
        answers = [await talk.answer(), await talk.answer()]
        assert [(answer.sequence, answer.status) for answer in answers] == [(3, pb.STATUS_BUSY), (4, pb.STATUS_BUSY)]
        await send(talk, 1, [1, 2])
        assert ((await talk.answer()).sequence, len(session_of(server).parts)) == (1, 1)


async def test_a_full_queue_refuses_a_frame_when_it_is_whole_and_it_may_come_again(tiny_bundle: Bundle) -> None:
    async with edge(queue=1) as server, Talk(server) as talk:
        server.gate.shut()
        await talk.frame(1)
        await server.gate.holds()
        await talk.frame(2)
        await send(talk, 3, [0, 1, 2])
        answer = await talk.answer()
        assert (answer.sequence, answer.status) == (3, pb.STATUS_BUSY)
        server.gate.open()
        assert {(await talk.answer()).sequence, (await talk.answer()).sequence} == {1, 2}
        await send(talk, 3, [0, 1, 2])
        assert_answers(await talk.answer(), tiny_bundle, 3, MODE)


async def test_a_cancelled_frame_is_forgotten_with_its_parts(tiny_bundle: Bundle) -> None:
    async with edge() as server, Talk(server) as talk:
        await send(talk, 1, [0, 1], deadline_ms=60_000)
        await until(lambda: len(session_of(server).parts) == 1)
        (frame,) = session_of(server).parts._open.values()
        await talk.send(pb.DeviceMessage(cancel=pb.Cancel(sequence=1)))
        answer = await talk.answer()
        assert (answer.sequence, answer.status) == (1, pb.STATUS_CANCELLED)
        assert len(session_of(server).parts) == 0
        assert frame.timer is not None
        assert frame.timer.cancelled()
        await send(talk, 1, [2])
        await send(talk, 1, [0, 1, 2])
        assert_answers(await talk.answer(), tiny_bundle, 1, MODE)
        assert count(server, "late_parts") == 1


@pytest.mark.parametrize("politely", [True, False])
async def test_a_stream_that_ends_with_a_frame_half_sent_withdraws_it(politely: bool) -> None:
    async with edge() as server, Talk(server) as talk:
        await send(talk, 1, [0], deadline_ms=60_000)
        await (talk.goodbye() if politely else talk.call.done_writing())
        answer = await talk.answer()
        assert (answer.sequence, answer.status) == (1, pb.STATUS_CANCELLED)
        assert await talk.read() is grpc.aio.EOF
        assert len(session_of(server).parts) == 0


async def test_after_a_broken_connection_the_frame_comes_from_its_first_part(tiny_bundle: Bundle) -> None:
    async with edge() as server:
        async with Talk(server) as talk:
            await send(talk, 1, [0, 1], deadline_ms=60_000)
            await until(lambda: len(session_of(server).parts) == 1)
        await until(lambda: server.requests("stream", "cancelled") == 1)
        assert len(session_of(server).parts) == 0
        async with Talk(server) as talk:
            await send(talk, 1, [0, 1, 2])
            assert_answers(await talk.answer(), tiny_bundle, 1, MODE)
        assert server.gate.batches == [[1]]


async def test_a_stream_that_takes_over_begins_open_frames_again_and_the_old_one_adds_nothing(
    tiny_bundle: Bundle,
) -> None:
    async with edge() as server, Talk(server) as old:
        await send(old, 1, [0])
        await until(lambda: len(session_of(server).parts) == 1)
        async with Talk(server) as new:
            assert len(session_of(server).parts) == 0
            assert (await old.status())[0] == grpc.StatusCode.ABORTED
            await send(new, 1, [0, 1, 2])
            assert_answers(await new.answer(), tiny_bundle, 1, MODE)


async def test_what_an_old_stream_still_brings_is_no_part_of_the_session() -> None:
    async with edge() as server, Talk(server) as old:
        newer = Outbox(4, 1 << 20)
        session_of(server).attach(newer, 0)  # as if a newer stream had just been greeted
        await send(old, 1, [0, 1, 2])
        await old.frame(2)
        await old.send(pb.DeviceMessage(heartbeat=pb.Heartbeat(sent_unix_ms=5)))
        assert (await old.read()).heartbeat.sent_unix_ms == 5
        assert (len(session_of(server).parts), session_of(server).pending, len(newer)) == (0, {}, 0)
        await old.goodbye()
        assert await old.read() is grpc.aio.EOF


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_comes_in_whatever_order_every_frame_is_answered_and_nothing_stays(
    tiny_bundle: Bundle, seed: int
) -> None:
    rng = random.Random(seed)
    async with edge(max_in_flight=6, answer_partial_after_ms=1000) as server, Talk(server) as talk:
        begun: set[int] = set()
        for _ in range(300):
            number, part = rng.randint(1, 60), rng.choice([0, 0, 1, 1, 2, 3])
            if rng.random() < 0.1:
                await talk.send(pb.DeviceMessage(cancel=pb.Cancel(sequence=number)))
                continue
            data = parts(tiny_bundle, number)[min(part, 2)]
            data = damage(data) if rng.random() < 0.1 else data
            deadline_ms = rng.choice([0, 1, 50, 60_000])
            await talk.frame(number, data=data, groups=rng.choice([3, 3, 3, 2]), part=part, deadline_ms=deadline_ms)
            begun |= {number} if part == 0 else set()
        await talk.goodbye()
        answered: set[int] = set()
        while (message := await talk.read()) is not grpc.aio.EOF:
            answer = message.answer
            answered.add(answer.sequence)
            if answer.status == pb.STATUS_OK:
                assert_answers(answer, tiny_bundle, answer.sequence, MODE, answer.groups_used)
        assert answered == begun
        session = session_of(server)
        assert (len(session.parts), session.pending, server.waiting) == (0, {}, 0)
        assert len(session._answered) <= 6


async def test_an_answered_frame_whose_parts_come_again_is_answered_from_memory(tiny_bundle: Bundle) -> None:
    async with edge() as server:
        async with Talk(server) as talk:
            await send(talk, 1, [0, 1, 2])
            first = await talk.answer()
        async with Talk(server) as talk:
            await send(talk, 1, [0, 1, 2])
            assert await talk.answer() == first
            await talk.frame(2)
            assert_answers(await talk.answer(), tiny_bundle, 2, 0)
        assert server.gate.batches == [[1], [2]]


async def test_a_drain_lets_a_frame_be_finished_and_refuses_a_new_one(tiny_bundle: Bundle) -> None:
    async with edge(grace_s=20.0) as server, Talk(server) as talk:
        await send(talk, 1, [0])
        await until(lambda: len(session_of(server).parts) == 1)
        stopping = asyncio.create_task(server.server.stop())
        assert (await talk.read()).WhichOneof("kind") == "drain"
        await send(talk, 2, [0])
        assert (await talk.answer()).status == pb.STATUS_DRAINING
        await send(talk, 1, [1, 2])
        assert_answers(await talk.answer(), tiny_bundle, 1, MODE)
        await talk.goodbye()
        assert await talk.read() is grpc.aio.EOF
        await asyncio.wait_for(stopping, TIMEOUT_S)
