"""What a simulated fleet did, as one HTML file: no request to anywhere, light and dark.

The same outcome gives the same bytes. Figures are the outcome's; those of energy have the range of what is behind them.
"""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

from headwater.device.figure import ZERO, Figure
from headwater.server.charts import Chart, cards, page, section, table
from headwater.simulations import charts
from headwater.simulations.charts import duration, share_bars
from headwater.simulations.fleet import amounts, energy, profiles
from headwater.simulations.fleet.drawings import Spread, latencies
from headwater.simulations.fleet.outcome import SOURCES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from headwater.simulations.fleet.advice import Tried
    from headwater.simulations.fleet.outcome import ClassOutcome, Outcome, ServerOutcome
    from headwater.simulations.fleet.scenario import DeviceClass

DAY_S = 86_400.0
MOST_LINES = 6
"""Servers that are drawn one by one; of more, the mean and the busiest."""
_SOURCES = {
    "server": "server",
    "exit": "exit on the device",
    "whole": "whole model on the device",
    "unanswered": "sent, no answer in time",
    "skipped": "not tried",
    "dropped": "overwritten by a newer one",
}
_STAGES = ("wait", "prepare", "head", "exit", "code", "up", "server", "down")
_PARTS = {"idle": "board idle", "compute": "computing", "radio": "radio: bytes", "tail": "radio: tail and waking"}
_STYLE = (
    charts.STYLE
    + """
body { max-width: 62rem } section { margin-top: 2.6rem } section > h2 { margin-top: 0 }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem } table { font-size: .88rem } figure + table { margin-top: 1rem }
th, td { padding: .3rem .55rem } .cards { margin-top: 1.4rem; display: grid;
 grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)) } .card { min-width: 0 } .card b { font-size: 1.45rem }
ul.notes { max-width: 46rem; color: var(--soft); padding-left: 1.2rem } ul.notes li { margin: .35rem 0 }
.ranges td:not(:first-child), .ranges th { white-space: normal }
.plain > figure > svg { width: 40rem } details { margin-top: .8rem } summary { cursor: pointer }
details table { font-size: .8rem } details td:last-child { white-space: normal; text-align: left; min-width: 22rem }
"""
)


def write(outcome: Outcome, path: Path, tried: Sequence[Tried] | None = None) -> Path:
    """Write the report; `tried` is what :func:`advice.advise` found, None where nobody asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document(outcome, tried), encoding="utf-8")
    return path


def document(outcome: Outcome, tried: Sequence[Tried] | None = None) -> str:
    """The report's text."""
    shown = [each for each in outcome.classes if each.frames]
    parts = [
        cards(headlines(outcome)),
        _classes(outcome, shown),
        _latencies(outcome, shown),
        _sources(shown),
        _stages(shown),
        _bytes(shown),
        _energy(outcome, shown),
        _servers(outcome),
        *_rounds(outcome),
        *_rollouts(outcome),
        *_advice(tried),
        _notes(outcome),
    ]
    return page(f"A fleet, simulated: {outcome.scenario.name}", filter(None, parts), _lead(outcome), style=_STYLE)


def headlines(outcome: Outcome) -> list[tuple[str, str]]:
    """The figures to read first, each with what it is."""
    total, spent = outcome.total, _together(outcome)
    p95 = total.latency.quantile(0.95)
    busiest = 100 * max((_busiest(outcome, server) for server in outcome.servers), default=0.0)
    figures = [
        (f"{total.accuracy:.1%}", "expected right, of all pictures; a miss counts as wrong"),
        (f"{total.miss_share:.2%}", "missed: no answer by the deadline"),
        ("-" if p95 is None else duration(p95 / 1e3), "from picture to answer, 95th percentile"),
        (amounts.size(1e9 * total.month_gigabytes), "a device and month, up and down"),
    ]
    if spent.mid:
        low, mid, high = map(amounts.joules, (spent.low, spent.mid, spent.high))
        figures.append((mid, f"a device and day; {low} to {high}"))
    figures.append((amounts.percent(busiest), "of the busiest server's workers, in its busiest hour"))
    return figures


def spent_a_day(outcome: Outcome, of: ClassOutcome) -> dict[str, Figure]:
    """Joules of one device of a class a day, by part; empty where its board is not known."""
    devices = device_class(outcome, of.name)
    if not of.joules or not devices.profile or not of.device_s:
        return {}
    a_day = {part: joules / of.device_s * DAY_S for part, joules in of.joules.items()}
    board, radio = profiles.load(devices.profile), energy.radio_of(outcome.scenario.radio(devices).kind)
    return energy.ranged(board, radio, a_day)


