"""What became of a picture: the record that people read, and what the controller learns.

a picture and what the device made of it ── answered ──────> the server's answer, or why there is none
                                         ├─ stepped_in ────> the local exit's, in the place of the server's
                                         ├─ answered_here ─> the local exit's or the whole model's; nothing was sent
                                         └─ skipped ───────> none
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from headwater.compression.bundle import SHORT_ID_BYTES
from headwater.compression.errors import LinkError
from headwater.device.answers import results, status_name
from headwater.device.control.controller import Observation
from headwater.device.record import FrameRecord, ServerTimes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from headwater.compression.manifest import Mode, Task
    from headwater.device.control.controller import Decision, Outcome
    from headwater.device.feed import Picture
    from headwater.device.head import Coded, Seen
    from headwater.device.loaded import Loaded
    from headwater.device.record import Result
    from headwater.device.whole import Answered
    from headwater.device.window import Reply


@dataclass(frozen=True)
class Made:
    """What the device made of a picture before anything was sent."""

    picture: Picture
    taken: datetime
    decision: Decision
    """The last one; its mode is what was coded, if anything was."""
    mode: Mode
    """Of that index."""
    loaded: Loaded = field(kw_only=True)
    """The bundle that it was made with, which may have been left since."""
    deadline_ms: int | None = None
    seen: Seen | None = None
    coded: Coded | None = None
    whole: Answered | None = None

    @property
    def exit_results(self) -> Mapping[str, Result]:
        """The local exit's answer; empty where there is none."""
        return self.seen.judged.results if self.seen is not None and self.seen.judged is not None else {}

    @property
    def own_results(self) -> Mapping[str, Result]:
        """What the device says by itself: the whole model, or the local exit; empty where there is neither."""
        return self.exit_results if self.whole is None else self.whole.results


def answered(made: Made, tasks: Iterable[Task], reply: Reply) -> FrameRecord:
    """The record of a frame that was sent, or given up; an answer that does not fit the tasks is "internal"."""
    answer, timing = reply.answer, reply.answer.timing
    status, detail = status_name(answer), answer.detail
    try:
        found = results(answer, tasks)
    except LinkError as error:
        found, status, detail = {}, "internal", str(error)
    assert made.coded is not None
    return replace(
        _unanswered(made, answer.sequence),
        source="edge" if status == "ok" else "none",
        status=status,
        detail=detail,
        bytes=reply.bytes_written,
        attempts=reply.attempts,
        wait_ms=reply.wait_s * 1e3,
        round_trip_ms=(reply.round_trip_s or 0.0) * 1e3,
        server=ServerTimes(
            *(timing.queue_us, timing.decode_us, timing.run_us, timing.batch, timing.queue_depth, timing.collect_us)
        ),
        results=found,
        groups_used=answer.groups_used,
    )


def stepped_in(made: Made, record: FrameRecord) -> FrameRecord:
    """The record of a frame without a usable answer: the local exit answers, and ``detail`` keeps why it had to."""
    detail = record.detail if record.status == "expired" else f"{record.status}: {record.detail}"
    return replace(record, source="local", status="ok", detail=detail, results=made.exit_results)


def unsent(made: Made, sequence: int, detail: str) -> FrameRecord:
    """The record of a frame that the link did not take; the local exit answers it."""
    return replace(_unanswered(made, sequence), source="local", status="ok", detail=detail, results=made.exit_results)


def answered_here(made: Made, sequence: int) -> FrameRecord:
    """The record of a picture that the local exit or the whole model answered: nothing was sent, so nothing waited."""
    return replace(_unanswered(made, sequence), source="local", status="ok", results=made.own_results)


def skipped(made: Made, sequence: int) -> FrameRecord:
    """The record of a picture that the controller gave no answer to."""
    return replace(_unanswered(made, sequence), status="skipped", detail=made.decision.reason)


def _unanswered(made: Made, sequence: int) -> FrameRecord:
    """What is known of a picture by now, without an answer."""
    seen, coded, whole = made.seen, made.coded, made.whole
    judged = seen.judged if seen is not None else None
    before = seen or whole
    return FrameRecord(
        sequence=sequence,
        name=made.picture.name,
        taken=made.taken.isoformat(timespec="milliseconds"),
        source="none",
        status="expired",
        detail="",
        mode=made.mode.index,
        width=made.mode.width,
        gain=made.mode.gain,
        groups=coded.frame.groups if coded is not None else 0,
        bytes=0,
        attempts=0,
        latency_ms=(time.monotonic() - made.picture.taken_s) * 1e3,
        prepare_ms=before.prepare_ms if before is not None else 0.0,
        head_ms=seen.head_ms if seen is not None else 0.0,
        code_ms=coded.code_ms if coded is not None else 0.0,
        wait_ms=0.0,
        round_trip_ms=0.0,
        truth=made.picture.truth,
        exit_ms=seen.exit_ms if seen is not None else 0.0,
        action=made.decision.action,
        reason=made.decision.reason,
        confidence=judged.confidence if judged is not None else None,
        whole_ms=whole.whole_ms if whole is not None else 0.0,
        deadline_ms=made.deadline_ms,
        bundle=made.loaded.bundle_id[:SHORT_ID_BYTES].hex(),
    )


def observation(record: FrameRecord, reply: Reply | None, flew_ms: float = 0.0) -> Observation:
    """What the controller is told when a frame is done with.

    Args:
        record: of the frame.
        reply: None for a frame that was not sent.
        flew_ms: how long a frame without an answer was on its way.
    """
    outcome = _outcome(record, reply)
    return Observation(
        mode=record.mode,
        # Of a frame in parts those that the answer needed: the others were not on the way for the whole time.
        sent_bytes=reply.bytes_used or record.bytes if reply is not None else 0,
        prepare_ms=record.prepare_ms,
        head_ms=record.whole_ms or record.head_ms,
        code_ms=record.code_ms,
        outcome=outcome,
        attempts=record.attempts,
        round_trip_ms=record.round_trip_ms if outcome in {"answered", "failed"} else None,
        server_ms=record.server.total_ms,
        batch=record.server.batch,
        bytes_ahead=reply.bytes_ahead if reply is not None else 0,
        exit_ms=record.exit_ms,
        time_s=time.monotonic(),
        waited_ms=flew_ms,
        confidence=record.confidence,
        sent=record.attempts > 0,
    )


def _outcome(record: FrameRecord, reply: Reply | None) -> Outcome:
    """By the server's word where there is one: that the exit could step in makes a refusal no less a refusal."""
    if record.source == "edge":
        return "answered"
    if reply is not None and status_name(reply.answer) != "expired":
        return "failed"
    if record.source == "local":
        return "whole" if record.action == "whole" else "local"
    return "skipped" if record.status == "skipped" else "expired"


def late(mode: int, sent_bytes: int, reply: Reply) -> Observation:
    """What the controller is told when the server's answer comes after all; the device's times it has had already."""
    timing = reply.answer.timing
    assert reply.round_trip_s is not None
    return Observation(
        mode=mode,
        sent_bytes=reply.bytes_used or sent_bytes,
        prepare_ms=0.0,
        head_ms=0.0,
        code_ms=0.0,
        outcome="late",
        attempts=reply.attempts,
        round_trip_ms=reply.round_trip_s * 1e3,
        server_ms=(timing.queue_us + timing.decode_us + timing.run_us) / 1e3,
        batch=timing.batch,
        bytes_ahead=reply.bytes_ahead,
        time_s=time.monotonic(),
        sent=True,
    )
