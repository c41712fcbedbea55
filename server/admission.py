"""The one door to the batcher: a frame's bytes become a ticket, or a refusal that says why.

`Infer` and `Stream` both come through here, so that they check the same things in the same order; only how a refusal
is worded differs (a gRPC status or an answer).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headwater.compression.errors import FrameError
from headwater.compression.frame import Frame, read_bundle_id
from headwater.compression.parts import Joiner
from headwater.protos import edge_pb2 as pb
from headwater.server.batch_queue import QueueFullError, Ticket
from headwater.server.batcher import Batcher
from headwater.server.engine import InferenceTicket, Work
from headwater.server.registry import Registry, Served


class Refusal(Exception):  # noqa: N818 - an answer to the device, not a fault
    """Why a frame is not run: the status and the text of its answer."""

    def __init__(self, status: pb.Status, detail: str, retry_after_ms: int = 0) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after_ms = retry_after_ms


Settle = Callable[[InferenceTicket], None]


@dataclass(slots=True)
class Wish:
    """How a frame is to be answered."""

    settle: Settle
    tasks: Iterable[str] = ()
    priority: int = 0
    timeout_s: float = math.inf
    """From now; the frame is not run later than that."""
    sequence: int = 0
    why_cut: str = ""
    """Goes into the answer of a frame in parts that is answered without some of its groups."""
    collect_s: float = 0.0
    """What a frame in parts took from its first part to now."""


class Admission:
    """Checks frames and queues them."""

    def __init__(
        self,
        registry: Registry,
        batcher: Batcher[Work, pb.ServerMessage],
        max_frame_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self.registry = registry
        self.batcher = batcher
        self.draining = False
        self.max_frame_bytes = max_frame_bytes
        self._clock = clock

    def bundle(self, bundle_id: bytes) -> Served:
        """The bundle of an id, whole or short; raises :class:`Refusal` with those that are served."""
        served = self.registry.find(bundle_id)
        if served is None:
            asked = bundle_id[:5].hex() or "(empty)"
            raise Refusal(
                pb.STATUS_UNKNOWN_BUNDLE,
                f"the bundle {asked} is not served here; served are: {self.registry.listing()}",
            )
        return served

    def admit_file(self, data: bytes, wish: Wish) -> InferenceTicket:
        """Queue a self-contained frame; raises :class:`Refusal`."""
        self._check_size(data)
        try:
            served = self.bundle(read_bundle_id(data))
            frame = served.frames.unpack_file(data)
        except FrameError as error:
            raise Refusal(pb.STATUS_INVALID_FRAME, str(error)) from error
        return self.queue(served, frame, wish)

    def admit(self, served: Served, data: bytes, wish: Wish) -> InferenceTicket:
        """Queue a frame in the stream form; raises :class:`Refusal`."""
        self._check_size(data)
        try:
            frame = served.frames.unpack(data)
        except FrameError as error:
            raise Refusal(pb.STATUS_INVALID_FRAME, str(error)) from error
        return self.queue(served, frame, wish)

    def begin(self, served: Served, first: pb.FeatureFrame) -> Joiner:
        """Check the first part of a frame, and what is asked of it; raises :class:`Refusal`."""
        self._check_size(first.data)
        self._mask(served, first.tasks)
        try:
            joiner = Joiner(served.frames, first.groups, self.max_frame_bytes)
            joiner.add(first.data)
        except FrameError as error:
            raise Refusal(pb.STATUS_INVALID_FRAME, str(error)) from error
        return joiner

    def _check_size(self, data: bytes) -> None:
        if self.draining:
            raise Refusal(pb.STATUS_DRAINING, "the server is stopping; send the frame to another or later")
        if len(data) > self.max_frame_bytes:
            raise Refusal(
                pb.STATUS_INVALID_FRAME, f"the frame has {len(data)} bytes; at most {self.max_frame_bytes} are read"
            )

    @staticmethod
    def _mask(served: Served, tasks: Iterable[str]) -> int:
        try:
            return served.mask(tasks)
        except KeyError as error:
            have = ", ".join(task.name for task in served.tasks)
            detail = f"the bundle {served.name} has no task {error}; it has {have}"
            raise Refusal(pb.STATUS_UNKNOWN_TASK, detail) from error

    def queue(self, served: Served, frame: Frame, wish: Wish) -> InferenceTicket:
        """Queue a frame that has been unpacked; raises :class:`Refusal`."""
        mask = self._mask(served, wish.tasks)
        work = Work(served, frame, mask, wish.sequence, wish.why_cut, wish.collect_s)
        deadline = self._clock() + wish.timeout_s
        ticket: InferenceTicket = Ticket(served.answered_by, work, wish.settle, wish.priority, deadline)
        try:
            self.batcher.submit(ticket)
        except QueueFullError as error:
            raise Refusal(
                pb.STATUS_BUSY, f"the server is full: {error}", math.ceil(error.retry_after_s * 1e3)
            ) from None
        return ticket
