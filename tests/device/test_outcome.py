"""What records and controller are told of a frame; the agent's tests see it whole."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.frame import Frame
from headwater.device.control.controller import Action, Decision
from headwater.device.exit import Judged
from headwater.device.feed import Picture
from headwater.device.head import Coded, Seen
from headwater.device.loaded import load
from headwater.device.outcome import Made, answered, answered_here, late, observation, skipped, stepped_in, unsent
from headwater.device.record import Result
from headwater.device.settings import DeviceSettings
from headwater.device.whole import Answered
from headwater.device.window import Reply
from headwater.protos import edge_pb2 as pb
from tests import tiny

PICTURE = Picture("x.png", Image.new("L", (32, 32)), {"shape": "left"}, 0.0)
LOADED = load(tiny.bundle(), DeviceSettings())
TAKEN = datetime(2026, 5, 4, 9, 12, 33, 120_000, UTC)
LEFT = {"shape": Result("left", 0.9, {"left": 0.9, "middle": 0.06, "right": 0.04})}
SEEN = Seen(0.5, np.zeros((4, 8, 8), np.float32), 1.0, 2.0, Judged(LEFT, 0.9, sure=False), 0.25)
TIMING = pb.ServerTiming(queue_us=100, decode_us=200, run_us=700, batch=3, collect_us=5000)


@pytest.fixture
def made(tiny_bundle: Bundle) -> Made:
    """A picture of which nothing has been made yet."""
    return Made(PICTURE, TAKEN, Decision(5, reason="a reason"), tiny_bundle.manifest.modes[5], 300, loaded=LOADED)


def coded(made: Made, size: int = 5) -> Made:
    return replace(made, seen=SEEN, coded=Coded(SEEN, 5, Frame(5, 2, b"payload"), bytes(size), 3.0))


def here(made: Made, action: Action) -> Made:
    return replace(made, decision=replace(made.decision, action=action))


def reply(status: pb.Status, **given: object) -> Reply:
    answer = pb.Answer(sequence=9, status=status, detail=str(given.pop("detail", "")), timing=TIMING)
    plain = {"attempts": 2, "wait_s": 0.5, "round_trip_s": 0.02, "bytes_ahead": 40, "bytes_written": 5, **given}
    return Reply(answer, **plain)  # type: ignore[arg-type]


def test_a_frame_that_was_sent(made: Made) -> None:
    found = reply(pb.STATUS_OK)
    found.answer.results.add(task="shape", scores=[0.5, 0.25, 0.25])
    record = answered(coded(made), tiny.TASKS, found)
    assert (record.sequence, record.source, record.bytes, record.groups, record.attempts) == (9, "edge", 5, 2, 2)
    assert (record.mode, record.width, record.gain, record.exit_ms, record.confidence) == (5, 0.5, 1, 0.25, 0.9)
    assert (record.action, record.reason, record.deadline_ms, record.stepped_in) == ("send", "a reason", 300, False)
    assert record.correct == {"shape": True}
    assert not record.in_time, "the picture was taken when the clock began"
    told = observation(record, found)
    assert (told.outcome, told.round_trip_ms, told.server_ms, told.bytes_ahead) == ("answered", 20.0, 1.0, 40)
    assert (told.prepare_ms, told.head_ms, told.code_ms, told.exit_ms) == (1.0, 2.0, 3.0, 0.25)
    assert (told.sent, told.waited_ms, told.confidence) == (True, 0.0, 0.9)


def test_a_frame_in_parts_of_which_the_server_used_the_first(made: Made) -> None:
    found = reply(pb.STATUS_OK, bytes_written=25, bytes_used=15)
    found.answer.groups_used = 1
    record = answered(coded(made, 40), tiny.TASKS, found)
    assert (record.groups, record.groups_used, record.bytes) == (2, 1, 25)
    assert (record.server.collect_us, record.server.total_ms) == (5000, 1.0)
    told = observation(record, found)
    assert (told.sent_bytes, told.round_trip_ms, told.server_ms) == (15, 20.0, 1.0)


def test_a_frame_that_was_given_up(made: Made) -> None:
    gone = reply(pb.STATUS_EXPIRED, detail="late", round_trip_s=None)
    record = answered(coded(made), tiny.TASKS, gone)
    assert (record.source, record.status, record.detail, record.results) == ("none", "expired", "late", {})
    told = observation(record, gone, 280.0)
    assert (told.outcome, told.round_trip_ms, told.waited_ms, told.sent) == ("expired", None, 280.0, True)


def test_the_exit_steps_in_and_the_controller_hears_how_long_the_frame_flew(made: Made) -> None:
    gone = reply(pb.STATUS_EXPIRED, detail="no answer before the deadline", round_trip_s=None)
    record = stepped_in(coded(made), answered(coded(made), tiny.TASKS, gone))
    assert (record.sequence, record.source, record.status, record.bytes) == (9, "local", "ok", 5)
    assert (record.detail, record.action, record.stepped_in) == ("no answer before the deadline", "send", True)
    assert record.results == LEFT
    told = observation(record, gone, 280.0)
    assert (told.outcome, told.sent, told.waited_ms, told.round_trip_ms) == ("local", True, 280.0, None)
    assert (told.prepare_ms, told.head_ms, told.code_ms, told.exit_ms) == (1.0, 2.0, 3.0, 0.25)


def test_a_refusal_stays_one_for_the_controller_though_the_exit_steps_in(made: Made) -> None:
    refusal = reply(pb.STATUS_UNKNOWN_TASK, detail="it has others")
    record = stepped_in(coded(made), answered(coded(made), tiny.TASKS, refusal))
    assert (record.source, record.status, record.detail) == ("local", "ok", "unknown_task: it has others")
    told = observation(record, refusal)
    assert (told.outcome, told.round_trip_ms) == ("failed", 20.0)


def test_a_frame_that_the_link_did_not_take(made: Made) -> None:
    record = unsent(coded(made), 4, "the server refused")
    assert (record.source, record.detail, record.attempts, record.stepped_in) == (
        "local",
        "the server refused",
        0,
        True,
    )
    told = observation(record, None)
    assert (told.outcome, told.sent, told.sent_bytes) == ("local", False, 0)


def test_an_answer_that_comes_after_all() -> None:
    told = late(5, 31, reply(pb.STATUS_OK, round_trip_s=1.25))
    assert (told.outcome, told.mode, told.sent_bytes, told.round_trip_ms) == ("late", 5, 31, 1250.0)
    assert (told.server_ms, told.batch, told.bytes_ahead, told.attempts, told.sent) == (1.0, 3, 40, 2, True)
    assert (told.prepare_ms, told.head_ms, told.code_ms, told.exit_ms) == (0.0, 0.0, 0.0, 0.0)


def test_a_picture_that_the_exit_answered(made: Made) -> None:
    record = answered_here(replace(here(made, "local"), seen=SEEN), 4)
    assert (record.sequence, record.source, record.status, record.bytes, record.attempts) == (4, "local", "ok", 0, 0)
    assert (record.action, record.groups, record.stepped_in) == ("local", 0, False)
    assert record["shape"].label == "left"
    assert record.taken == "2026-05-04T09:12:33.120+00:00"
    told = observation(record, None)
    assert (told.outcome, told.sent_bytes, told.round_trip_ms, told.attempts) == ("local", 0, None, 0)
    assert (told.prepare_ms, told.head_ms, told.code_ms, told.exit_ms) == (1.0, 2.0, 0.0, 0.25)
    assert (told.sent, told.waited_ms, told.confidence) == (False, 0.0, 0.9)


def test_a_picture_that_the_whole_model_answered(made: Made) -> None:
    record = answered_here(replace(here(made, "whole"), whole=Answered(LEFT, 1.5, 30.0)), 4)
    assert (record.source, record.status, record.action, record.whole_ms, record.head_ms) == (
        *("local", "ok", "whole"),
        *(30.0, 0.0),
    )
    assert (record.prepare_ms, record.confidence, record.results) == (1.5, None, LEFT)
    told = observation(record, None)
    assert (told.outcome, told.head_ms, told.prepare_ms) == ("whole", 30.0, 1.5)


def test_a_picture_that_was_skipped(made: Made) -> None:
    record = skipped(here(made, "skip"), 4)
    assert (record.source, record.status, record.detail, record.results) == ("none", "skipped", "a reason", {})
    told = observation(record, None)
    assert (told.outcome, told.head_ms, told.sent) == ("skipped", 0.0, False)
