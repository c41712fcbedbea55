from __future__ import annotations

from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from headwater.simulations.fleet.comparing import Comparison, Figures, beside, distributions, errors, write_html


def figures(latency_ms: list[float], frames: int, up_bytes: float = 1000.0, **sources: int) -> Figures:
    return Figures(np.array(latency_ms), frames, frames - len(latency_ms), up_bytes, 500.0, sources)


REAL = figures([float(ms) for ms in range(1, 101)], 110, server=90, exit=10)
TWIN = figures([1.1 * ms for ms in range(1, 101)], 120, server=80, exit=20)


def test_errors_are_relative_and_misses_in_points() -> None:
    one = Comparison("one", REAL, TWIN)
    assert one.p50_error == pytest.approx(0.1)
    assert one.p95_error == pytest.approx(0.1)
    assert one.miss_points == pytest.approx(100 * (20 / 120 - 10 / 110))
    assert one.source_points == pytest.approx(100 * (90 / 110 - 80 / 120))


def test_bytes_are_of_a_picture_so_that_the_twin_may_run_it_often() -> None:
    again = Figures.of_all([REAL, REAL, REAL])
    assert Comparison("thrice", REAL, again).bytes_error == pytest.approx(0.0)
    assert Comparison("more", REAL, figures([1.0] * 110, 110, 1015.0)).bytes_error == pytest.approx(0.01)


def test_runs_together_count_each_picture_once() -> None:
    both = Figures.of_all([REAL, TWIN])
    assert (both.frames, both.missed, len(both.latency_ms)) == (230, 30, 200)
    assert both.sources == {"server": 170, "exit": 30}


def test_of_several_real_runs_the_middle_one_counts_and_the_farthest_is_told() -> None:
    slow = figures([3.0 * ms for ms in range(1, 101)], 110, server=90, exit=10)
    one = Comparison("three", Figures.of_all([REAL, TWIN, slow]), TWIN, (REAL, TWIN, slow))
    assert (one.p50_error, one.p95_error) == (0.0, 0.0)
    assert one.real_ms(0.5) == TWIN.p50_ms
    assert one.real_miss_share == pytest.approx(10 / 110)
    assert one.of_a_real_run("miss_points") == pytest.approx(100 * (20 / 120 - 10 / 110))
    assert one.of_a_real_run("p95_error") == pytest.approx(3.0 / 1.1 - 1)
    assert one.of_a_real_run("bytes_error") == pytest.approx((1500 / 120) / (1500 / 110) - 1)
    assert Comparison("none", REAL, TWIN).of_a_real_run("p95_error") == 0.0


def test_a_run_in_which_nothing_was_answered_has_no_times() -> None:
    silent = figures([], 10)
    one = Comparison("silent", silent, silent)
    assert (one.p50_error, one.p95_error, one.miss_points, one.source_points) == (0.0, 0.0, 0.0, 0.0)
    assert Comparison("awake", silent, REAL).p50_error == float("inf")


def test_the_page_and_the_tables_show_both() -> None:
    one = Comparison("four <cameras>", REAL, TWIN)
    text = write_html([one], "calibrated here", "Real and simulated")
    assert "four &lt;cameras&gt;" in text
    assert "http" not in text.replace("http-equiv", "")
    printed = StringIO()
    Console(width=240, file=printed).print(errors([one], "errors"), distributions(one))
    assert "+10.0%, +10.0%" in printed.getvalue()
    assert "of a real run" in printed.getvalue()
    assert "real" in printed.getvalue()
    assert "twin" in printed.getvalue()


def test_one_run_fits_a_narrow_terminal() -> None:
    printed = StringIO()
    Console(width=72, file=printed).print(beside(Comparison("one", REAL, TWIN)))
    for text in ("50.5 ms", "+10.0%", "answered by exit", "+7.6 points"):
        assert text in printed.getvalue()
    assert "answered by whole" not in printed.getvalue()
