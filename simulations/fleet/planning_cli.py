"""``headwater simulate report``, ``compare`` and ``size``: what to make of simulated fleets."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headwater.simulations.fleet.outcome import Outcome
    from headwater.simulations.fleet.scenario import Scenario

JobsOption = Annotated[int, typer.Option(min=0, help="Processes; 0 for one a core. They change no figure.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BundleOption = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Whose modes, sizes and accuracies count, in place of the scenario's."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (report, compare, size):
        app.command()(command)


def report(
    what: Annotated[str, typer.Argument(help="A scenario by name or file, or the JSON of `simulate fleet --json`.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The HTML file.")] = Path("fleet.html"),
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="The first page as a picture, too.")] = None,
    advice: Annotated[bool, typer.Option(help="Try changes in short runs, and rank them.")] = True,
    bundle: BundleOption = None,
    jobs: JobsOption = 0,
) -> None:
    """Write a fleet's report: latencies, misses, accuracy, bytes, joules, servers, and what to change first."""
    from headwater.simulations.fleet import report as reports
    from headwater.simulations.fleet.compare import gather

    run = _runner(bundle, jobs)
    (outcome,) = gather(what, 1, run)
    tried = None
    if advice:
        from headwater.simulations.fleet.advice import advise
        from headwater.simulations.fleet.engine import bundle_of

        tried = advise(outcome, bundle_of(with_bundle(outcome.scenario, bundle)), run)
    reports.write(outcome, out, tried)
    typer.echo(f"report: {out}")
    if png is not None:
        from headwater.simulations.fleet import picture

        typer.echo(f"picture: {picture.write(outcome, png)}")


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A scenario, or JSON files, separated by commas.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same for the other side.")],
    seeds: Annotated[int, typer.Option(min=1, help="Runs of a scenario, each with a seed of its own.")] = 3,
    bundle: BundleOption = None,
    jobs: JobsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Put two fleets side by side: what differs, and whether that is more than chance."""
    from rich.console import Console

    from headwater.simulations.fleet import compare as comparing

    run = _runner(bundle, jobs)
    left, right = (comparing.gather(what, seeds, run) for what in (a, b))
    lines = comparing.lines(left, right)
    if as_json:
        typer.echo(json.dumps(comparing.as_plain(left, right, lines), indent=1))
        return
    Console().print(comparing.table(left, right, lines))


def size(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A TOML file, or the name of a ready scenario.")],
    accuracy: Annotated[float, typer.Option(min=0, max=1, help="Least share of right answers; a miss is a wrong one.")],
    deadline: Annotated[
        int | None, typer.Option(metavar="MS", help="Of every picture; the scenario's if not given.")
    ] = None,
    misses: Annotated[float, typer.Option(min=0, max=1, help="Greatest share of missed pictures.")] = 0.01,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your price list (TOML); else an example.")
    ] = None,
    board: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Boards to choose from; else all of the list.")
    ] = None,
    link: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Links to choose from; else the scenario's.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Of accuracy, bytes, energy, exit; else all four.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the search there (JSON); a plot beside.")
    ] = None,
    bundle: BundleOption = None,
    jobs: JobsOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Search for the cheapest fleet that meets a target, and print the Pareto front of cost, accuracy and misses."""
    from rich.console import Console

    from headwater.simulations.fleet import size as sizing
    from headwater.simulations.fleet.prices import Prices
    from headwater.simulations.fleet.scenario import Scenario

    listed, console = Prices.load(prices), Console(stderr=True)
    space = sizing.Space(listed, _words(board), _words(link), _words(policy) or sizing.POLICIES)
    wanted = sizing.with_deadline(Scenario.load(scenario), deadline)
    with console.status("first runs") as status:
        found = sizing.search(wanted, sizing.Target(accuracy, misses), space, _runner(bundle, jobs), status.update)
    plain = json.dumps(sizing.as_plain(found, listed.currency), indent=1)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(plain + "\n", encoding="utf-8")
        out.with_suffix(".svg").write_text(sizing.drawing(found, listed.currency), encoding="utf-8")
    if as_json:
        typer.echo(plain)
        return
    Console().print(*sizing.tables(found, listed))
    example = "" if prices else " The prices are examples: give yours with --prices."
    typer.echo(f"{sizing.verdict(found, listed)}{example}")


def _words(listed: str | None) -> tuple[str, ...]:
    return tuple(map(str.strip, listed.split(","))) if listed else ()


def with_bundle(scenario: "Scenario", bundle: Path | None) -> "Scenario":
    """The scenario with this bundle, if there is one, in place of its own."""
    return scenario if bundle is None else replace(scenario, bundle=bundle)


def _runner(bundle: Path | None, jobs: int) -> Callable[["Scenario"], "Outcome"]:
    """Runs scenarios; what their agents' exits say alike, one after the other, is said once."""
    from headwater.simulations.fleet.engine import run

    said, exits = set[str](), logging.getLogger("headwater.device.exit")

    def new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        first = text not in said
        said.add(text)
        return first

    def one(scenario: "Scenario") -> "Outcome":
        exits.addFilter(new)
        try:
            return run(with_bundle(scenario, bundle), jobs=jobs)
        finally:
            exits.removeFilter(new)

    return one
