"""``headwater simulate``: a fleet on one machine, before buying it."""

from pathlib import Path
from typing import Annotated

import typer

from headwater.simulations.fleet.planning_cli import add_to as add_planning
from headwater.simulations.learning.cli import add_to as add_learning

app = typer.Typer(no_args_is_help=True)


@app.callback()
def simulate() -> None:
    """Simulate a fleet on one machine: its traffic, its learning, its energy."""


@app.command()
def fleet(
    scenario: Annotated[str, typer.Argument(metavar="SCENARIO", help="A TOML file, or the name of a ready scenario.")],
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices in all, in place of the scenario's; classes keep their shares.")
    ] = None,
    hours: Annotated[float | None, typer.Option(min=1e-4, help="Time to simulate, in place of the scenario's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is left to chance, in place of the scenario's.")] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Recorded links in Mahimahi's format, in place of the scenario's rates."),
    ] = None,
    trace_factor: Annotated[float, typer.Option(min=1e-6, help="Times the recorded rates.")] = 1.0,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures there.")] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0 for one a core. They change no figure.")] = 0,
) -> None:
    """Simulate devices, links and servers, and say what answers, bytes and joules come of it."""
    from headwater.simulations.fleet import command

    command.fleet(scenario, devices, hours, seed, trace, trace_factor, json, jobs)


add_learning(app)
add_planning(app)