def device_class(outcome: Outcome, name: str) -> DeviceClass:
    """What the scenario says of a class."""
    return next(each for each in outcome.scenario.devices if each.name == name)


def _lead(outcome: Outcome) -> str:
    scenario, total = outcome.scenario, outcome.total
    servers = len(scenario.server_names)
    return (
        f"{total.frames:,} pictures of {total.devices:,} devices in {scenario.hours:g} h, {servers:,} server"
        f"{'s' if servers > 1 else ''}; bundle {outcome.bundle}, seed {scenario.seed}. Nothing here was measured: it "
        "is what a simulation expects, with the product's own rules on assumed links and devices."
    )


def _together(outcome: Outcome) -> Figure:
    """Joules of the mean device a day; 0 where the board of a class is not known."""
    total, devices_s = ZERO, sum(of.device_s for of in outcome.classes if of.frames)
    for of in outcome.classes:
        spent = spent_a_day(outcome, of)
        if of.frames and not spent:
            return ZERO
        total += sum(spent.values(), ZERO) * (of.device_s / devices_s if devices_s else 0.0)
    return total


# ---------------------------------------------------------------- by class


def _classes(outcome: Outcome, shown: Sequence[ClassOutcome]) -> str:
    head = ["devices", "count", "board", "link", "pictures", "right", "missed", "p50", "p95", "p99", "deadline"]
    rows = [_class_row(outcome, of) for of in shown]
    if len(shown) > 1:
        total = outcome.total
        times = [amounts.time(total.latency.quantile(share)) for share in (0.5, 0.95, 0.99)]
        right = f"{total.accuracy:.1%}"
        rows.append(
            ["all", f"{total.devices:,}", "", "", f"{total.frames:,}", right, f"{total.miss_share:.2%}", *times, ""]
        )
    return section("The fleet", table(head, rows))


def _class_row(outcome: Outcome, of: ClassOutcome) -> list[str]:
    devices = device_class(outcome, of.name)
    deadline = devices.settings.deadline_ms
    return [
        *(of.name, f"{of.devices:,}", devices.profile or "own times", devices.link, f"{of.frames:,}"),
        *(f"{of.accuracy:.1%}", f"{of.miss_share:.2%}"),
        *(amounts.time(of.latency.quantile(share)) for share in (0.5, 0.95, 0.99)),
        "none" if deadline is None else duration(deadline / 1e3),
    ]


def _latencies(outcome: Outcome, shown: Sequence[ClassOutcome]) -> str:
    rows = [
        Spread(
            of.name,
            of.latency,
            device_class(outcome, of.name).settings.deadline_ms,
            f"p95 {amounts.time(of.latency.quantile(0.95))}, {of.miss_share:.1%} missed",
        )
        for of in shown
    ]
    note = "Of every picture that has an answer, whoever gave it; hills are each as high as their highest column."
    return section(
        "From picture to answer", latencies(rows, "latencies by class; the table above has figures"), note=note
    )


def _sources(shown: Sequence[ClassOutcome]) -> str:
    names = [source for source in SOURCES if any(of.share(source) for of in shown)]
    rows = [(of.name, {_SOURCES[name]: float(getattr(of, name)) for name in names}) for of in shown]
    chart = share_bars(rows, [_SOURCES[name] for name in names], "who answered, by class", amounts.count)
    of_exit, sure, stepped = (sum(getattr(of, key) for of in shown) for key in ("exit", "sure", "stepped_in"))
    note = (
        f"Of the exit's {of_exit:,} answers it was sure of {sure:,}, so that nothing was sent; {stepped:,} stepped in "
        f"for the server's; the controller would not send {of_exit - sure - stepped:,}."
    )
    return section("Who answered", chart, note=note if of_exit else "")


def _stages(shown: Sequence[ClassOutcome]) -> str:
    rows = [(of.name, _stage_ms(of)) for of in shown if of.server and sum(of.stage_s.values()) > 0]
    if not rows:
        return ""
    chart = share_bars(rows, _STAGES, "share of each stage in the mean time of an answer of the server")
    figures = [[name, *(f"{ms[stage]:.1f}" for stage in _STAGES), f"{sum(ms.values()):.1f}"] for name, ms in rows]
    note = (
        "Of pictures that the server answered, the mean time. wait: the device was at the picture before; up and down: "
        "the link with its delays and what waits for it; server: its queue and its batch."
    )
    return section("Where the time goes", chart, table(["mean ms", *_STAGES, "sum"], figures), note=note)


