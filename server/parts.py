"""Frames that come in parts: collected by number, and handed on when they are whole, damaged, or time is up.

    part 0 ──begin()──> open ──add()──> whole ─────────────────────────────┐
                         │  └─────────> a damaged part: what came before it ├──> hand_on(), once a frame
                         └────timer───> the deadline is near: what is there ┘
                         └──withdraw()──> forgotten

A frame with a deadline is handed on so much before it as the batch queue expects to take, and some slack; one without
waits for its last part, unless the server was told to answer sooner. The first part is the least that is answered from.

What is kept is bounded: a session opens at most `max_in_flight` frames, each of at most `max_frame_bytes` in all parts.
Used on the event loop only.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.compression.errors import FrameError

if TYPE_CHECKING:
    from headwater.compression.frame import Frame
    from headwater.compression.parts import Joiner
    from headwater.protos import edge_pb2 as pb
    from headwater.server.admission import Admission
    from headwater.server.registry import Served

SLACK_S, SLACK_SHARE = 0.005, 0.05
_CLOSE_S = 0.001
"""A timer that is early by less need not be set again."""


def slack_s(allowed_s: float) -> float:
    """For delays that nobody foresees, a busy machine's above all; more where more time is allowed."""
    return max(SLACK_S, SLACK_SHARE * allowed_s)


@dataclass(slots=True)
class Open:
    """A frame of which parts have come."""

    first: pb.FeatureFrame
    """The message of part 0, whose deadline, tasks and priority hold for the frame."""
    served: Served
    joiner: Joiner
    arrived: float
    """When part 0 came, by the loop's clock."""
    deadline: float
    """When the answer is due; infinite without a deadline."""
    parts: int = 1
    """How many have come."""
    timer: asyncio.TimerHandle | None = None

    @property
    def frame(self) -> Frame:
        """What has come."""
        assert self.joiner.frame is not None, "it was opened by its first part"
        return self.joiner.frame


HandOn = Callable[[Open, str], None]
"""Takes a frame that is to be answered now, and why groups are missing (empty if none is)."""


class Collector:
    """The frames of one session that have begun to arrive.

    Args:
        admission: checks first parts, and knows how long the queue is expected to take.
        hand_on: see :data:`HandOn`; never called from :meth:`begin` with a frame that is not whole.
        partial_after_s: from its first part, when a frame without a deadline is answered with what is there.
    """

    def __init__(self, admission: Admission, hand_on: HandOn, partial_after_s: float = math.inf) -> None:
        self._admission = admission
        self._hand_on = hand_on
        self._partial_after_s = partial_after_s
        self._loop = asyncio.get_running_loop()
        self._open: dict[int, Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._open

    def begin(self, served: Served, first: pb.FeatureFrame) -> None:
        """Take a first part; raises :class:`~headwater.server.admission.Refusal`."""
        joiner = self._admission.begin(served, first)
        now = self._loop.time()
        deadline = now + first.deadline_ms / 1e3 if first.deadline_ms else math.inf
        self._open[first.sequence] = Open(first, served, joiner, now, deadline)
        self._proceed(first.sequence)

    def add(self, message: pb.FeatureFrame) -> bool:
        """Take a later part; False if its frame is not open: it has been answered, refused or withdrawn."""
        frame = self._open.get(message.sequence)
        if frame is None:
            return False
        if wrong := _add(frame, message):
            why = f"part {message.part} was refused: {wrong}; answered from the channel groups before it"
            self._close(message.sequence, why)
        else:
            self._proceed(message.sequence)
        return True

    def withdraw(self, sequence: int) -> bool:
        """Forget a frame; False if it is not open."""
        frame = self._open.pop(sequence, None)
        if frame is not None and frame.timer is not None:
            frame.timer.cancel()
        return frame is not None

    def withdraw_all(self) -> list[int]:
        """Forget every frame; their numbers."""
        return [sequence for sequence in list(self._open) if self.withdraw(sequence)]

    def _proceed(self, sequence: int) -> None:
        """Hand a whole frame on; set the timer of another, since the queue may have changed since the last part."""
        frame = self._open[sequence]
        if frame.joiner.complete:
            self._close(sequence, "")
            return
        if frame.timer is not None:
            frame.timer.cancel()
        due = self._due(frame)
        frame.timer = self._loop.call_at(due, self._time_is_up, sequence) if due < math.inf else None

    def _due(self, frame: Open) -> float:
        """When the frame has to be handed on, whatever is there."""
        if frame.deadline == math.inf:
            return frame.arrived + self._partial_after_s
        needed_s = self._admission.batcher.queue.expected_s() + slack_s(frame.deadline - frame.arrived)
        return frame.deadline - needed_s

    def _time_is_up(self, sequence: int) -> None:
        frame = self._open[sequence]
        if self._due(frame) > self._loop.time() + _CLOSE_S:
            self._proceed(sequence)  # the queue has become shorter
        else:
            there = f"{frame.frame.groups} of {frame.joiner.groups} channel groups"
            self._close(sequence, f"answered from {there}, the others were not there in time")

    def _close(self, sequence: int, why: str) -> None:
        frame = self._open[sequence]
        self.withdraw(sequence)
        self._hand_on(frame, why)


def _add(frame: Open, message: pb.FeatureFrame) -> str:
    """Take the next part; what is wrong with it, if anything is."""
    if message.part != frame.parts:
        return f"it came in place of part {frame.parts}"
    try:
        frame.joiner.add(message.data)
    except FrameError as error:
        return str(error)
    frame.parts += 1
    return ""
