from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headwater.compression.errors import SettingsError
from headwater.simulations.fleet.calibration import STAGES, Calibration, Frames, Wire

OWN, HEAD = STAGES.index("own_ms"), STAGES.index("head_ms")


def frames(frames_per_s: float, own_ms: float, count: int, width: float = 0.25, action: str = "send") -> Frames:
    rows = [(own_ms, 0.5, 2.0, 0.25, 0.125, 3.5, 1.5 + number) for number in range(count)]
    return Frames.of(width, action, frames_per_s, rows)


def calibration(*measured: Frames) -> Calibration:
    return Calibration(
        bundle="0123456789",
        machine="a loom, 2 cores",
        made="2026-11-22T01:00:00+00:00",
        task="defect",
        wire=Wire(383, 208, 51, 52, 90, 60.5),
        slack_ms=5.0,
        batch_ms={1: 2.0, 2: 3.0, 8: 9.0},
        server_start_s=1.5,
        device_start_s=1.25,
        frames=measured or (frames(5.0, 1.0, 4), frames(15.0, 2.0, 8)),
    )


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    made = calibration()
    made.save(tmp_path / "deep" / "calibration.toml")
    assert Calibration.load(tmp_path / "deep" / "calibration.toml") == made


def test_a_mistyped_key_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "calibration.toml"
    calibration().save(path)
    path.write_text(path.read_text(encoding="utf-8").replace("slack_ms", "slak_ms"), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"unknown key slak_ms; did you mean slack_ms\?"):
        Calibration.load(path)


def test_between_two_loads_frames_of_both_are_drawn_in_proportion() -> None:
    made = calibration()
    for load, share in ((1.0, 0.0), (5.0, 0.0), (7.5, 0.25), (10.0, 0.5), (15.0, 1.0), (99.0, 1.0)):
        assert np.mean(made.times(0.25, "send", load)[:, OWN] == 2.0) == pytest.approx(share), load


def test_a_frame_keeps_its_stages_together() -> None:
    made = calibration(frames(5.0, 1.0, 3), frames(15.0, 2.0, 3))
    own = made.frames[0].table
    assert {tuple(row) for row in made.times(0.25, "send", 10.0)} >= {tuple(own[0]), tuple(own[1])}


def test_frames_of_all_widths_tell_of_one_with_its_own_head() -> None:
    wide = [(1.0 + number, 0.5, 6.0, 0.25, 0.125, 3.5, 1.5) for number in range(3)]
    made = calibration(frames(5.0, 9.0, 2), Frames.of(1.0, "send", 5.0, wide))
    of_narrow, of_wide = made.times(0.25, "send", 5.0), made.times(1.0, "send", 5.0)
    assert sorted(of_narrow[:, OWN]) == sorted(of_wide[:, OWN]) == [1.0, 2.0, 3.0, 9.0, 9.0]
    assert (of_narrow[:, HEAD] == 2.0).all()
    assert (of_wide[:, HEAD] == 6.0).all()


def test_a_load_at_which_a_width_was_not_measured_is_known_by_the_others() -> None:
    made = calibration(frames(5.0, 1.0, 3), frames(5.0, 1.0, 3, width=1.0), frames(15.0, 2.0, 3, width=1.0))
    assert (made.times(0.25, "send", 15.0)[:, OWN] == 2.0).all()


def test_what_was_not_measured_is_named() -> None:
    with pytest.raises(SettingsError, match=r"nothing was measured of whole at width 0\.25; there is send at 0\.25"):
        calibration().times(0.25, "whole", 5.0)


def test_a_batch_takes_as_many_times_as_long_as_was_measured() -> None:
    made = calibration()
    assert [made.batch_times(size) for size in (1, 2, 5, 8, 16)] == [1.0, 1.5, 3.0, 4.5, 9.0]


@pytest.mark.parametrize("batch_ms", [{}, {2: 3.0}, {1: 0.0}])
def test_a_batch_of_one_has_to_be_known(batch_ms: dict[int, float]) -> None:
    with pytest.raises(SettingsError, match="batch of 1"):
        Calibration(**{**vars(calibration()), "batch_ms": batch_ms})


def test_lists_of_unequal_length_are_no_frames() -> None:
    lists = dict.fromkeys(STAGES, (1.0, 2.0))
    with pytest.raises(SettingsError, match="want as many"):
        Frames(0.25, "send", 5.0, **{**lists, "hops_ms": (1.0,)})
