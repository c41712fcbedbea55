"""Frames with a deadline in the link's book-keeping: given up, and answered late."""

import random
from collections.abc import Callable

import pytest

from headwater.device.window import Outgoing, Reply, Window
from headwater.protos import edge_pb2 as pb
from tests.device.windows import answer, submit, write_all


@pytest.fixture
def late() -> list[Reply]:
    return []


@pytest.fixture
def window(late: list[Reply]) -> Window:
    return Window(4, random.Random(0), late.append)


async def test_the_server_learns_what_is_left_of_the_deadline(window: Window) -> None:
    outgoing = submit(window, 0.0, give_up_s=0.3)
    write_all(window, 0.1)
    assert outgoing.frame.deadline_ms in {199, 200}
    window.lost()
    window.greeted(0)
    write_all(window, 0.2999)
    assert outgoing.frame.deadline_ms == 1


async def test_an_expired_frame_keeps_its_place_while_it_flies(window: Window) -> None:
    outgoing = [submit(window, 0.0, give_up_s=1.0) for _ in range(5)]
    write_all(window)
    window.give_up(outgoing[0], 1.0)
    assert outgoing[0].future.result().answer.status == pb.STATUS_EXPIRED
    assert write_all(window, 1.0) == []
    assert window.answered(answer(1), 1.1)
    assert write_all(window, 1.1) == [5]


async def test_an_expired_frame_that_waits_is_never_sent(window: Window) -> None:
    outgoing = submit(window, 0.0, give_up_s=1.0)
    window.give_up(outgoing, 1.0)
    reply = outgoing.future.result()
    assert (reply.attempts, reply.answer.detail) == (0, "not sent before the deadline")
    assert write_all(window, 1.0) == []
    assert window.resume_from == 2


async def test_an_expired_frame_is_not_sent_again(window: Window) -> None:
    outgoing = submit(window, 0.0, give_up_s=1.0)
    write_all(window)
    window.give_up(outgoing, 1.0)
    window.lost()
    window.greeted(0)
    assert write_all(window, 2.0) == []


async def test_a_late_answer_comes_with_its_round_trip_after_the_expiry(window: Window, late: list[Reply]) -> None:
    outgoing = submit(window, 0.0, give_up_s=1.0)
    write_all(window, 0.25)
    window.give_up(outgoing, 1.0)
    assert outgoing.future.result().round_trip_s is None
    window.answered(answer(1), 1.5)
    window.answered(answer(1), 1.6)
    (reply,) = late
    assert (reply.answer, reply.attempts, reply.wait_s, reply.round_trip_s) == (answer(1), 1, 0.25, 1.25)
    assert (window.counts.expired, window.counts.late, window.counts.stray, window.counts.answered) == (1, 1, 1, 0)


async def test_nothing_is_late_that_was_withdrawn_or_answered_in_time(window: Window, late: list[Reply]) -> None:
    outgoing = [submit(window, 0.0, give_up_s=1.0) for _ in range(2)]
    write_all(window)
    outgoing[0].future.cancel()
    window.answered(answer(1), 0.5)
    window.answered(answer(2), 0.5)
    assert (late, window.counts.stray, window.counts.late) == ([], 1, 0)


@pytest.mark.parametrize("leave", [lambda out, window: window.give_up(out, 1.0), lambda out, _: out.future.cancel()])
async def test_a_full_server_is_heeded_even_when_nobody_waits_for_the_frame(
    window: Window, late: list[Reply], leave: Callable[[Outgoing, Window], object]
) -> None:
    outgoing = submit(window, 0.0, give_up_s=1.0)
    write_all(window)
    leave(outgoing, window)
    assert not window.answered(answer(1, pb.STATUS_BUSY, 100), 1.1)
    assert late == []
    submit(window, 1.1)
    assert write_all(window, 1.19) == []
    assert write_all(window, 1.3) == [2]
