"""The live view: a character a frame, as wide as there is room, and plain lines where nobody looks."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from headwater.device.record import FrameRecord
from headwater.device.screen import Screen, State
from headwater.device.watch import SIGNS, Watch, bars, kind
from tests.device.test_record import RECORD

STATE = State(connected=True, why_not="", unanswered=1, dropped=0, skipped=0)
EDGE = replace(RECORD, deadline_ms=300.0, latency_ms=40.0, width=0.75, gain=3, bytes=140)
HERE = replace(EDGE, source="local", action="local", bytes=0, latency_ms=8.0, width=0.25)
INSTEAD = replace(EDGE, source="local", latency_ms=290.0, detail="no answer before the deadline")
WHOLE = replace(HERE, action="whole")
LATE = replace(EDGE, latency_ms=310.0)
NONE = replace(EDGE, source="none", status="expired", results={}, latency_ms=301.0)


def drawn(records: list[FrameRecord], width: int = 80, encoding: str = "utf-8", state: State = STATE) -> list[str]:
    """The lines that a terminal of this width shows at the end."""
    now_s = iter(range(10_000))
    screen = Screen(Console(file=io.StringIO(), force_terminal=True), watch=Watch(clock=lambda: float(next(now_s))))
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, width=width, record=True, legacy_windows=False)
    for record in records:
        screen.show(record, state)
    console.print(screen._status("cell.png  defect intact", state))
    return console.export_text().splitlines()


@pytest.mark.parametrize(
    ("record", "sign"), [(EDGE, "●"), (HERE, "○"), (INSTEAD, "△"), (WHOLE, "■"), (LATE, "✕"), (NONE, "✕")]
)
def test_each_way_of_being_answered_has_a_sign(record: FrameRecord, sign: str) -> None:
    assert SIGNS[kind(record)] == sign


def test_a_character_a_frame_the_newest_right() -> None:
    lines = drawn([EDGE, EDGE, HERE, INSTEAD, NONE])
    rows = {line[:9].strip(): line[9:14] for line in lines if line[9:14].strip() and not line.startswith("cell")}
    assert rows["source"] == "●●○△✕"
    assert rows["bytes"] == "██▁██"
    assert rows["latency"][-1] == "█"
    assert rows["width"] == "▇▇▃▇▇"
    assert any("0.75, gain 3" in line for line in lines)
    assert lines[0].startswith("connected   deadline 300 ms   1 waiting")
    assert "4 answered, 2 here, 1 of them in the server's place; 0 late, 1 without an answer" in lines[-1]


@pytest.mark.parametrize("width", [20, 40, 60, 200])
def test_it_fits_into_any_terminal_and_shows_what_fits(width: int) -> None:
    lines = drawn([EDGE] * 100, width=width)
    assert all(len(line) <= width for line in lines)
    (source,) = [line for line in lines if line.startswith("source")]
    assert source.count("●") == min(100, max(width - 27, 8))


def test_a_terminal_without_unicode_gets_ascii() -> None:
    lines = drawn([EDGE, HERE, NONE], encoding="ascii", width=30)
    assert all(line.isascii() for line in lines)
    assert any(line.startswith("source   sox") for line in lines)


def test_the_link_is_shown_before_the_first_frame_too() -> None:
    lines = drawn([], state=replace(STATE, connected=False, why_not="no server answers at edge:50051", unanswered=0))
    assert lines[0] == "no server answers at edge:50051   0 waiting"


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    now_s = [0.0]
    watch = Watch(clock=lambda: now_s[0])
    for _ in range(40):  # two frames of 140 bytes a second
        now_s[0] += 0.5
        watch.add(EDGE)
    screen = Screen(Console(file=io.StringIO()))
    assert watch.view("", screen.totals, STATE).bytes_per_s == pytest.approx(280)


def test_bars_are_of_the_greatest_or_of_what_is_given() -> None:
    assert bars([0, 1, 2, 4]) == "▁▃▅█"
    assert bars([1, 1], most=8.0) == "▂▂"
    assert bars([0, 0]) == "▁▁"


def test_without_a_terminal_there_are_plain_lines() -> None:
    out = io.StringIO()
    with Screen(Console(file=out, width=100), watch=Watch()) as screen:
        screen.show(EDGE, STATE)
    (line,) = out.getvalue().splitlines()
    assert line.startswith("zelle ü.png  defect intact 75%")