def _stage_ms(of: ClassOutcome) -> dict[str, float]:
    ms = {stage: 1e3 * max(seconds, 0.0) / of.server for stage, seconds in of.stage_s.items()}
    return {stage: ms[stage] if stage in ms else ms["queue"] + ms["run"] for stage in _STAGES}


def _bytes(shown: Sequence[ClassOutcome]) -> str:
    head = ["a device and month", "frames up", "headers up", "rounds up", "answers down", "rounds, bundles down", "all"]
    return section("Bytes on the wire", table(head, [_byte_row(of) for of in shown]))


def _byte_row(of: ClassOutcome) -> list[str]:
    a_month = 30 * DAY_S / of.device_s
    up_headers = of.up_bytes - of.frame_bytes - of.bulk_up_bytes
    parts = [of.frame_bytes, up_headers, of.bulk_up_bytes, of.down_bytes - of.bulk_down_bytes, of.bulk_down_bytes]
    return [of.name, *(amounts.size(part * a_month) for part in (*parts, of.up_bytes + of.down_bytes))]


def _energy(outcome: Outcome, shown: Sequence[ClassOutcome]) -> str:
    spent = {of.name: found for of in shown if (found := spent_a_day(outcome, of))}
    if not spent:
        return ""
    names = [part for part in _PARTS if any(parts.get(part, ZERO).mid for parts in spent.values())]
    rows = [(name, {_PARTS[part]: parts.get(part, ZERO).mid for part in names}) for name, parts in spent.items()]
    chart = share_bars(rows, [_PARTS[part] for part in names], "joules of a device and day by part", amounts.joules)
    figures = [_energy_row(name, parts, names) for name, parts in spent.items()]
    note = (
        "Of a device and day. In brackets the range that the figures behind it leave, all erring to the same side: "
        "their sources are at the end of this page, the radio's in headwater/device/radio.py. Boards are on all day."
    )
    head = ["a device and day", *(_PARTS[part] for part in names), "all", "mean power"]
    return section("Energy", chart, f'<div class="ranges">{table(head, figures)}</div>', note=note)


def _energy_row(name: str, parts: Mapping[str, Figure], names: Sequence[str]) -> list[str]:
    whole = sum(parts.values(), ZERO)
    told = [amounts.joules_ranged(parts.get(part, ZERO)) for part in names]
    return [name, *told, amounts.joules_ranged(whole), f"{whole.mid / DAY_S:.2f} W"]


# ---------------------------------------------------------------- servers, rounds


def _servers(outcome: Outcome) -> str:
    scenario, busiest = outcome.scenario, sorted(outcome.servers, key=lambda s: (-_busiest(outcome, s), s.name))
    hours = range(math.ceil(scenario.hours))
    times, chart = [scenario.start_h + at for at in hours], Chart("time of day, h", "% of the workers' time")
    if len(busiest) > MOST_LINES:
        mean = [sum(100 * load(outcome, server, at) for server in busiest) / len(busiest) for at in hours]
        chart.line(f"mean of {len(busiest)}", times, mean)
    for server in busiest[:1] if len(busiest) > MOST_LINES else sorted(busiest, key=lambda s: s.name):
        chart.line(server.name, times, [100 * load(outcome, server, at) for at in hours])
    head = ["server", "devices", "frames", "batches", "mean batch", "busy", "busiest hour", "most waiting", "refused"]
    rows = [_server_row(outcome, server) for server in busiest[: 2 * MOST_LINES]]
    note = f"The {len(rows)} busiest of {len(busiest)}." if len(rows) < len(busiest) else ""
    drawn = f'<div class="plain">{chart.svg("busy share of each server by hour")}</div>' if len(times) > 1 else ""
    return section("Servers over the day", drawn, table(head, rows), note=note)


def _server_row(outcome: Outcome, server: ServerOutcome) -> list[str]:
    total = server.total
    batch = f"{total.frames / total.batches:.1f}" if total.batches else "-"
    share = server.busy_share(outcome.scenario.hours)
    return [
        *(server.name, f"{server.devices:,}", f"{total.frames:,}", f"{total.batches:,}", batch),
        *(amounts.percent(100 * each) for each in (share, _busiest(outcome, server))),
        *(f"{total.most_waiting:,}", f"{total.refused + total.expired:,}"),
    ]


