"""Classes of device: the ready files, and what is wrong in others."""

from dataclasses import replace
from pathlib import Path

import pytest

from headwater.compression.bundle import Bundle
from headwater.compression.errors import SettingsError
from headwater.device.control.policy import PRICES
from headwater.device.figure import Figure
from headwater.simulations.fleet import profiles


@pytest.mark.parametrize("name", profiles.ready())
def test_a_ready_class_knows_every_head_and_says_where_from(name: str, tiny_bundle: Bundle) -> None:
    board = profiles.load(name)
    assert board.name == name
    heads = board.heads(tiny_bundle.manifest.modes)
    assert list(heads) == [0.25, 0.5, 0.75, 1.0]
    assert all(0 < head.low < head.mid < head.high for head in heads.values())
    assert board.sleep_w.mid < board.idle_w.mid
    assert all(figure.source for figure in vars(board).values() if isinstance(figure, Figure))


def test_slower_boards_are_slower() -> None:
    speeds = [profiles.load(name).code_ms.mid for name in ("pi-zero-2", "pi-3", "pi-4", "pi-5")]
    assert speeds == sorted(speeds, reverse=True)


def test_the_agent_and_the_simulation_price_a_busy_core_alike() -> None:
    assert profiles.load("pi-4").core_w.mid == PRICES["wifi"].compute_watts


def test_a_file_is_what_was_written(tmp_path: Path) -> None:
    board = profiles.load("pi-4")
    measured = replace(
        board,
        name="mine",
        title='A "board"',
        head_ms_per_mmac=None,
        head_ms={0.25: Figure(1, 2, 3, "measured"), 1.0: Figure(4, 5, 6, "measured")},
        bundle="abc",
        whole_ms=Figure(20, 21, 22, "measured"),
    )
    (tmp_path / "mine.toml").write_text(measured.toml())
    assert profiles.load("mine.toml", tmp_path) == measured
    assert profiles.load(str(tmp_path / "mine.toml")) == measured


def test_a_file_that_is_like_another_class(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\nlike = "pi-5"\n')
    assert profiles.load("mine.toml", tmp_path) == replace(profiles.load("pi-5"), name="mine")
    (tmp_path / "mine.toml").write_text('name = "mine"\nlike = "pi5"\n')
    with pytest.raises(SettingsError, match="like is 'pi5'; did you mean pi-5"):
        profiles.load("mine.toml", tmp_path)


def test_a_width_that_was_not_measured(tiny_bundle: Bundle) -> None:
    board = replace(profiles.load("pi-4"), head_ms_per_mmac=None, head_ms={0.25: Figure(1, 2, 3, "measured")})
    with pytest.raises(SettingsError, match=r"nothing of width 0\.5, 0\.75, 1; measure the class with this bundle"):
        board.heads(tiny_bundle.manifest.modes)


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean pi-zero-2"):
        profiles.load("pi-zero2")


@pytest.mark.parametrize(
    ("was", "wrong", "text"),
    [
        ("cores = 4", "core = 4", "unknown key core; did you mean cores"),
        ("cores = 4", 'cores = "4"', "must be an integer"),
        ("cores = 4", "cores = 0", "must be at least 1"),
        ("[exit_ms]\nlow", "[exit_ms]\nlo", "unknown key lo; did you mean low"),
        ("[idle_w]\nlow = 1.7", "[idle_w]\nlow = 17.0", "they must rise from 0"),
        ("[head_ms_per_mmac]", "[head_ms_per_mac]", "unknown key head_ms_per_mac"),
        ("[sleep_w]", "[agent_mb.sleep_w]", "sleep_w is missing"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, was: str, wrong: str, text: str) -> None:
    written = profiles.load("pi-4").toml()
    assert was in written
    (tmp_path / "bad.toml").write_text(written.replace(was, wrong))
    with pytest.raises(SettingsError, match=text):
        profiles.load("bad.toml", tmp_path)


def test_a_figure_needs_a_source() -> None:
    with pytest.raises(SettingsError, match="exit_ms has no source"):
        replace(profiles.load("pi-4"), exit_ms=Figure(1, 2, 3))


def test_a_head_is_needed() -> None:
    with pytest.raises(SettingsError, match="neither head_ms_per_mmac nor head_ms"):
        replace(profiles.load("pi-4"), head_ms_per_mmac=None)
