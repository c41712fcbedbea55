"""The search for the cheapest fleet: what it buys, what it runs, what it calls a front."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from headwater.compression.errors import SettingsError
from headwater.simulations.fleet import size
from headwater.simulations.fleet.outcome import Outcome
from headwater.simulations.fleet.prices import LinkPrice, Prices, ServerPrice
from headwater.simulations.fleet.scenario import Outage, Scenario
from headwater.simulations.fleet.size import Choice, Fleet, Space, Target
from tests.simulations.fleet.fleets import SCENARIO, one, run, told

PRICES = Prices(
    {"pi-zero-2": 20.0, "pi-4": 60.0, "pi-5": 80.0},
    {"wifi": LinkPrice(5.0, 0.5), "lora": LinkPrice(10.0, 0.1)},
    {"small": ServerPrice(2, 40.0), "large": ServerPrice(8, 120.0)},
    months=10,
    kwh=0.5,
)


def fleet(cost: float, accuracy: float, missed: float = 0.0) -> Fleet:
    return Fleet(Choice("b", "l", "accuracy"), cost, accuracy, missed, 10.0, 0.1, 2.0)


def test_a_fleet_costs_what_its_parts_do() -> None:
    total = told(one()).total
    gigabytes = 100 * 1000 * 1000 / (3 * 3600 * 1000) * 86_400 * 30 / 1e9
    assert total.month_gigabytes == pytest.approx(gigabytes)
    priced = replace(PRICES, links={"wifi": LinkPrice(5.0, 0.5, 2.0)})
    each = 60 + 5 + 10 * (0.5 + 2 * gigabytes + 2 / 1000 * 720 * 0.5)
    assert priced.cost(total, 500, 3, "pi-4", "wifi", "small") == pytest.approx(500 * each + 3 * 10 * 40)


def test_the_front_is_what_no_other_beats() -> None:
    cheap, good, worse, same = fleet(1, 0.8), fleet(2, 0.9), fleet(2.5, 0.85), fleet(2, 0.9)
    fewer = fleet(3, 0.85, -0.1)
    assert size.front([good, worse, cheap, same, fewer]) == [cheap, good, fewer]
    assert not good.beats(same)


def test_the_cheapest_that_meets_the_target_is_found_and_run_at_size() -> None:
    ran: list[Scenario] = []

    def runner(scenario: Scenario) -> Outcome:
        ran.append(scenario)
        return told(scenario)

    found = size.search(one(), Target(0.93), Space(PRICES), runner)
    assert found.cheapest is not None
    assert found.cheapest.choice == Choice("pi-5", "wifi", "accuracy", "large", 3)
    assert found.cheapest.at_size
    assert [each.choice.board for each in found.front] == ["pi-zero-2", "pi-4", "pi-5"]
    assert all(a.cost < b.cost and a.accuracy < b.accuracy for a, b in pairwise(found.front))
    assert len(found.tried) == 3 * 4
    assert sum(each.hours == 3 and each.device_count == 1000 for each in ran) == 3


def test_servers_are_bought_for_half_of_their_time_and_more_while_they_refuse() -> None:
    choices = [each.choice for each in size.search(one(), Target(0.5), Space(PRICES), told).tried]
    assert {(each.server, each.servers) for each in choices} == {("large", 3)}  # 10 busy workers, half busy: 20
    asked: list[int] = []

    def refusing(scenario: Scenario) -> Outcome:
        asked.append(scenario.servers[0].count)
        outcome = told(scenario)
        refused = 5 if scenario.servers[0].count < 9 and scenario.servers[0].workers < 64 else 0
        for server in outcome.servers:
            server.hours[0].refused = refused
        return outcome

    space = Space(PRICES, boards=("pi-4",), policies=("accuracy",))
    found = size.search(one(), Target(0.5), space, refusing)
    assert asked[-3:] == [3, 6, 12]
    assert found.front[0].choice.servers == 12


def test_what_is_not_on_the_list_cannot_be_bought() -> None:
    with pytest.raises(SettingsError, match="no price of the board pi4; did you mean pi-4"):
        size.search(one(), Target(0.9), Space(PRICES, boards=("pi4",)), told)
    with pytest.raises(SettingsError, match="no price of the policy"):
        size.search(one(), Target(0.9), Space(PRICES, policies=("fast",)), told)
    with pytest.raises(SettingsError, match="must not name them"):
        size.search(replace(one(), outages=(Outage("edge", 0, 1),)), Target(0.9), Space(PRICES), told)


def test_no_fleet_reaches_too_much() -> None:
    found = size.search(one(), Target(0.99), Space(PRICES), told)
    assert found.cheapest is None
    assert size.verdict(found, PRICES).startswith("No fleet of these choices reaches 99.0% right")
    assert size.as_plain(found, "EUR")["cheapest"] is None


def test_what_is_shown(tmp_path: Path) -> None:
    found = size.search(one(), Target(0.9), Space(PRICES), told)
    console = Console(record=True, width=80)
    console.print(*size.tables(found, PRICES))
    shown = console.export_text()
    assert "3 x large" in shown
    assert "yes" in shown
    assert "…" not in shown
    assert size.verdict(found, PRICES).startswith("For 90.0% right with at most 1.0% missed: pi-4, wifi, accuracy, 3 x")
    (tmp_path / "p.svg").write_text(size.drawing(found, "EUR"))
    assert ET.parse(tmp_path / "p.svg").getroot().tag.endswith("svg")  # noqa: S314 - our own output


def test_of_each_link_and_policy_the_cheapest_that_does_is_told_or_the_most_accurate() -> None:
    found = size.search(one(), Target(0.9), Space(PRICES), told)
    bests = size.bests(found)
    kinds = [(fleet.choice.link, fleet.choice.policy) for fleet in bests]
    assert sorted(kinds) == sorted({(fleet.choice.link, fleet.choice.policy) for fleet in found.tried})
    for best in bests:
        like = [fleet for fleet in found.tried if fleet.choice.policy == best.choice.policy]
        meeting = [fleet for fleet in like if found.target.met(fleet)]
        assert (
            best.cost == min(fleet.cost for fleet in meeting)
            if meeting
            else best.accuracy == max(fleet.accuracy for fleet in like)
        )


def test_the_example_list_has_every_ready_board_and_link() -> None:
    prices = Prices.load()
    assert prices.boards["pi-4"] > prices.boards["pi-zero-2"]
    with pytest.raises(SettingsError, match="there is no price list"):
        Prices.load(Path("none.toml"))
    with pytest.raises(SettingsError, match="has no boards"):
        replace(prices, boards={})


def test_the_whole_way_with_a_simulation() -> None:
    scenario = replace(SCENARIO, devices=SCENARIO.devices[:1], hours=0.05)
    space = Space(PRICES, boards=("pi-4", "pi-zero-2"), policies=("accuracy", "energy"))
    found = size.search(size.with_deadline(scenario, 300), Target(0.5), space, run)
    assert found.cheapest is not None
    assert found.cheapest.choice.board == "pi-zero-2"
    assert found.cheapest.choice.servers == 1
