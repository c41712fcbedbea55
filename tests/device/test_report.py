"""What the agent tells the server about itself."""

from dataclasses import replace

import pytest

from headwater.device.report import Reporter
from tests.device.test_record import RECORD


def test_counts_by_who_answered_and_takes_times_where_there_are_any() -> None:
    reporter = Reporter()
    local = replace(RECORD, source="local", action="local", bytes=0, round_trip_ms=0.0, head_ms=1.5)
    for record in (
        RECORD,
        local,
        replace(local, action="send", detail="no answer before the deadline", bytes=31),
        replace(local, action="whole", head_ms=0.0, whole_ms=30.0),
        replace(local, source="none", status="skipped", action="skip", head_ms=0.0, mode=3),
    ):
        reporter.add(record)
    report = reporter.report()
    assert (report.frames_answered, report.frames_local, report.frames_dropped) == (1, 3, 1)
    assert report.round_trip_us == 8500
    assert report.head_ms == pytest.approx(1.5)
    assert report.mode == 3
    assert report.memory_kib > 0


def test_before_the_first_frame() -> None:
    report = Reporter().report()
    assert (report.frames_answered, report.round_trip_us, report.head_ms, report.mode) == (0, 0, 0.0, 0)
