"""What is printed."""

import io
import json
from dataclasses import replace

from rich.console import Console

from headwater.device.federated.learner import Counts
from headwater.device.screen import Screen, State, Totals, line, summary
from headwater.device.spool import SpoolStats
from tests.device.test_record import RECORD

STATE = State(connected=True, why_not="", unanswered=0, dropped=0, skipped=0)


def printed(*, terminal: bool, as_json: bool = False) -> str:
    out = io.StringIO()
    with Screen(Console(file=out, force_terminal=terminal, width=120), as_json=as_json) as screen:
        screen.wait(replace(STATE, connected=False, why_not="no server answers"))
        screen.show(RECORD, STATE)
        screen.summary(STATE)
    return out.getvalue()


def test_a_line_a_frame_where_there_is_no_terminal() -> None:
    lines = printed(terminal=False).splitlines()
    assert lines[0] == "zelle ü.png  defect intact 75%     31 B  mode 0.25/0, 3 groups      9.5 ms"
    assert lines[1].startswith(
        "1 of 1 frames answered; 31 bytes a frame; latency p50 9.5 ms, p95 9.5 ms; right: defect"
    )


def test_one_live_line_at_a_terminal() -> None:
    out = printed(terminal=True)
    assert "connected" in out
    assert "1 answered" in out


def test_json_lines() -> None:
    (only,) = printed(terminal=True, as_json=True).splitlines()
    assert json.loads(only)["name"] == "zelle ü.png"


def test_markup_in_a_name_is_text() -> None:
    out = io.StringIO()
    with Screen(Console(file=out)) as screen:
        screen.show(replace(RECORD, name="[bold]x[/]"), STATE)
    assert "[bold]x[/]" in out.getvalue()


def test_a_frame_without_an_answer() -> None:
    assert "no answer (expired): late" in line(replace(RECORD, status="expired", detail="late"))


def test_how_much_of_a_frame_was_sent() -> None:
    assert "mode 0.25/0, 1 group  " in line(replace(RECORD, groups=1))
    assert "exit 0.25/0  " in line(replace(RECORD, source="local", action="local"))
    assert "  whole model  " in line(replace(RECORD, source="local", action="whole"))


def test_totals() -> None:
    totals = Totals()
    for number in range(1, 101):
        totals.add(
            replace(RECORD, latency_ms=float(number), bytes=number, truth={"defect": ("intact", "x")[number % 2]})
        )
    totals.add(replace(RECORD, status="expired", results={}))
    assert (totals.answered, totals.latency_ms(0.5), totals.latency_ms(0.95)) == (100, 50.0, 95.0)
    assert totals.accuracy == {"defect": 0.5}
    text = summary(totals, replace(STATE, unanswered=2, dropped=3, skipped=4))
    assert text.startswith("100 of 103 frames answered; 1 expired; 3 dropped; 4 unreadable pictures skipped; 50 bytes")


def test_totals_of_nothing() -> None:
    assert summary(Totals(), STATE) == "0 of 0 frames answered"


def test_what_the_device_answered_itself_is_told_apart() -> None:
    local = replace(RECORD, source="local", action="local", bytes=0)
    assert "    0 B  exit 0.25/0" in line(local)
    assert "    0 B  whole model" in line(replace(local, action="whole"))
    totals = Totals()
    for record in (RECORD, local, local):
        totals.add(record)
    assert summary(totals, STATE).startswith("3 of 3 frames answered; 2 of them on the device; 10 bytes a frame")
    out = io.StringIO()
    with Screen(Console(file=out, force_terminal=True, width=120)) as screen:
        screen.show(local, STATE)
    assert "1 answered (1 here)" in out.getvalue()


def test_what_the_device_answered_in_the_server_s_place_and_what_was_late() -> None:
    instead = replace(RECORD, source="local", detail="no answer before the deadline", deadline_ms=9.0)
    assert line(instead).endswith("   31 B  exit 0.25/0      9.5 ms  (no answer before the deadline)")
    totals = Totals()
    for record in (RECORD, instead, replace(instead, action="local", deadline_ms=10.0)):
        totals.add(record)
    text = summary(totals, STATE)
    assert text.startswith(
        "3 of 3 frames answered; 2 of them on the device (1 in the server's place); 1 late; 31 bytes"
    )


def test_the_summary_says_what_became_of_kept_frames() -> None:
    for stats, text in (
        (SpoolStats(frames=3), "spool: 3 frames wait"),
        (SpoolStats(0, 0, 9, 4, 2, 3, 1), "spool: 0 frames wait, 4 delivered, 5 dropped, 1 lost"),
    ):
        assert summary(Totals(), replace(STATE, spool=stats)) == f"0 of 0 frames answered; {text}"


def test_the_summary_tells_of_learning_where_there_was_any() -> None:
    assert "learning" not in summary(Totals(), replace(STATE, learning=Counts()))
    counts = Counts(offered=4, answered=3, delivered=2, failed=1)
    assert "learning: 2 of 4 messages answered, 1 refused" in summary(Totals(), replace(STATE, learning=counts))
