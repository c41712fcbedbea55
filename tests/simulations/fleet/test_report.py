"""The report is complete, well-formed, the same every time, and asks nothing of the network."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from headwater.simulations.fleet import picture, report
from headwater.simulations.fleet.advice import Tried
from headwater.simulations.fleet.outcome import ClassOutcome, Outcome, RolloutOutcome, RoundOutcome
from tests.simulations.fleet.fleets import SCENARIO, simulated

TRIED = [Tried("links twice as fast", 0.01, 0.001, -0.02, 120.0, -0.1, -0.3, 20_000, 2.0, 3)]


class _Checked(HTMLParser):
    """Counts what is open; text by heading."""

    VOID = ("meta", "br", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.titles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(value and value.startswith(("http", "//")) for name, value in attrs if name != "xmlns")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)


def test_every_part_is_there_and_closed() -> None:
    text = report.document(simulated(), TRIED)
    page = _Checked()
    page.feed(text)
    assert not page.open
    assert page.titles == [
        *("The fleet", "From picture to answer", "Who answered", "Where the time goes", "Bytes on the wire", "Energy"),
        *("Servers over the day", "What to change first", "How this was reckoned"),
    ]
    assert "gates &lt;a&gt;" in text
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text
    used = set(re.findall(r"var\((--k\d+)\)", text))
    assert used <= set(re.findall(r"(--k\d+):", text))
    assert "Raspberry Pi Zero 2 W" in text
    assert "links twice as fast" in text
    assert "+1.00 ± 0.10" in text


def test_the_same_outcome_gives_the_same_report(tmp_path: Path) -> None:
    again = Outcome.from_json(simulated().to_json())
    one = report.write(simulated(), tmp_path / "a" / "one.html", TRIED)
    assert one.read_text() == report.document(again, TRIED)
    first = picture.write(simulated(), tmp_path / "b" / "one.png")
    assert first.read_bytes() == picture.write(again, tmp_path / "two.png").read_bytes()
    with Image.open(first) as image:
        assert image.size[0] == 2000


def test_energy_of_a_day_has_a_range() -> None:
    spent = report.spent_a_day(simulated(), simulated().classes[0])
    assert spent["idle"].mid == pytest.approx(2.3 * 86_400)
    assert spent["idle"].low < spent["idle"].mid < spent["idle"].high
    assert spent["compute"].low < spent["compute"].mid


def test_a_fleet_without_answers_or_boards_has_a_report_too() -> None:
    devices = tuple(replace(each, count=0) for each in SCENARIO.devices)
    scenario = replace(SCENARIO, devices=devices, hours=2.5)
    empty = Outcome(scenario, "tiny 0", [ClassOutcome(each.name) for each in devices], [])
    page = _Checked()
    page.feed(report.document(empty))
    assert not page.open
    nothing = ClassOutcome(devices[0].name, 1, frames=3, skipped=3, missed=3, device_s=9000.0)
    assert "No picture was answered." in report.document(replace(empty, classes=[nothing, empty.classes[1]]))


def test_rounds_and_rollouts_are_told() -> None:
    rounds = [RoundOutcome("edge-1", 0.1, 7, 5, 10.0, 60.0, 300.0)]
    rollouts = [RolloutOutcome("edge-1", 0.1, 7, 7, "all", [(120.0, "widen", "agreement holds")])]
    text = report.document(replace(simulated(), rounds=rounds, rollouts=rollouts))
    assert "Federated rounds" in text
    assert "2 min widen" in text


def test_many_servers_are_told_by_their_mean_and_the_busiest() -> None:
    outcome = simulated()
    servers = [replace(outcome.servers[0], name=f"edge-{number}") for number in range(20)]
    scenario = replace(SCENARIO, servers=(replace(SCENARIO.servers[0], count=20),), hours=2)
    text = report.document(replace(outcome, scenario=scenario, servers=servers))
    assert "mean of 20" in text
    assert "The 12 busiest of 20." in text
