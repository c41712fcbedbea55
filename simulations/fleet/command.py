"""The body of ``headwater simulate fleet``: run, show, write."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from headwater.simulations.fleet.engine import run
from headwater.simulations.fleet.scenario import Scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.simulations.fleet.engine import Progress as Done
    from headwater.simulations.fleet.outcome import ClassOutcome, Outcome


def fleet(scenario: Scenario, json: Path | None, jobs: int) -> Outcome:
    """Simulate a scenario, print what came of it, and write all figures where that is asked for."""
    console = Console()
    outcome = watched(scenario, jobs, console)
    for table in tables(outcome):
        console.print(table)
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_bytes(outcome.to_json())
        console.print(f"figures: {json}", markup=False, highlight=False, soft_wrap=True)
    return outcome


def changed(
    scenario: Scenario,
    devices: int | None = None,
    hours: float | None = None,
    seed: int | None = None,
    trace: Path | None = None,
    trace_factor: float = 1.0,
) -> Scenario:
    """The scenario with what is not None in place of its own; raises :class:`SettingsError`."""
    scenario = scenario if devices is None else scenario.scaled(devices)
    scenario = scenario if hours is None else replace(scenario, hours=hours)
    scenario = scenario if seed is None else replace(scenario, seed=seed)
    return scenario if trace is None else scenario.traced(trace, trace_factor)


def watched(scenario: Scenario, jobs: int, console: Console) -> Outcome:
    """Run it, with a bar where somebody looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[frames]:,} pictures"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(scenario.name, total=None, frames=0)

        def show(done: Done) -> None:
            bar.update(task, completed=done.done, total=done.shards, frames=done.frames)

        return run(scenario, jobs=jobs, progress=show)


# ------------------------------------------------------------ tables


def tables(outcome: Outcome) -> list[Table]:
    """What a terminal shows of an outcome: answers, costs, servers, and what rounds and roll-outs came to."""
    more = [_rounds(outcome)] if outcome.rounds else []
    return [
        _answers(outcome),
        _costs(outcome),
        _servers(outcome),
        *more,
        *([_rollouts(outcome)] if outcome.rollouts else []),
    ]


def _table(title: str, first: str, columns: Sequence[str]) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _rows(outcome: Outcome) -> list[ClassOutcome]:
    return outcome.classes if len(outcome.classes) == 1 else [*outcome.classes, outcome.total]


def _answers(outcome: Outcome) -> Table:
    scenario = outcome.scenario
    size = f"{scenario.device_count:,} devices, {scenario.hours:g} h"
    title = f"{scenario.name}: {size}, seed {scenario.seed}; shares in %"
    columns = ("frames", "server", "exit", "whole", "none", "missed", "p50 ms", "p95 ms", "p99 ms")
    table = _table(title, "devices", columns)
    for row in _rows(outcome):
        none = row.share("unanswered") + row.share("skipped") + row.share("dropped")
        sources = [row.share(source) for source in ("server", "exit", "whole")]
        table.add_row(
            row.name,
            f"{row.frames:,}",
            *(f"{100 * share:.1f}" if row.frames else "-" for share in (*sources, none, row.miss_share)),
            *(_ms(row.latency.quantile(share)) for share in (0.5, 0.95, 0.99)),
        )
    return table


def _costs(outcome: Outcome) -> Table:
    columns = ("number", "right", "bytes a frame", "GB a month", "J a picture", "W")
    table = _table("what they are worth and cost, a device", "devices", columns)
    for row in _rows(outcome):
        joules = math.fsum(row.joules.values())
        table.add_row(
            row.name,
            f"{row.devices:,}",
            f"{row.accuracy:.2%}" if row.frames else "-",
            f"{row.frame_bytes / row.sent:.0f}" if row.sent else "-",
            f"{row.month_gigabytes:.3f}",
            f"{joules / row.frames:.2f}" if joules and row.frames else "-",
            f"{row.watts:.2f}" if joules else "-",
        )
    return table


def _rounds(outcome: Outcome) -> Table:
    table = _table("federated rounds", "server", ("at hour", "asked", "finished", "median s", "last s"))
    for each in outcome.rounds:
        counts = (f"{each.at_h:g}", f"{each.asked:,}", f"{each.finished:,}")
        table.add_row(each.server, *counts, f"{each.median_s:,.0f}", f"{each.last_s:,.0f}")
    return table


def _rollouts(outcome: Outcome) -> Table:
    table = _table("roll-outs", "server", ("at hour", "devices", "reached", "ended", "last step"))
    for each in outcome.rollouts:
        last = each.steps[-1][2] if each.steps else "-"
        table.add_row(each.server, f"{each.at_h:g}", f"{each.devices:,}", f"{each.reached:,}", each.ended, last)
    return table


def _servers(outcome: Outcome) -> Table:
    columns = ("devices", "frames", "batch", "busy", "peak hour", "wait ms", "queue", "refused")
    table = _table("servers", "server", columns)
    for server in outcome.servers:
        total, hours = server.total, outcome.scenario.hours
        busiest = max((hour.busy_s for hour in server.hours.values()), default=0.0)
        table.add_row(
            server.name,
            f"{server.devices:,}",
            f"{total.frames:,}",
            f"{total.frames / total.batches:.1f}" if total.batches else "-",
            f"{server.busy_share(hours):.1%}",
            f"{busiest / (min(hours, 1.0) * 3600 * server.workers):.1%}",
            f"{total.wait_s / total.frames * 1e3:.2f}" if total.frames else "-",
            f"{total.most_waiting:,}",
            f"{total.refused:,}",
        )
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
