"""How long it will take, as it is told."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from headwater.simulations.learning import progress as module
from headwater.simulations.learning.progress import Progress, duration


def test_time_left_follows_from_the_last_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, out = 0.0, io.StringIO()
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with Progress(5, Console(file=out, width=100)) as progress:
        assert progress.left_s(0.0, 0.5) is None
        progress("1", 0, 10)
        assert progress.left_s(10.0, 0.5) == pytest.approx(20.0 * 4.5), "half a round took 10 s"
        now = 30.0
        progress("2", 0, 10)
        now = 80.0
        progress("3", 0, 10)
        assert progress.left_s(80.0, 0.5) == pytest.approx(40.0 * 2.5), "rounds of 30 and 50 s"
    assert out.getvalue().splitlines() == [
        "round 1 of 5: 0:30, about 2:00 left",
        "round 2 of 5: 0:50, about 2:00 left",
    ]


def test_durations_are_read_at_a_glance() -> None:
    assert [duration(seconds) for seconds in (5, 65, 7201)] == ["0:05", "1:05", "2:00:01"]
