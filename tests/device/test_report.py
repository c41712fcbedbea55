"""What the agent tells the server about itself."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.device.control.controller import Decision
from headwater.device.exit import Judged
from headwater.device.feed import Picture
from headwater.device.head import Seen
from headwater.device.loaded import load
from headwater.device.outcome import Made
from headwater.device.record import Result
from headwater.device.report import LOOK_BACK_S, MOST_USES, Reporter
from headwater.device.settings import DeviceSettings
from headwater.protos import edge_pb2 as pb
from tests.device.test_record import RECORD


@pytest.fixture
def made(tiny_bundle: Bundle) -> Made:
    loaded = load(tiny_bundle, DeviceSettings())
    picture = Picture("x.png", Image.new("L", (32, 32)), {}, 0.0)
    return Made(picture, datetime.now(UTC), Decision(0), tiny_bundle.manifest.modes[0], loaded=loaded)


def judged(made: Made, label: str) -> Made:
    task, result = next(iter(RECORD.results.items()))
    own = {task: Result(label, 0.9, result.scores)}
    return replace(made, seen=Seen(0.25, np.zeros(1, np.float32), 0.0, 0.0, Judged(own, 0.9, sure=False)))


def test_counts_by_who_answered_and_takes_times_where_there_are_any(made: Made) -> None:
    reporter = Reporter()
    local = replace(RECORD, source="local", action="local", bytes=0, round_trip_ms=0.0, head_ms=1.5)
    for record in (
        RECORD,
        local,
        replace(local, action="send", detail="no answer before the deadline", bytes=31),
        replace(local, action="whole", head_ms=0.0, whole_ms=30.0),
        replace(local, source="none", status="skipped", action="skip", head_ms=0.0, mode=3),
    ):
        reporter.add(record, made, None)
    report = reporter.report()
    assert (report.frames_answered, report.frames_local, report.frames_dropped) == (1, 3, 1)
    assert report.round_trip_us == 8500
    assert report.head_ms == pytest.approx(1.5)
    assert report.mode == 3
    assert report.memory_kib > 0


def test_what_is_older_than_a_minute_is_forgotten(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr("headwater.device.report.time.monotonic", lambda: now_s)
    reporter = Reporter()
    for _ in range(100):
        reporter.add(RECORD, made, None)
    now_s += LOOK_BACK_S + 1
    reporter.add(replace(RECORD, mode=2, round_trip_ms=70.0), made, None)
    assert len(reporter._recent) == 1, "a frame a minute leaves nothing behind"
    report = reporter.report()
    assert (report.frames_answered, report.round_trip_us, report.mode) == (101, 70_000, 2)
    now_s += LOOK_BACK_S + 1
    assert (reporter.report().round_trip_us, len(reporter._recent)) == (0, 0)


def test_how_each_bundle_did(made: Made) -> None:
    reporter = Reporter()
    right = next(iter(RECORD.results.values()))
    later = replace(made, loaded=replace(made.loaded, bundle_id=b"2" * 32))
    reporter.add(RECORD, made, pb.STATUS_OK)
    reporter.add(RECORD, judged(made, right.label), pb.STATUS_OK)
    reporter.add(RECORD, judged(made, "another"), pb.STATUS_OK)
    reporter.add(replace(RECORD, source="local"), judged(made, "another"), None)
    reporter.add(replace(RECORD, source="none", status="internal", results={}), later, pb.STATUS_INTERNAL)
    reporter.add(replace(RECORD, source="none", status="expired", results={}), later, pb.STATUS_EXPIRED)
    first, second = reporter.report().bundles
    assert (first.bundle_id, first.answered, first.failed, first.judged, first.agreed) == (
        *(made.loaded.bundle_id, 3, 0),
        *(2, 1),
    )
    assert first.confidence == pytest.approx(3 * max(right.scores.values()))
    assert (second.bundle_id, second.answered, second.failed) == (b"2" * 32, 0, 1)


def test_only_the_last_bundles_are_told_of() -> None:
    reporter = Reporter()
    for number in range(MOST_USES + 2):
        reporter.use(bytes([number]))
    reporter.use(bytes([3]))
    assert [use.bundle_id[0] for use in reporter.report().bundles] == [2, 4, 5, 3]


def test_before_the_first_frame() -> None:
    report = Reporter().report()
    assert (report.frames_answered, report.round_trip_us, report.head_ms, report.mode) == (0, 0, 0.0, 0)
