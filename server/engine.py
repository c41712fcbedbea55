"""What happens to a batch in its worker thread: entropy decoding, decoder, tails, and the answers as they are sent.

Everything that costs is here, off the event loop: the coder and ONNX Runtime release the interpreter's lock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headwater.compression.bundle import SHORT_ID_BYTES
from headwater.compression.image import to_png
from headwater.protos import edge_pb2 as pb
from headwater.server.batch_queue import Ticket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headwater.compression.errors import FrameError
    from headwater.compression.frame import Frame
    from headwater.server.registry import Served
    from headwater.server.tails import Output


@dataclass(slots=True)
class Work:
    """One frame to answer."""

    served: Served
    frame: Frame
    mask: int
    """Tasks as bits (`Served.mask`); 0 for all that classify."""
    sequence: int = 0
    """Goes back in the answer, as the next two do."""
    why_cut: str = ""
    collect_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What one batch took, for the metrics."""

    frames: int
    wait_s: float
    """Of the frame that waited longest."""
    decode_s: float
    run_s: float
    payload_bytes: int


InferenceTicket = Ticket[Work, pb.ServerMessage]
"""A frame in the queue; its result is the answer, in the message that a stream sends."""


class Engine:
    """Runs batches; `report` is called in the worker thread after each, when its answers are on their way."""

    def __init__(self, report: Callable[[BatchReport], None]) -> None:
        self._report = report

    def __call__(
        self, batch: Sequence[InferenceTicket], hand_over: Callable[[Sequence[pb.ServerMessage]], None]
    ) -> None:
        """Answer a batch of one bundle's frames, in order; a frame that cannot be decoded harms no other."""
        works = [ticket.work for ticket in batch]
        served = works[0].served
        payloads = [work.frame.payload for work in works]
        modes = [work.frame.mode for work in works]
        began = time.perf_counter()
        latents, errors = served.coder.decode_batch(payloads, modes, [work.frame.groups for work in works])
        decoded = time.perf_counter()
        opinions = [work.frame.opinion for work in works]
        outputs = served.tails.run(latents, np.array(modes, np.int64), [work.mask for work in works], opinions)
        ran = time.perf_counter()
        taken = _Taken(round((decoded - began) * 1e6), round((ran - decoded) * 1e6), len(batch))
        hand_over(
            [
                _answer(ticket, values, error, taken)
                for ticket, values, error in zip(batch, outputs, errors, strict=True)
            ]
        )
        wait_s = max(ticket.started - ticket.arrived for ticket in batch)
        self._report(BatchReport(len(batch), wait_s, decoded - began, ran - decoded, sum(map(len, payloads))))


class _Taken(NamedTuple):
    """What a batch took, for each of its answers."""

    decode_us: int
    run_us: int
    batch: int


def _answer(
    ticket: InferenceTicket, outputs: Mapping[str, Output] | None, error: FrameError | None, taken: _Taken
) -> pb.ServerMessage:
    work = ticket.work
    if error is not None:
        return refusal(pb.STATUS_INVALID_FRAME, str(error), work.sequence)
    if outputs is None:
        return refusal(pb.STATUS_INTERNAL, "the network gave values that are not finite for this frame", work.sequence)
    # Filled in place, field by field: less than half the time of constructors, which copy.
    message = pb.ServerMessage()
    answer = message.answer
    answer.sequence = work.sequence
    answer.status = pb.STATUS_OK
    for task, output in outputs.items():
        result = answer.results.add()
        result.task = task
        if isinstance(output, list):
            result.scores.extend(output)
        else:
            result.image = to_png(output)
    timing = answer.timing
    timing.queue_us = max(0, round((ticket.started - ticket.arrived) * 1e6))
    timing.decode_us, timing.run_us, timing.batch = taken
    timing.queue_depth = ticket.depth
    answer.bundle_id = work.served.answered_by[:SHORT_ID_BYTES]
    answer.groups_used = work.frame.groups
    if work.collect_s:  # of a frame in parts
        timing.collect_us = round(work.collect_s * 1e6)
        answer.detail = work.why_cut
    return message


def refusal(status: pb.Status, detail: str, sequence: int = 0, retry_after_ms: int = 0) -> pb.ServerMessage:
    """An answer without results."""
    timing = pb.ServerTiming(retry_after_ms=retry_after_ms) if retry_after_ms else None
    return pb.ServerMessage(answer=pb.Answer(sequence=sequence, status=status, detail=detail, timing=timing))
