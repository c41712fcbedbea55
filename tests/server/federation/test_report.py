"""What `headwater server rounds` shows: the table, the report, and the words where there is nothing to show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from headwater.compression.errors import LearningError, SettingsError
from headwater.server.cli import app
from headwater.server.federation.report import write_report
from headwater.server.federation.survey import survey
from headwater.server.federation.versions import FOLDER
from headwater.server.federation.view import follow, shown
from tests.server.federation import fleets, toy


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three rounds with a device that is late and one that lies."""

    def lies(reply: Any) -> Any:  # noqa: ANN401 - a message
        if "up" in reply.content:
            reply.content["up"]["width"] = 3.0
        return reply

    folder = tmp_path_factory.mktemp("state")
    grid = fleets.grid(tamper={"b": lies})
    grid.named("e").pace = 10**9
    told = fleets.settings(rounds=3, deadline_s=100, evaluate_every=2)
    measured = {"measure": lambda arrays: {"accuracy": 1 / (1 + toy.error_of(arrays)), "loss": toy.error_of(arrays)}}
    clock = fleets.Clock(tick=1.0)
    fleets.run(fleets.strategy(folder / FOLDER, told, bundle=bytes(range(32)), clock=clock, **measured), grid)
    return folder


def _text(found: Any) -> str:  # noqa: ANN401 - anything that rich shows
    console = Console(width=140, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(found)
    return capture.get()


def test_the_survey_adds_up_what_the_journal_says(state: Path) -> None:
    found = survey(state)
    assert (found.status, found.bundle, found.runs) == ("done", "0001020304", [1])
    assert [dict(each.states) for each in found.rounds] == [{"believed": 3, "late": 1, "refused": 1}] * 3
    assert all(each.bytes_up > 0 and each.peak_bytes == 1000 for each in found.rounds)
    accuracies = [each.figure("accuracy") for each in found.rounds]
    assert accuracies == sorted(accuracies, key=lambda value: value or 0.0)
    devices = {each.device: each for each in found.devices}
    assert (devices["c"].width, devices["d"].width) == (0.5, 0.25)
    assert dict(devices["b"].refusals) == {"width": 3}
    assert sum(each.bytes_up for each in found.devices) == found.bytes_up


def test_the_table_says_who_is_late_and_who_was_refused_and_why(state: Path) -> None:
    text = _text(shown(survey(state), now=5000.0))
    assert "run 1  bundle 0001020304  3 of 3 rounds  done" in text
    assert re.search(r"^ *b +0 +- .*width 3 *$", text, re.MULTILINE)
    assert re.search(r"^ *e +0 +3 ", text, re.MULTILINE)


def test_following_a_run_that_is_over_shows_it_once(state: Path) -> None:
    console = Console(width=140, force_terminal=True, record=True)
    with console.capture() as capture:
        follow(lambda: survey(state), console)
    assert "3 of 3 rounds" in capture.get()


def test_the_report_is_one_file_with_every_curve(state: Path, tmp_path: Path) -> None:
    write_report(survey(state), tmp_path / "rounds.html")
    html = (tmp_path / "rounds.html").read_text(encoding="utf-8")
    for title in ("Accuracy", "Loss", "Bytes", "Memory", "Devices", "Refused", "Every round", "Settings"):
        assert f"<h2>{title}</h2>" in html
    assert html.count("<svg viewBox") == 6
    assert "it trained width 3.0" in html
    assert "http" not in html.replace("http://www.w3.org", "")


def _run(*words: str) -> Any:  # noqa: ANN401 - a result
    return CliRunner().invoke(app, ["rounds", *words])


def test_the_command_prints_reports_and_gives_json(state: Path, tmp_path: Path) -> None:
    assert "3 of 3 rounds" in _run("--state", str(state)).output
    found = json.loads(_run("--state", str(state), "--json").output)
    assert found["rounds"][2]["facts"]["measured"]["accuracy"] > 0
    assert _run("--state", str(state), "--report", str(tmp_path / "r.html")).exit_code == 0
    assert (tmp_path / "r.html").stat().st_size > 5000


def test_what_is_not_there_is_said(state: Path, tmp_path: Path) -> None:
    with pytest.raises(LearningError, match=r"no rounds in .* yet"):
        survey(tmp_path)
    with pytest.raises(LearningError, match="no run 7; there are 1"):
        survey(state, 7)
    result = _run()
    assert isinstance(result.exception, SettingsError)
    assert "--state" in str(result.exception)
