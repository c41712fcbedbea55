"""``headwater server federate`` and ``headwater server rounds``."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.compression.cli import ConfigOption

if TYPE_CHECKING:
    from headwater.compression.bundle import Bundle
    from headwater.server.federation.versions import Learnt


def add_to(server: typer.Typer) -> None:
    """Give `headwater server` these commands."""
    server.command()(federate)
    server.command()(rounds)


StateOption = Annotated[Path | None, typer.Option(metavar="DIR", help="The server's --state.")]


def federate(
    *,
    state: StateOption = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The bundle that the devices use, if the server has several.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Measure each version on these images, which no device has: solar, digits or a folder."),
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="How many; with --async, how many versions.")] = None,
    asynchronous: Annotated[
        bool | None, typer.Option("--async", help="Devices train at their own pace; every --buffer replies count.")
    ] = None,
    buffer: Annotated[int | None, typer.Option(help="Replies that make a version, with --async.")] = None,
    share: Annotated[float | None, typer.Option(help="Of the devices that are there, how many are wanted.")] = None,
    least: Annotated[int | None, typer.Option(help="Fewest devices that a round begins with.")] = None,
    over: Annotated[float | None, typer.Option(help="Ask so many times more, and go on with the first.")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="A round takes what has come by then.")] = None,
    width: Annotated[float | None, typer.Option(help="The widest sub-network that a device may train.")] = None,
    part: Annotated[str | None, typer.Option(help="all, or head: only the part before the split.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over a device's images in a round.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images in a step.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="Of the devices: scaled, sgd, or adam, in more memory.")] = None,
    rate: Annotated[float | None, typer.Option(help="Step size on the device, in the first round.")] = None,
    decay: Annotated[float | None, typer.Option(help="What it is multiplied by after each round.")] = None,
    distil: Annotated[float | None, typer.Option(help="Weight of what narrow widths learn from wider ones.")] = None,
    logit_adjustment: Annotated[
        float | None, typer.Option(help="How much of the skew of a device's labels is taken out of its loss.")
    ] = None,
    sparse: Annotated[
        float | None,
        typer.Option(metavar="DENSITY", help="Keep this share of the weights active: less memory, fewer bytes."),
    ] = None,
    server_rate: Annotated[float | None, typer.Option(help="How far to go towards the aggregate.")] = None,
    average: Annotated[int | None, typer.Option(help="Versions that the result is a running mean of.")] = None,
    up: Annotated[
        str | None,
        typer.Option(metavar="JSON", help='How devices code, such as \'{"values": "factors", "keep": 0.05}\'.'),
    ] = None,
    down: Annotated[str | None, typer.Option(metavar="JSON", help="How versions are coded for devices.")] = None,
    aggregator: Annotated[str | None, typer.Option(help="mean, trimmed, median, krum or flag.")] = None,
    hostile: Annotated[float | None, typer.Option(help="The share of devices that may lie.")] = None,
    longest: Annotated[
        float | None, typer.Option(help="Refuse an update so many times longer than the median of its round.")
    ] = None,
    noise: Annotated[
        float | None, typer.Option(help="Differential privacy: noise, in units of what one device can add.")
    ] = None,
    clip: Annotated[float | None, typer.Option(help="Differential privacy: longest update.")] = None,
    evaluate_every: Annotated[
        int | None, typer.Option(help="Rounds after which devices measure on their own images; 0 for never.")
    ] = None,
    publish: Annotated[
        bool,
        typer.Option("--publish", help="Then build a bundle with --data and release it, as `publish` does."),
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Of the choice of devices and of their training.")] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Leave an unfinished run and what was learnt; begin from the bundle.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Run federated rounds over the devices that are connected to the server of --state.

    Killed at any moment, the same command goes on where it was. The server itself may be stopped and started meanwhile.
    """
    given = dict(locals())
    from headwater.compression.errors import SettingsError
    from headwater.compression.settings import resolve
    from headwater.server.federation.settings import RoundSettings

    if publish and data is None:
        raise SettingsError(
            "--publish measures the new bundle: give --data with images of the server's own, solar, digits or a folder"
        )
    flags = {field.name: given.get(field.name) for field in fields(RoundSettings)}
    settings = resolve(RoundSettings, flags, file=config).value
    import logging

    from headwater.compression.background import give_way
    from headwater.server.federation.app import federate as run
    from headwater.server.federation.app import rounds_of
    from headwater.server.federation.strategy import Surroundings

    logging.getLogger("flwr").setLevel(logging.WARNING)
    give_way()
    folder = _state(state, config)
    learning = _bundle(bundle, folder, config)
    around = Surroundings(ended=lambda number: _say_round(folder, number, settings.rounds))
    prepared = rounds_of(learning, folder, settings, data=data, anew=anew, around=around)
    typer.echo(
        f"rounds of {learning.manifest.name} {learning.short_id} over the devices of {folder}; "
        f"watch: headwater server rounds --watch --state {folder}"
    )
    _say(run(prepared, folder), folder, settings.noise)
    if publish:
        from headwater.server.rollout.cli import publish as released

        released(data=data, parent=bundle, state=folder, config=config)


