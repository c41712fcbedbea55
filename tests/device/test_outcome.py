"""What records and controller are told of a frame; the agent's tests see it whole."""

from datetime import UTC, datetime

from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.device.controller import Decision
from headwater.device.exit import Judged
from headwater.device.feed import Picture
from headwater.device.head import Coded
from headwater.device.outcome import answered, answered_here, observation
from headwater.device.record import Result
from headwater.device.window import Reply
from headwater.protos import edge_pb2 as pb
from tests import tiny

PICTURE = Picture("x.png", Image.new("L", (32, 32)), {"shape": "left"}, 0.0)
TAKEN = datetime(2026, 5, 4, 9, 12, 33, 120_000, UTC)


def test_a_frame_that_was_sent(tiny_bundle: Bundle) -> None:
    scores = pb.TaskResult(task="shape", scores=[0.5, 0.25, 0.25])
    timing = pb.ServerTiming(queue_us=100, decode_us=200, run_us=700, batch=3)
    reply = Reply(pb.Answer(sequence=9, status=pb.STATUS_OK, results=[scores], timing=timing), 2, 0.5, 0.02, 40)
    coded = Coded(b"frame", 2, 1.0, 2.0, 3.0, Judged({}, 0.25))
    record = answered(PICTURE, TAKEN, tiny_bundle.manifest.modes[5], tiny.TASKS, coded, reply)
    assert (record.sequence, record.source, record.bytes, record.groups, record.attempts) == (9, "edge", 5, 2, 2)
    assert (record.mode, record.width, record.gain, record.exit_ms) == (5, 0.5, 1, 0.25)
    assert record.correct == {"shape": True}
    told = observation(record, reply)
    assert (told.outcome, told.round_trip_ms, told.server_ms, told.bytes_ahead) == ("answered", 20.0, 1.0, 40)
    assert (told.prepare_ms, told.head_ms, told.code_ms, told.exit_ms) == (1.0, 2.0, 3.0, 0.25)


def test_a_frame_in_parts_of_which_the_server_used_the_first(tiny_bundle: Bundle) -> None:
    timing = pb.ServerTiming(queue_us=100, decode_us=200, run_us=700, collect_us=5000)
    reply = Reply(pb.Answer(sequence=9, status=pb.STATUS_OK, groups_used=1, timing=timing), 1, 0.0, 0.02, 0, 25, 15)
    coded = Coded(bytes(40), 3, 1.0, 2.0, 3.0)
    record = answered(PICTURE, TAKEN, tiny_bundle.manifest.modes[5], tiny.TASKS, coded, reply)
    assert (record.groups, record.groups_used, record.bytes) == (3, 1, 25)
    assert (record.server.collect_us, record.server.total_ms) == (5000, 1.0)
    told = observation(record, reply)
    assert (told.sent_bytes, told.round_trip_ms, told.server_ms) == (15, 20.0, 1.0)


def test_a_frame_that_was_given_up(tiny_bundle: Bundle) -> None:
    reply = Reply(pb.Answer(sequence=9, status=pb.STATUS_EXPIRED, detail="late"), 0, 0.5, None, 0)
    coded = Coded(b"frame", 3, 1.0, 2.0, 3.0)
    record = answered(PICTURE, TAKEN, tiny_bundle.manifest.modes[5], tiny.TASKS, coded, reply)
    assert (record.source, record.status, record.detail, record.results) == ("none", "expired", "late", {})
    told = observation(record, reply)
    assert (told.outcome, told.round_trip_ms) == ("expired", None)


def test_a_frame_that_the_device_answered(tiny_bundle: Bundle) -> None:
    results = {"shape": Result("left", 0.9, {"left": 0.9, "middle": 0.06, "right": 0.04})}
    coded = Coded(b"", 0, 1.0, 2.0, 0.0, Judged(results, 0.25))
    record = answered_here(PICTURE, TAKEN, tiny_bundle.manifest, Decision(5), coded, 4)
    assert (record.sequence, record.source, record.status, record.bytes, record.attempts) == (4, "local", "ok", 0, 0)
    assert record["shape"].label == "left"
    assert record.taken == "2026-05-04T09:12:33.120+00:00"
    told = observation(record, None)
    assert (told.outcome, told.sent_bytes, told.round_trip_ms, told.attempts) == ("local", 0, None, 0)
    assert (told.prepare_ms, told.head_ms, told.code_ms, told.exit_ms) == (1.0, 2.0, 0.0, 0.25)