def load(outcome: Outcome, server: ServerOutcome, at: int) -> float:
    """The busy share of a server's workers in an hour since the start."""
    lasted_h = min(max(outcome.scenario.hours - at, 1e-3), 1.0)
    hour = server.hours.get(at)
    return hour.busy_s / (3600 * lasted_h * server.workers) if hour else 0.0


def _busiest(outcome: Outcome, server: ServerOutcome) -> float:
    """The busy share of its busiest hour that was simulated for at least a tenth."""
    hours = [at for at in server.hours if outcome.scenario.hours - at >= 0.1] or [0]
    return max((load(outcome, server, at) for at in hours), default=0.0)


def _rounds(outcome: Outcome) -> list[str]:
    if not outcome.rounds:
        return []
    head = ["server", "at", "asked", "finished", "first", "median", "last"]
    rows = [
        [each.server, f"{each.at_h:g} h", f"{each.asked:,}", f"{each.finished:,}"]
        + [duration(seconds) if each.finished else "-" for seconds in (each.first_s, each.median_s, each.last_s)]
        for each in outcome.rounds
    ]
    return [section("Federated rounds", table(head, rows), note="How long after its start updates were back.")]


def _rollouts(outcome: Outcome) -> list[str]:
    if not outcome.rollouts:
        return []
    head = ["server", "at", "devices", "reached", "ended", "steps"]
    rows = [
        [
            *(each.server, f"{each.at_h:g} h", f"{each.devices:,}", f"{each.reached:,}", each.ended),
            "; ".join(f"{at_s / 60:.0f} min {what}" for at_s, what, _ in each.steps),
        ]
        for each in outcome.rollouts
    ]
    return [section("Roll-outs", table(head, rows), note="By the product's own rules for a canary.")]


# ---------------------------------------------------------------- advice, notes


def _advice(tried: Sequence[Tried] | None) -> list[str]:
    if not tried:
        return []
    first = tried[0]
    note = (
        f"Each row is the same fleet simulated again with one thing changed: {first.frames:,} pictures from hour "
        f"{first.from_h:g} on, {first.seeds} seeds. Ranked by expected right answers, where the difference is more "
        "than twice its standard error from seed to seed; the others follow, by energy. A change may cost more than it "
        "gives: see `headwater simulate size`."
    )
    head = ["change", "right, points", "missed, points", "p95", "bytes", "energy", "clear"]
    rows = [
        [
            each.what,
            f"{amounts.signed(100 * each.right, 2)} ± {100 * each.right_error:.2f}",
            amounts.signed(100 * each.missed, 2),
            amounts.time(each.p95_ms),
            f"{amounts.signed(100 * each.bytes, 1)} %",
            "-" if each.joules is None else f"{amounts.signed(100 * each.joules, 1)} %",
            "yes" if each.clear else "no",
        ]
        for each in tried
    ]
    return [section("What to change first", table(head, rows), note=note)]


def _notes(outcome: Outcome) -> str:
    scenario = outcome.scenario
    notes = [
        "Decisions are the product's own controller's, batches its own queue's, roll-outs its own rules'.",
        "Links, boards, servers and arrivals are assumed, by the scenario.",
        "Accuracy is what the bundle says of each mode and of the exit; the pictures of this fleet may be harder.",
        f"Protocol: {scenario.protocol.up_bytes} bytes beside each frame, {scenario.protocol.down_bytes} an answer.",
        "docs/simulation.md says what the simulation knows and what it does not.",
    ]
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    boards = sorted({each.profile for each in scenario.devices if each.profile})
    return section(
        "How this was reckoned", f'<ul class="notes">{items}</ul>', "".join(_board(profile) for profile in boards)
    )


def _board(profile: str) -> str:
    board = profiles.load(profile)
    figures = [(key, value) for key, value in vars(board).items() if isinstance(value, Figure)]
    figures += [(f"head_ms {width:g}", figure) for width, figure in board.head_ms.items()]
    rows = [[key, *(f"{v:.4g}" for v in (each.low, each.mid, each.high)), each.source] for key, each in figures]
    title = html.escape(f"{board.name}: {board.title}")
    return f"<details><summary>{title}</summary>{table(['figure', 'low', 'mid', 'high', 'source'], rows)}</details>"
