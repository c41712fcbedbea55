"""``headwater simulate learning``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.compression.cli import ConfigOption

if TYPE_CHECKING:
    from headwater.simulations.learning.crew import Crew


def add_to(simulate: typer.Typer) -> None:
    """Give `headwater simulate` this command."""
    simulate.command()(learning)


def learning(
    data: Annotated[str, typer.Argument(metavar="DATA", help="What devices learn from: solar, digits or a folder.")],
    *,
    bundle: Annotated[Path, typer.Option(metavar="PATH", help="The bundle that devices begin with.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The simulation's folder, where it goes on.")] = Path(
        "out/learning"
    ),
    devices: Annotated[int | None, typer.Option(help="Virtual devices.")] = None,
    partition: Annotated[
        str | None, typer.Option(help="Who has which images: dirichlet:ALPHA, domain[:TASK[:ALPHA]] or folder.")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(help="Images that each device draws, which others may have too; 0: they are shared out."),
    ] = None,
    widths: Annotated[
        str | None, typer.Option(metavar="WIDTH:SHARE,...", help="What devices have memory for: 0.25:0.3,1.0:0.7.")
    ] = None,
    asleep: Annotated[float | None, typer.Option(help="Share of the devices that is not connected at a time.")] = None,
    slot_s: Annotated[float | None, typer.Option(help="How long they sleep, simulated seconds.")] = None,
    availability: Annotated[
        Path | None, typer.Option(metavar="CSV", help="When each is connected: device,from_s,to_s.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Chance that a device never answers.")] = None,
    stragglers: Annotated[str | None, typer.Option(metavar="SHARE:FACTOR", help="Slow devices: 0.2:5.")] = None,
    hostile: Annotated[
        str | None, typer.Option(metavar="SHARE:KIND", help="Devices that lie: 0.1:sign-flip, scaled or noise.")
    ] = None,
    step_s: Annotated[float | None, typer.Option(help="A step of training on a device, simulated seconds.")] = None,
    rounds: Annotated[int | None, typer.Option(help="How many; with --async, how many versions.")] = None,
    asynchronous: Annotated[bool | None, typer.Option("--async", help="Devices train at their own pace.")] = None,
    buffer: Annotated[int | None, typer.Option(help="Replies that make a version, with --async.")] = None,
    share: Annotated[float | None, typer.Option(help="Of the devices that are awake, how many are wanted.")] = None,
    least: Annotated[int | None, typer.Option(help="Fewest devices that a round begins with.")] = None,
    over: Annotated[float | None, typer.Option(help="Ask so many times more, and go on with the first.")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="A round takes what has come by then, simulated.")] = None,
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
    server_rate: Annotated[float | None, typer.Option(help="How far to go towards the aggregate.")] = None,
    average: Annotated[int | None, typer.Option(help="Versions that the result is a running mean of.")] = None,
    up: Annotated[str | None, typer.Option(metavar="JSON", help="How devices code their updates.")] = None,
    down: Annotated[str | None, typer.Option(metavar="JSON", help="How versions are coded for devices.")] = None,
    aggregator: Annotated[str | None, typer.Option(help="mean, trimmed, median, krum or flag.")] = None,
    expect_hostile: Annotated[
        float | None, typer.Option(help="The share of devices that the aggregator takes for liars.")
    ] = None,
    longest: Annotated[float | None, typer.Option(help="Refuse updates so many times longer than the median.")] = None,
    noise: Annotated[float | None, typer.Option(help="Differential privacy: noise.")] = None,
    clip: Annotated[float | None, typer.Option(help="Differential privacy: longest update.")] = None,
    evaluate_every: Annotated[int | None, typer.Option(help="Rounds after which devices measure; 0: never.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything.")] = None,
    ray_address: Annotated[
        str, typer.Option(metavar="ADDRESS", help="A running Ray cluster: auto, ray://head:10001; none: this machine.")
    ] = "",
    anew: Annotated[bool, typer.Option("--anew", help="Throw away what --out holds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print result.json instead of a summary.")] = False,
    config: ConfigOption = None,
) -> None:
    """Train a fleet of virtual devices: the real ServerApp and ClientApp on Flower's simulation engine, simulated time.

    Killed at any moment, the same command goes on where it was, with the same result. It needs the extra simulate.
    """
    given = dict(locals())
    from dataclasses import fields

    from headwater.compression.settings import resolve
    from headwater.server.federation.settings import RoundSettings
    from headwater.simulations.learning.settings import LearningSettings

    fleet_flags = {f.name: given.get(f.name) for f in fields(LearningSettings)} | {"liars": hostile}
    round_flags = {f.name: given.get(f.name) for f in fields(RoundSettings)} | {"hostile": expect_hostile}
    fleet = resolve(LearningSettings, fleet_flags, file=config).value
    told = resolve(RoundSettings, round_flags, file=config).value
    import ray  # noqa: F401 - say at once that it is missing

    from headwater.simulations.learning.progress import Progress
    from headwater.simulations.learning.run import REPORT, Question, simulate

    with Progress(told.rounds) as progress:
        question = Question(data, bundle, fleet, told)
        result = simulate(question, out, _crew(ray_address, progress), anew=anew, progress=progress)
    typer.echo(_text(result) if as_json else _summary(result, out / REPORT))


def _crew(address: str, progress: Any) -> Callable[[bytes], Crew]:  # noqa: ANN401 - a Progress, imported late
    def make(bundle: bytes) -> Crew:
        from headwater.simulations.learning.crew import Actors

        progress.say(f"starting actors on {'the Ray cluster at ' + address if address else 'this machine'}")
        actors = Actors(bundle, address)
        progress.say(f"{actors.size()} actors on {actors.machines()} machine{'s' * (actors.machines() > 1)}")
        return actors

    return make


def _text(result: dict[str, Any]) -> str:
    import json

    return json.dumps(result, indent=1, sort_keys=True)


def _summary(result: dict[str, Any], report: Path) -> str:
    last = result["rounds"][-1]
    found = last["facts"].get("measured") or last["facts"].get("evaluated") or {}
    accuracy = f", accuracy {found['accuracy']:.1%}" if "accuracy" in found else ""
    up, down = (sum(each[way] for each in result["rounds"]) / 1e6 for way in ("bytes_up", "bytes_down"))
    return (
        f"{len(result['rounds'])} rounds in {last['ended_s'] / 3600:.2f} simulated hours{accuracy}, "
        f"{up:.3g} MB up, {down:.3g} MB down\nresult {result['hash']}\nreport {report}"
    )
