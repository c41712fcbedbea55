"""The link's book-keeping, with a clock that the test turns: numbers, the window, and a server that is full."""

import random
from itertools import pairwise

import pytest

from headwater.device.window import MAX_FAULTS, Window
from headwater.protos import edge_pb2 as pb
from tests.device.windows import answer, submit, write_all


@pytest.fixture
def window() -> Window:
    return Window(4, random.Random(0))


async def test_numbers_count_up_from_one_and_the_window_holds(window: Window) -> None:
    outgoing = [submit(window) for _ in range(6)]
    assert [out.sequence for out in outgoing] == [1, 2, 3, 4, 5, 6]
    assert write_all(window) == [1, 2, 3, 4]
    assert window.unanswered == 6
    assert window.answered(answer(2), 1.0)
    assert write_all(window) == [5]


async def test_a_frame_that_is_not_sent_takes_a_number_too(window: Window) -> None:
    numbers = [window.number(), submit(window).sequence, window.number(), submit(window).sequence]
    assert numbers == [1, 2, 3, 4]
    assert write_all(window) == [2, 4]
    assert window.unanswered == 2


async def test_the_server_may_allow_fewer(window: Window) -> None:
    for _ in range(6):
        submit(window)
    window.greeted(2)
    assert write_all(window) == [1, 2]


async def test_a_lost_connection_sends_again_under_the_same_numbers_in_order(window: Window) -> None:
    for _ in range(5):
        submit(window)
    write_all(window)
    window.answered(answer(3), 1.0)
    window.lost()
    assert window.resume_from == 1
    window.greeted(0)
    assert write_all(window, 2.0) == [1, 2, 4, 5]
    assert window.counts.resent == 3


async def test_resume_from_is_the_next_number_when_nothing_waits(window: Window) -> None:
    assert window.resume_from == 1
    submit(window)
    write_all(window)
    window.answered(answer(1), 1.0)
    assert window.resume_from == 2


async def test_an_answer_comes_once(window: Window) -> None:
    outgoing = submit(window)
    write_all(window, 1.0)
    assert window.answered(answer(1), 1.5)
    assert not window.answered(answer(1), 1.6)
    assert not window.answered(answer(99), 1.6)
    assert window.counts.stray == 2
    reply = outgoing.future.result()
    assert (reply.attempts, reply.wait_s, reply.round_trip_s) == (1, 1.0, 0.5)


async def test_bytes_ahead_are_those_that_fly(window: Window) -> None:
    for _ in range(3):
        submit(window)
    ahead = []
    while (outgoing := window.next(0.0)) is not None:
        ahead.append(outgoing.bytes_ahead)
    assert ahead == [0, 5, 10]


async def test_busy_holds_halves_and_opens_again(window: Window) -> None:
    for _ in range(6):
        submit(window)
    assert len(write_all(window)) == 4
    assert not window.answered(answer(1, pb.STATUS_BUSY, 100), 0.0)
    assert write_all(window, 0.099) == []
    held_s = window.held_for_s(0.0)
    assert held_s is not None
    assert 0.1 <= held_s <= 0.15
    for sequence in (2, 3, 4):
        window.answered(answer(sequence, pb.STATUS_BUSY), 0.01)
    assert write_all(window, 0.2) == [1, 2]  # half of four, the oldest first
    window.answered(answer(1), 0.3)
    assert write_all(window, 0.3) == [3, 4]  # one more than before


async def test_busy_in_a_row_holds_longer(window: Window) -> None:
    submit(window)
    held = []
    now_s = 0.0
    for _ in range(12):
        write_all(window, now_s)
        window.answered(answer(1, pb.STATUS_BUSY, 20), now_s)
        held_s = window.held_for_s(now_s)
        assert held_s is not None
        held.append(held_s)
        now_s += held_s + 0.001
    assert all(later >= earlier * 1.3 for earlier, later in pairwise(held[:7]))
    assert max(held) <= 5.0 + 1e-9
    assert window.counts.busy == 12


async def test_a_frame_that_the_server_fails_on_is_tried_thrice(window: Window) -> None:
    outgoing = submit(window)
    for _ in range(MAX_FAULTS):
        assert not outgoing.future.done()
        assert write_all(window) == [1]
        window.answered(answer(1, pb.STATUS_INTERNAL), 0.0)
    assert outgoing.future.result().answer.status == pb.STATUS_INTERNAL
    assert write_all(window) == []


@pytest.mark.parametrize("status", [pb.STATUS_INVALID_FRAME, pb.STATUS_UNKNOWN_TASK, pb.STATUS_EXPIRED])
async def test_other_refusals_are_final(window: Window, status: pb.Status) -> None:
    outgoing = submit(window)
    write_all(window)
    assert window.answered(answer(1, status), 0.0)
    assert outgoing.future.result().answer.status == status


async def test_a_draining_server_gets_nothing_more(window: Window) -> None:
    for _ in range(5):
        submit(window)
    write_all(window)
    window.answered(answer(1, pb.STATUS_DRAINING), 0.0)
    assert window.draining
    assert write_all(window) == []
    window.lost()
    window.greeted(0)
    assert write_all(window) == [1, 2, 3, 4]


async def test_at_the_end_what_has_no_answer_is_cancelled_and_so_is_what_comes(window: Window) -> None:
    outgoing = [submit(window) for _ in range(6)]
    write_all(window)
    window.answered(answer(1), 0.0)
    window.stop("the end", 2.0)
    outgoing.append(submit(window, 3.0))
    replies = [out.future.result() for out in outgoing]
    assert [reply.answer.status for reply in replies] == [pb.STATUS_OK, *[pb.STATUS_CANCELLED] * 6]
    assert {reply.answer.detail for reply in replies[1:]} == {"the end"}
    assert [reply.answer.sequence for reply in replies] == list(range(1, 8))
    assert write_all(window) == []


async def test_fail_all_ends_what_waits_and_what_flies(window: Window) -> None:
    outgoing = [submit(window) for _ in range(6)]
    write_all(window)
    window.fail_all(RuntimeError("over"))
    assert {type(out.future.exception()) for out in outgoing} == {RuntimeError}
    assert window.unanswered == 0
