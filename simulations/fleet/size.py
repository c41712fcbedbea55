"""The cheapest fleet that meets a target: boards, links, servers and policies tried out, few pictures first.

    every board x link x policy ── short run, servers never busy ──> cost, accuracy, misses
        │ not beaten in all three by another, or cheapest that meets the target
        └── the whole scenario, with as many servers as the short run asked for ──> more of them while that helps

All classes of devices of the scenario get the same board, link and policy; each keeps its count, its arrivals and what
else it is told. A fleet is on the *front* if none is at least as good in cost, accuracy and misses, and better in one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from headwater.compression.errors import SettingsError
from headwater.compression.settings import nearest
from headwater.server.charts import Chart
from headwater.simulations.fleet.advice import window
from headwater.simulations.fleet.prices import Prices

if TYPE_CHECKING:
    from headwater.device.settings import DeviceSettings
    from headwater.simulations.fleet.advice import Runner
    from headwater.simulations.fleet.outcome import Outcome
    from headwater.simulations.fleet.radios import Kind
    from headwater.simulations.fleet.scenario import DeviceClass, Scenario

POLICIES = ("accuracy", "bytes", "energy", "exit")
"""The product's objectives; exit: accuracy, and the exit answers what it is sure of, for a point at most."""
EXIT_POINTS = 1.0
BUSY = 0.5
"""Share of the workers' time in the busiest hour that servers are bought for."""
PICTURES = 5_000
"""Of a short run."""
MORE_SERVERS = 3
"""So often servers are doubled where the whole run misses more than the short one."""
LOOSE = 0.005
"""How far the short run may be from the target and still be run at size."""


@dataclass(frozen=True)
class Target:
    """What the fleet has to do."""

    accuracy: float
    """Expected share of right answers, misses counted as wrong."""
    misses: float = 0.01
    """Greatest share of pictures without an answer by the deadline."""

    def met(self, by: Fleet, *, slack: float = 0.0) -> bool:
        """Whether a fleet meets it."""
        return by.accuracy >= self.accuracy - slack and by.missed <= self.misses + slack


@dataclass(frozen=True)
class Choice:
    """What is bought, and what it is told."""

    board: str
    link: str
    policy: str
    server: str = ""
    servers: int = 0


@dataclass(frozen=True)
class Fleet:
    """A choice and what came of it."""

    choice: Choice
    cost: float
    """Of all devices and servers over the list's months."""
    accuracy: float
    missed: float
    p95_ms: float | None
    gigabytes: float
    """Of a device and month."""
    watts: float
    """Of a device."""
    at_size: bool = False
    """Whether the whole scenario was simulated."""

    def beats(self, other: Fleet) -> bool:
        """Whether it is at least as good in everything, and better in something."""
        mine, its = (self.cost, -self.accuracy, self.missed), (other.cost, -other.accuracy, other.missed)
        return all(a <= b for a, b in zip(mine, its, strict=True)) and mine != its


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    target: Target
    front: tuple[Fleet, ...]
    """At size, the cheapest first."""
    tried: tuple[Fleet, ...]
    """In short runs."""

    @property
    def cheapest(self) -> Fleet | None:
        """The cheapest fleet that meets the target; None if none does."""
        return next((fleet for fleet in self.front if self.target.met(fleet)), None)


@dataclass(frozen=True)
class Space:
    """What may be chosen; raises :class:`SettingsError` for what the price list does not have."""

    prices: Prices
    boards: tuple[str, ...] = ()
    """Empty: all of the list."""
    links: tuple[str, ...] = ()
    """Empty: those that the scenario has."""
    policies: tuple[str, ...] = POLICIES

    def choices(self, scenario: Scenario) -> Iterator[Choice]:
        """Every combination."""
        links = self.links or tuple(dict.fromkeys(each.link for each in scenario.devices))
        boards = self.boards or tuple(self.prices.boards)
        for what, names, known in (
            ("board", boards, self.prices.boards),
            ("link", links, self.prices.links),
            ("policy", self.policies, POLICIES),
        ):
            for name in names:
                if name not in known:
                    raise SettingsError(f"there is no price of the {what} {name}; {nearest(name, known)}")
        return (Choice(*each) for each in product(boards, links, self.policies))


