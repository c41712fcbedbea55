"""What became of a frame: from the server's reply to the record that people read and what the controller learns."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headwater.compression.errors import LinkError
from headwater.device.answers import results, status_name
from headwater.device.controller import Observation
from headwater.device.record import FrameRecord, ServerTimes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from headwater.compression.manifest import Manifest, Mode, Task
    from headwater.device.controller import Decision
    from headwater.device.feed import Picture
    from headwater.device.head import Coded
    from headwater.device.window import Reply


def answered(
    picture: Picture, taken: datetime, mode: Mode, tasks: Iterable[Task], coded: Coded, reply: Reply
) -> FrameRecord:
    """The record of a frame that was sent, or given up; an answer that does not fit the tasks is "internal"."""
    answer = reply.answer
    timing, status, detail = answer.timing, status_name(answer), answer.detail
    try:
        found = results(answer, tasks)
    except LinkError as error:
        found, status, detail = {}, "internal", str(error)
    return FrameRecord(
        sequence=answer.sequence,
        name=picture.name,
        taken=taken.isoformat(timespec="milliseconds"),
        source="edge" if status == "ok" else "none",
        status=status,
        detail=detail,
        mode=mode.index,
        width=mode.width,
        gain=mode.gain,
        groups=coded.groups,
        bytes=reply.bytes_written or len(coded.data),
        attempts=reply.attempts,
        latency_ms=(time.monotonic() - picture.taken_s) * 1e3,
        prepare_ms=coded.prepare_ms,
        head_ms=coded.head_ms,
        code_ms=coded.code_ms,
        wait_ms=reply.wait_s * 1e3,
        round_trip_ms=(reply.round_trip_s or 0.0) * 1e3,
        server=ServerTimes(
            *(timing.queue_us, timing.decode_us, timing.run_us, timing.batch, timing.queue_depth, timing.collect_us)
        ),
        results=found,
        truth=picture.truth,
        exit_ms=coded.judged.exit_ms if coded.judged is not None else 0.0,
        groups_used=answer.groups_used,
    )


def answered_here(
    picture: Picture, taken: datetime, manifest: Manifest, decision: Decision, coded: Coded, sequence: int
) -> FrameRecord:
    """The record of a frame that the local exit answered: nothing was sent, so nothing waited."""
    assert coded.judged is not None
    mode = manifest.modes[decision.mode]
    return FrameRecord(
        sequence=sequence,
        name=picture.name,
        taken=taken.isoformat(timespec="milliseconds"),
        source="local",
        status="ok",
        detail="",
        mode=mode.index,
        width=mode.width,
        gain=mode.gain,
        groups=0,
        bytes=0,
        attempts=0,
        latency_ms=(time.monotonic() - picture.taken_s) * 1e3,
        prepare_ms=coded.prepare_ms,
        head_ms=coded.head_ms,
        code_ms=0.0,
        wait_ms=0.0,
        round_trip_ms=0.0,
        results=coded.judged.results,
        truth=picture.truth,
        exit_ms=coded.judged.exit_ms,
    )


def observation(record: FrameRecord, reply: Reply | None) -> Observation:
    """What the controller is told of a frame; ``reply`` is None for one that was not sent."""
    if reply is None:
        return Observation(
            mode=record.mode,
            sent_bytes=0,
            prepare_ms=record.prepare_ms,
            head_ms=record.head_ms,
            code_ms=0.0,
            exit_ms=record.exit_ms,
            outcome="local",
            attempts=0,
        )
    return Observation(
        mode=record.mode,
        # Of a frame in parts those that the answer needed: the others were not on the way for the whole time.
        sent_bytes=reply.bytes_used or record.bytes,
        prepare_ms=record.prepare_ms,
        head_ms=record.head_ms,
        code_ms=record.code_ms,
        exit_ms=record.exit_ms,
        outcome="answered" if record.status == "ok" else "expired" if record.status == "expired" else "failed",
        attempts=record.attempts,
        round_trip_ms=None if reply.round_trip_s is None else record.round_trip_ms,
        server_ms=record.server.total_ms,
        batch=record.server.batch,
        bytes_ahead=reply.bytes_ahead,
    )
