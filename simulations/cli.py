"""``headwater simulate``: a fleet on one machine, before buying it."""

from pathlib import Path
from typing import Annotated

import typer

from headwater.simulations.fleet.planning_cli import BundleOption, JobsOption, with_bundle
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
    bundle: BundleOption = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures there.")] = None,
    jobs: JobsOption = 0,
) -> None:
    """Simulate devices, links and servers, and say what answers, bytes and joules come of it."""
    from headwater.simulations.fleet import command
    from headwater.simulations.fleet.scenario import Scenario

    played = with_bundle(Scenario.load(scenario), bundle)
    command.fleet(command.changed(played, devices, hours, seed, trace, trace_factor), json, jobs)


@app.command()
def calibrate(
    bundle: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A model bundle; the shipped solar model if not given.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Whose test pictures are sent: solar, digits or a folder; the bundle's own."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="Of each of three runs.")] = 20.0,
    devices: Annotated[int, typer.Option(min=1, max=64, help="Real ones, side by side on this machine.")] = 2,
    fps: Annotated[float, typer.Option(min=0.1, max=100, help="Pictures a second of each.")] = 5.0,
    link: Annotated[str, typer.Option(metavar="NAME", help="Ready link of the run that is checked.")] = "wifi",
    deadline_ms: Annotated[int, typer.Option(min=1, max=3_600_000, help="Of that run.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the pictures' order and the link's weather.")] = 0,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the calibration goes.")] = Path("calibration.toml"),
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with both distributions.")] = None,
    work: Annotated[Path, typer.Option(metavar="FOLDER", help="Where pictures, records and logs go.")] = Path(
        "out/calibrate"
    ),
) -> None:
    """Run real devices and a server here, measure what their frames take, and show how well the simulation foretells.

    The devices' last run, on the link that is asked for, is replayed by the simulation with what was measured before;
    both distributions of answer times are printed, and the errors.
    """
    from headwater.simulations.fleet import calibrate as calibrating
    from headwater.simulations.shipped import shipped_bundle

    path = bundle or shipped_bundle()
    options = calibrating.Options(path, source, seconds, devices, fps, link, deadline_ms, seed, work)
    calibrating.run(options, out, report)


add_learning(app)
add_planning(app)
