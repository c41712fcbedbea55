"""Frames in parts in the link's book-keeping, with a clock that the test turns."""

import random

import pytest

from headwater.device.window import Window
from headwater.protos import edge_pb2 as pb
from tests.device.windows import PARTS, answer, parts_left, submit, submit_parts, write_all


@pytest.fixture
def window() -> Window:
    return Window(4, random.Random(0))


async def test_a_frame_in_parts_is_begun_once_and_followed_by_its_other_parts(window: Window) -> None:
    submit_parts(window)
    submit(window)
    assert window.next_part() is None
    first = window.next(0.0)
    assert first is not None
    assert first.frame == pb.FeatureFrame(sequence=1, data=b"1234567", groups=4, tasks=["a"], priority=3)
    assert window.bytes_flying == 15
    assert parts_left(window) == [
        pb.FeatureFrame(sequence=1, data=b"12345", groups=4, part=1),
        pb.FeatureFrame(sequence=1, data=b"123", groups=4, part=2),
    ]
    assert write_all(window) == [2]
    assert parts_left(window) == []


@pytest.mark.parametrize("written", [1, 2, 3])
async def test_no_part_follows_the_answer(window: Window, written: int) -> None:
    outgoing = submit_parts(window)
    window.next(0.0)
    for _ in range(written - 1):
        window.next_part()
    window.answered(pb.Answer(sequence=1, status=pb.STATUS_OK, groups_used=1), 1.0)
    assert parts_left(window) == []
    reply = outgoing.future.result()
    assert reply.bytes_written == sum(len(part.data) for part in PARTS[:written])
    assert reply.bytes_used == 7


async def test_no_part_follows_when_the_frame_was_given_up_or_its_caller_left(window: Window) -> None:
    for end in (lambda out: window.give_up(out, 2.0), lambda out: out.future.cancel()):
        outgoing = submit_parts(window, give_up_s=2.0)
        window.next(0.0)
        window.next_part()
        end(outgoing)
        assert parts_left(window) == []
        assert outgoing.sequence in window.flying, "it is in the way until the server answers"


@pytest.mark.parametrize("status", [pb.STATUS_BUSY, pb.STATUS_INTERNAL])
async def test_a_frame_that_is_sent_again_begins_with_its_first_part(window: Window, status: pb.Status) -> None:
    outgoing = submit_parts(window)
    window.next(0.0)
    window.next_part()
    window.answered(answer(1, status), 1.0)
    assert parts_left(window) == []
    assert window.next(10.0) is outgoing
    assert [part.part for part in parts_left(window)] == [1, 2]
    window.lost()
    assert parts_left(window) == []
    window.greeted(0)
    assert window.next(20.0) is outgoing
    assert [part.part for part in parts_left(window)] == [1, 2]
    assert outgoing.attempts == 3


async def test_a_draining_server_still_gets_the_rest_of_what_was_begun(window: Window) -> None:
    submit_parts(window)
    submit_parts(window)
    window.next(0.0)
    window.draining = True
    assert [part.part for part in parts_left(window)] == [1, 2]
    assert window.next(0.0) is None


def timed(sequence: int, **microseconds: int) -> pb.Answer:
    return pb.Answer(sequence=sequence, status=pb.STATUS_OK, timing=pb.ServerTiming(**microseconds))


async def test_the_server_is_told_a_deadline_that_leaves_time_for_the_way(window: Window) -> None:
    window.greeted(0, greeting_s=0.3)
    first = submit_parts(window, 0.0, give_up_s=2.0)
    window.next(0.0)
    assert first.frame.deadline_ms == 1700
    window.answered(timed(1, collect_us=600_000, queue_us=100_000, decode_us=50_000, run_us=50_000), 0.9)
    assert window.way_s == pytest.approx(0.1)
    second = submit_parts(window, 1.0, give_up_s=3.0)
    whole = submit(window, 1.0, give_up_s=3.0)
    write_all(window, 1.0)
    assert (second.frame.deadline_ms, whole.frame.deadline_ms) == (1900, 2000)
    late = submit_parts(window, 1.0, give_up_s=1.05)
    write_all(window, 1.0)
    assert late.frame.deadline_ms == 1


async def test_the_way_is_that_of_the_slowest_of_the_last_four_late_ones_too(window: Window) -> None:
    for number, way_s in enumerate([0.9, 0.1, 0.4, 0.2, 0.3], 1):
        outgoing = submit_parts(window, 0.0, give_up_s=0.01)
        window.next(0.0)
        window.give_up(outgoing, 0.01)
        window.answered(timed(number, collect_us=1_000_000), way_s + 1)
        assert window.way_s == pytest.approx(0.9 if number < 5 else 0.4)
    assert window.counts.late == 5
    window.greeted(0, 0.7)
    assert window.way_s == 0.7


async def test_a_whole_frame_s_bytes_are_all_written_and_used(window: Window) -> None:
    outgoing, never = submit(window), submit(window, give_up_s=0.5)
    window.next(0.0)
    window.answered(answer(1), 1.0)
    window.give_up(never, 1.0)
    assert (outgoing.future.result().bytes_written, outgoing.future.result().bytes_used) == (5, 5)
    assert (never.future.result().bytes_written, never.future.result().bytes_used) == (0, 0)
