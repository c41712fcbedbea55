"""What `headwater server federate` prints while rounds go on: a line each, for a terminal as for a log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headwater.compression import background
from headwater.compression.bundle import Bundle
from headwater.protos.flower import acting_as
from headwater.server.cli import app
from headwater.server.federation import app as rounds_app
from headwater.server.federation.app import Rounds
from headwater.server.federation.inprocess import InProcessGrid
from headwater.server.federation.settings import RoundSettings
from headwater.server.federation.strategy import Surroundings
from headwater.server.federation.versions import FOLDER
from tests.server.federation import fleets, toy

LINE = re.compile(
    r"round (?P<round>\d) of 3: [\d.]+ s; 4 of 5 devices, 1 refused; [\d.]+ k?B up, [\d.]+ k?B down; "
    r"accuracy (?P<accuracy>[\d.]+)%; training loss [\d.]+"
)


def lies(reply: Any) -> Any:  # noqa: ANN401 - a message
    if "up" in reply.content:
        reply.content["up"]["width"] = 3.0
    return reply


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> InProcessGrid:
    """A toy fleet in place of the devices on a server's streams, one of which lies."""
    over = fleets.grid(tamper={"b": lies})

    def rounds_of(bundle: Bundle, state: Path, told: RoundSettings, *, around: Surroundings, **_: object) -> Rounds:
        del bundle
        toy_told = fleets.settings(rounds=told.rounds)
        measured = {"measure": lambda arrays: {"accuracy": 1 / (1 + toy.error_of(arrays))}}
        return Rounds(fleets.strategy(state / FOLDER, toy_told, ended=around.ended, **measured), toy.ZERO)

    @contextmanager
    def stream_grid(state: Path, run: int) -> Iterator[InProcessGrid]:
        del state
        with acting_as(run):
            yield over

    monkeypatch.setattr(rounds_app, "rounds_of", rounds_of)
    monkeypatch.setattr(rounds_app, "StreamGrid", stream_grid)
    monkeypatch.setattr(background, "give_way", lambda: None)
    return over


def federate(bundle: Path, state: Path) -> list[re.Match[str]]:
    """Run three rounds; the lines of those that have ended."""
    result = CliRunner().invoke(app, ["federate", "--bundle", str(bundle), "--state", str(state), "--rounds", "3"])
    assert result.exit_code == 0, result.output
    assert "has ended after round 3" in result.output
    return [found for line in result.output.splitlines() if (found := LINE.fullmatch(line))]


def test_each_round_that_ends_has_a_line(tiny_bundle: Bundle, tmp_path: Path) -> None:
    lines = federate(tiny_bundle.save(tmp_path / "tiny"), tmp_path / "state")
    assert [line["round"] for line in lines] == ["1", "2", "3"]
    accuracies = [float(line["accuracy"]) for line in lines]
    assert accuracies == sorted(accuracies)


class KilledError(Exception):
    """In place of a kill."""


def test_after_a_kill_the_lines_go_on_with_the_round_that_was_the_last(
    tiny_bundle: Bundle, toys: InProcessGrid, tmp_path: Path
) -> None:
    def kill(number: int) -> None:
        if number == 2:
            raise KilledError

    rounds = fleets.strategy(tmp_path / FOLDER, fleets.settings(rounds=3), ended=kill)
    with pytest.raises(KilledError):
        fleets.run(rounds, toys)
    lines = federate(tiny_bundle.save(tmp_path / "tiny"), tmp_path)
    assert [line["round"] for line in lines] == ["2", "3"]
