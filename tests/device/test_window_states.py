"""The link's book-keeping under any order of events."""

import asyncio
import random
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headwater.device.window import Outgoing, Window
from headwater.protos import edge_pb2 as pb
from tests.device.windows import answer, parts_left, submit, submit_parts, write_all


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Whatever server and network do, every frame ends exactly once and the window is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.late: Counter[int] = Counter()
        self.window = Window(3, random.Random(0), lambda reply: self.late.update([reply.answer.sequence]))
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

    @rule(at=st.integers(0, 20))
    def give_up(self, at: int) -> None:
        if at < len(self.sent):
            self.window.give_up(self.sent[at], self.now_s)

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
        flying = set(self.window.flying)
        assert open_frames <= waiting | flying
        assert waiting <= open_frames
        assert not waiting & flying
        assert self.window.unanswered == len(waiting) + len(flying)
        assert max(self.ends.values(), default=1) == 1

    @invariant()
    def late_is_what_was_given_up(self) -> None:
        assert max(self.late.values(), default=1) == 1
        assert len(self.late) <= self.window.counts.expired
        assert all(self.sent[number - 1].future.result().round_trip_s is None for number in self.late)


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
TestAnyOrderOfEvents.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
