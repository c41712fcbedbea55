"""The commands report, compare and size."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from headwater.simulations.fleet.planning_cli import add_to
from tests import tiny
from tests.simulations.fleet.fleets import SCENARIO, run, simulated

RUNNER = CliRunner()
APP = typer.Typer()
add_to(APP)


@pytest.fixture
def scenario(tmp_path: Path) -> str:
    tiny.bundle().save(tmp_path / "tiny.zip")
    text = (
        'name = "yard"\nhours = 0.02\nbundle = "tiny.zip"\n[[servers]]\nname = "edge"\n'
        '[[devices]]\nname = "gates"\ncount = 2\nlink = "wifi"\nprofile = "pi-4"\n'
        'settings = { tasks = ["shape"], deadline_ms = 400 }\n'
    )
    (tmp_path / "yard.toml").write_text(text)
    return str(tmp_path / "yard.toml")


def invoke(*words: str) -> str:
    return RUNNER.invoke(APP, [*words, "--jobs", "1"], catch_exceptions=False, env={"COLUMNS": "160"}).output


def test_report_of_a_scenario_with_advice(scenario: str, tmp_path: Path) -> None:
    out, png = tmp_path / "r.html", tmp_path / "r.png"
    said = invoke("report", scenario, "--out", str(out), "--png", str(png))
    assert said == f"report: {out}\npicture: {png}\n"
    assert "What to change first" in out.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")


def test_all_take_another_bundle(scenario: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.zip").rename(tmp_path / "mine.zip")
    mine = ("--bundle", str(tmp_path / "mine.zip"))
    assert "What to change first" not in invoke("report", scenario, "--out", str(tmp_path / "r.html"), *mine)
    assert "What to change first" in (tmp_path / "r.html").read_text()
    assert json.loads(invoke("compare", scenario, scenario, "--seeds", "1", "--json", *mine))["lines"]
    assert json.loads(invoke("size", scenario, "--accuracy", "0", "--board", "pi-4", "--json", *mine))


def test_what_the_exit_of_every_trial_says_is_said_once(
    scenario: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(scenario)
    path.write_text(path.read_text().replace("deadline_ms = 400", "deadline_ms = 400, max_drop = 0.001"))
    for words in (("report", scenario, "--out", str(tmp_path / "r.html")), ("compare", scenario, scenario)):
        caplog.clear()
        invoke(*words)
        assert [record.getMessage()[:31] for record in caplog.records] == ["the local exit answers no frame"]


def test_report_of_an_outcome(tmp_path: Path) -> None:
    (tmp_path / "o.json").write_bytes(simulated().to_json())
    invoke("report", str(tmp_path / "o.json"), "--out", str(tmp_path / "r.html"), "--no-advice")
    assert "What to change first" not in (tmp_path / "r.html").read_text()


def test_compare(tmp_path: Path) -> None:
    slow = replace(SCENARIO, devices=tuple(replace(each, link="lora") for each in SCENARIO.devices), hours=0.05)
    for name, outcome in (("a", simulated()), ("b", run(slow))):
        (tmp_path / f"{name}.json").write_bytes(outcome.to_json())
    sides = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    lines = json.loads(invoke("compare", *sides, "--json"))["lines"]
    assert {line["devices"] for line in lines} == {"all", "gates <a>", "traps"}
    assert "answered by the server" in invoke("compare", *sides)


def test_size(scenario: str, tmp_path: Path) -> None:
    out = tmp_path / "found" / "s.json"
    words = ["size", scenario, "--accuracy", "0.5", "--deadline", "500", "--board", "pi-4", "--policy", "accuracy"]
    said = invoke(*words, "--out", str(out))
    assert "For 50.0% right with at most 1.0% missed: pi-4, wifi, accuracy, 1 x small" in said
    assert "The prices are examples" in said
    assert json.loads(out.read_text())["cheapest"]["choice"]["board"] == "pi-4"
    assert out.with_suffix(".svg").read_text().startswith("<svg")
    assert json.loads(invoke(*words, "--json"))["currency"] == "EUR"