def search(
    scenario: Scenario,
    target: Target,
    space: Space,
    run: Runner,
    progress: Callable[[str], None] = lambda _: None,
) -> Found:
    """Find the front; :class:`SettingsError` for a scenario whose servers cannot be chosen.

    Args:
        scenario: how many devices there are, and what they take pictures of and when.
        target: what has to be met.
        space: what may be bought.
        run: simulates a scenario.
        progress: told what is run.
    """
    if scenario.outages or any(each.servers for each in scenario.devices):
        raise SettingsError("size chooses the servers, so the scenario must not name them in outages or devices.")
    small, tried = _small(scenario, run), []
    for choice in space.choices(scenario):
        progress(f"{choice.board}, {choice.link}, {choice.policy}")
        tried.append(_short(scenario, small, choice, space.prices, run))
    meeting = [fleet for fleet in tried if target.met(fleet, slack=LOOSE)]
    chosen = {*front(tried), *sorted(meeting, key=lambda fleet: fleet.cost)[:1]}
    whole = []
    for fleet in sorted(chosen, key=_order):
        progress(f"at size: {told(fleet.choice)}")
        whole.append(_at_size(scenario, fleet, space.prices, run))
    return Found(target, tuple(front(whole)), tuple(sorted(tried, key=_order)))


def front(fleets: Sequence[Fleet]) -> list[Fleet]:
    """Those that no other beats, the cheapest first; of equal ones the first by name."""
    kept = [fleet for fleet in fleets if not any(other.beats(fleet) for other in fleets)]
    unique = {(fleet.cost, fleet.accuracy, fleet.missed): fleet for fleet in sorted(kept, key=_order, reverse=True)}
    return sorted(unique.values(), key=_order)


def _order(fleet: Fleet) -> tuple[float, str]:
    return fleet.cost, told(fleet.choice)


def told(choice: Choice) -> str:
    """In words."""
    servers = f", {choice.servers} x {choice.server}" if choice.servers else ""
    return f"{choice.board}, {choice.link}, {choice.policy}{servers}"


# ---------------------------------------------------------------- runs


