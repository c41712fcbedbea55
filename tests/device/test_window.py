"""The link's book-keeping, with a clock that the test turns."""

import asyncio
import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headwater.compression.parts import Part
from headwater.device.window import MAX_FAULTS, Outgoing, Window
from headwater.protos import edge_pb2 as pb


def submit(window: Window, now_s: float = 0.0, give_up_s: float | None = None) -> Outgoing:
    return window.submit(pb.FeatureFrame(data=b"12345"), now_s, give_up_s)


PARTS = (Part(1, b"1234567"), Part(2, b"12345"), Part(4, b"123"))


def submit_parts(window: Window, now_s: float = 0.0, give_up_s: float | None = None) -> Outgoing:
    return window.submit(pb.FeatureFrame(tasks=["a"], priority=3), now_s, give_up_s, PARTS)


def write_all(window: Window, now_s: float = 0.0) -> list[int]:
    written = []
    while (outgoing := window.next(now_s)) is not None:
        written.append(outgoing.sequence)
    return written


def parts_left(window: Window) -> list[pb.FeatureFrame]:
    written = []
    while (part := window.next_part()) is not None:
        written.append(part)
    return written


def answer(sequence: int, status: pb.Status = pb.STATUS_OK, retry_after_ms: int = 0) -> pb.Answer:
    return pb.Answer(sequence=sequence, status=status, timing=pb.ServerTiming(retry_after_ms=retry_after_ms))


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
    assert not window.answered(answer(1), 1.1)
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


async def test_fail_all_ends_what_waits_and_what_flies(window: Window) -> None:
    outgoing = [submit(window) for _ in range(6)]
    write_all(window)
    window.fail_all(RuntimeError("over"))
    assert {type(out.future.exception()) for out in outgoing} == {RuntimeError}
    assert window.unanswered == 0


# ---------------------------------------------------------------- frames in parts


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
    assert window.counts.stray == 5
    window.greeted(0, 0.7)
    assert window.way_s == 0.7


async def test_a_whole_frame_s_bytes_are_all_written_and_used(window: Window) -> None:
    outgoing, never = submit(window), submit(window, give_up_s=0.5)
    window.next(0.0)
    window.answered(answer(1), 1.0)
    window.give_up(never, 1.0)
    assert (outgoing.future.result().bytes_written, outgoing.future.result().bytes_used) == (5, 5)
    assert (never.future.result().bytes_written, never.future.result().bytes_used) == (0, 0)


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Whatever server and network do, every frame ends exactly once and the window is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.window = Window(3, random.Random(0))
        self.now_s = 0.0
        self.sent: list[Outgoing] = []
        self.ends: Counter[int] = Counter()

    def teardown(self) -> None:
        self.loop.close()

    @rule(in_parts=st.booleans())
    def submit(self, in_parts: bool) -> None:
        async def run() -> Outgoing:
            return (submit_parts if in_parts else submit)(self.window, self.now_s)

        asyncio.set_event_loop(self.loop)
        outgoing = self.loop.run_until_complete(run())
        outgoing.future.add_done_callback(lambda _, number=outgoing.sequence: self.ends.update([number]))
        self.sent.append(outgoing)

    @rule(seconds=st.floats(0.001, 3.0))
    def write(self, seconds: float) -> None:
        self.now_s += seconds
        write_all(self.window, self.now_s)

    @rule()
    def write_a_part(self) -> None:
        written = {out.sequence: out.written for out in self.sent}
        if (part := self.window.next_part()) is not None:
            assert part.part == written[part.sequence] >= 1
            assert not self.window.flying[part.sequence].future.done()

    @rule()
    def write_all_parts(self) -> None:
        parts_left(self.window)
        flying = [out for out in self.window.flying.values() if not out.future.done()]
        assert all(out.written == len(out.parts) for out in flying)

    @rule(
        at=st.integers(0, 20),
        status=st.sampled_from(
            [pb.STATUS_OK, pb.STATUS_OK, pb.STATUS_BUSY, pb.STATUS_INTERNAL, pb.STATUS_EXPIRED, pb.STATUS_DRAINING]
        ),
    )
    def answer(self, at: int, status: pb.Status) -> None:
        self.window.answered(answer(at, status), self.now_s)

    @rule(allowed=st.integers(0, 5))
    def reconnect(self, allowed: int) -> None:
        self.window.lost()
        self.window.greeted(allowed)

    @invariant()
    def keeps_the_window(self) -> None:
        assert len(self.window.flying) <= 3

    @invariant()
    def loses_none(self) -> None:
        open_frames = {out.sequence for out in self.sent if not out.future.done()}
        waiting = {out.sequence for out in self.window._waiting if not out.future.done()}
        assert open_frames == waiting | set(self.window.flying)
        assert not waiting & set(self.window.flying)
        assert self.window.unanswered == len(open_frames)
        assert max(self.ends.values(), default=1) == 1


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