def _say_round(state: Path, number: int, rounds: int) -> None:
    """One line of a round that has ended, for a terminal as for a log."""
    from headwater.server.federation.survey import survey
    from headwater.server.federation.view import line

    (round_,) = [each for each in survey(state, devices=False).rounds if each.round == number]
    typer.echo(line(round_, rounds))


def _say(learnt: Learnt, state: Path, noise: float) -> None:
    typer.echo(f"run {learnt.run} has ended after round {learnt.round} with version {learnt.version}")
    if noise:
        from headwater.server.federation.privacy import Privacy

        epsilon = Privacy(noise, 1.0).epsilon(learnt.round, 1e-5)
        typer.echo(f"privacy: epsilon {epsilon:.2f} at delta 1e-5 for a device that took part in every round")
    typer.echo(
        f"next: headwater server rounds --report rounds.html --state {state}; "
        f"headwater server publish --data ... --state {state}"
    )


def _state(state: Path | None, config: Path | None) -> Path:
    """The folder that is given, or the server's."""
    from headwater.compression.errors import SettingsError
    from headwater.compression.settings import resolve
    from headwater.server.settings import ServerSettings

    found = resolve(ServerSettings, {"state": state}, file=config).value.state
    if found is None:
        raise SettingsError("rounds need the folder that the server keeps its state in: give --state DIR")
    return found


def _bundle(bundle: Path | None, state: Path, config: Path | None) -> Bundle:
    """The bundle that is given, the server's only one, or the one that devices of this folder's server use."""
    from headwater.compression.bundle import Bundle
    from headwater.compression.errors import SettingsError
    from headwater.compression.settings import resolve
    from headwater.server.rollout.versions import Versions
    from headwater.server.settings import ServerSettings

    served = (bundle,) if bundle else resolve(ServerSettings, {}, file=config).value.bundle
    if len(served) == 1:
        return Bundle.load(served[0])
    with Versions(state) as versions:
        names = {one.name for one in versions.all()}
        if len(names) == 1 and (found := versions.in_use(names.pop())) is not None:
            return found
    raise SettingsError(f"rounds are of one bundle, and the server has {len(names)}: give --bundle PATH")


def rounds(
    *,
    state: StateOption = None,
    run: Annotated[int | None, typer.Option(help="Which run; the last one if not given.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it as it goes, until the run ends.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report with curves, one HTML file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON instead.")] = False,
    config: ConfigOption = None,
) -> None:
    """Show the rounds of a run: how far it is, what it brought, who was waited for, who was refused and why."""
    import time

    from rich.console import Console

    from headwater.server.federation.report import write_report
    from headwater.server.federation.survey import survey
    from headwater.server.federation.view import follow, shown

    folder = _state(state, config)
    if watch:
        follow(lambda: survey(folder, run), Console())
    found = survey(folder, run)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    elif not watch and report is None:
        Console().print(shown(found, time.time()))
    if report is not None:
        write_report(found, report)
        typer.echo(f"wrote {report}")