def _small(scenario: Scenario, run: Runner) -> Scenario:
    """The window to try choices in: a hundredth of the devices find the busiest hour."""
    few = scenario.scaled(max(min(scenario.device_count, 20), scenario.device_count // 100))
    found = window(run(few), PICTURES)
    return replace(found, devices=tuple(each for each in found.devices if each.count))


def _short(scenario: Scenario, small: Scenario, choice: Choice, prices: Prices, run: Runner) -> Fleet:
    """A short run on a server that is never busy, and the servers that its load asks for."""
    plenty = replace(scenario.servers[0], name="edge", count=1, workers=64)
    outcome = run(replace(_with(small, choice), servers=(plenty,)))
    busy = sum(server.total.busy_s for server in outcome.servers) / (small.hours * 3600)
    workers = busy * scenario.device_count / max(small.device_count, 1) / BUSY
    counts = {name: max(math.ceil(workers / price.workers), 1) for name, price in prices.servers.items()}
    fleets = [
        _fleet(outcome, replace(choice, server=name, servers=count), scenario.device_count, prices)
        for name, count in counts.items()
    ]
    return min(fleets, key=_order)


def _at_size(scenario: Scenario, fleet: Fleet, prices: Prices, run: Runner) -> Fleet:
    """The whole scenario; with twice the servers while they are what it misses for."""
    choice, found = fleet.choice, None
    for _ in range(MORE_SERVERS + 1):
        server = replace(
            scenario.servers[0], name="edge", count=choice.servers, workers=prices.servers[choice.server].workers
        )
        outcome = run(replace(_with(scenario, choice), servers=(server,)))
        found = replace(_fleet(outcome, choice, scenario.device_count, prices), at_size=True)
        if not any(each.total.refused + each.total.expired for each in outcome.servers):
            break
        choice = replace(choice, servers=2 * choice.servers)
    assert found is not None
    return found


def _with(scenario: Scenario, choice: Choice) -> Scenario:
    def bought(devices: DeviceClass) -> DeviceClass:
        moved = replace(devices, profile=choice.board, times=None, link=choice.link)
        return replace(moved, settings=_settings(devices.settings, choice.policy, scenario.radio(moved).kind))

    return replace(scenario, devices=tuple(map(bought, scenario.devices)))


def _settings(settings: DeviceSettings, policy: str, kind: Kind) -> DeviceSettings:
    if policy == "exit":
        return replace(settings, objective="accuracy", max_drop=EXIT_POINTS, radio=None, compute_watts=None, slack=None)
    radio: Any = ("none" if kind == "cable" else kind) if policy == "energy" else None
    objective: Any = policy
    slack = None if policy == "accuracy" else settings.slack
    watts = settings.compute_watts if policy == "energy" else None
    return replace(settings, objective=objective, max_drop=None, radio=radio, compute_watts=watts, slack=slack)


def _fleet(outcome: Outcome, choice: Choice, devices: int, prices: Prices) -> Fleet:
    total = outcome.total
    cost = prices.cost(total, devices, choice.servers, choice.board, choice.link, choice.server)
    p95_ms = total.latency.quantile(0.95)
    return Fleet(choice, cost, total.accuracy, total.miss_share, p95_ms, total.month_gigabytes, total.watts)


def with_deadline(scenario: Scenario, deadline_ms: int | None) -> Scenario:
    """The same with one deadline for all devices; as it is for None."""
    if deadline_ms is None:
        return scenario
    devices = [replace(each, settings=replace(each.settings, deadline_ms=deadline_ms)) for each in scenario.devices]
    return replace(scenario, devices=tuple(devices))


# ---------------------------------------------------------------- what is shown


def as_plain(found: Found, currency: str) -> dict[str, Any]:
    """For a program."""
    return {
        "target": asdict(found.target),
        "currency": currency,
        "cheapest": None if found.cheapest is None else asdict(found.cheapest),
        "front": [asdict(fleet) for fleet in found.front],
        "tried": [asdict(fleet) for fleet in found.tried],
    }


def drawing(found: Found, currency: str) -> str:
    """Cost against accuracy, as an SVG file: what was tried in short runs, the front at size, and the target."""
    front_ = found.front
    chart = Chart(f"cost, {currency}", "expected right, %")
    chart.points("short runs", [fleet.cost for fleet in found.tried], [100 * fleet.accuracy for fleet in found.tried])
    chart.line("front at size", [fleet.cost for fleet in front_], [100 * fleet.accuracy for fleet in front_])
    if (best := found.cheapest) is not None:
        chart.points("cheapest that meets it", [best.cost], [100 * best.accuracy])
    return chart.file(
        "Fleets by cost and accuracy", "each point is a fleet; the line joins those that none other beats"
    )


def tables(found: Found, prices: Prices) -> list[Table]:
    """For people: the front, and what else was tried, in 80 columns."""
    return [
        _table("Fleets that no other beats in cost, accuracy and misses", found.front, found.target, prices),
        _table("The best of each link and policy, in short runs", bests(found), found.target, prices),
    ]


def bests(found: Found) -> list[Fleet]:
    """Of what was tried, by link and policy: the cheapest that meets the target, else the most accurate."""
    of_kind: dict[tuple[str, str], list[Fleet]] = {}
    for fleet in found.tried:
        of_kind.setdefault((fleet.choice.link, fleet.choice.policy), []).append(fleet)
    found_of = [
        min((fleet for fleet in kind if found.target.met(fleet)), key=_order, default=None)
        or min(kind, key=lambda fleet: (-fleet.accuracy, *_order(fleet)))
        for kind in of_kind.values()
    ]
    return sorted(found_of, key=_order)


def _table(title: str, fleets: Iterable[Fleet], target: Target, prices: Prices) -> Table:
    shown = Table(title=f"\n{title}", title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
    shown.add_column("board, link, policy, servers", min_width=26)
    for column in (prices.currency, "right", "missed", "p95 ms", "GB/month", "W", "meets it"):
        shown.add_column(column, justify="right", no_wrap=True)
    for fleet in fleets:
        shown.add_row(
            *(told(fleet.choice), f"{fleet.cost:,.0f}", f"{fleet.accuracy:.1%}", f"{fleet.missed:.1%}"),
            *("-" if fleet.p95_ms is None else f"{fleet.p95_ms:,.0f}", f"{fleet.gigabytes:.3f}", f"{fleet.watts:.2f}"),
            "yes" if target.met(fleet) else "no",
        )
    return shown


def verdict(found: Found, prices: Prices) -> str:
    """What to buy, in a sentence."""
    target = found.target
    wanted = f"{target.accuracy:.1%} right with at most {target.misses:.1%} missed"
    best = found.cheapest
    if best is None:
        return f"No fleet of these choices reaches {wanted}."
    return f"For {wanted}: {told(best.choice)}, {best.cost:,.0f} {prices.currency} in {prices.months:g} months."
