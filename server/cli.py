"""``headwater server``: the edge server's command, a group whose default is to serve."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from headwater.compression.cli import ConfigOption
from headwater.server.access.cli import devices_app
from headwater.server.archive_cli import archive_app
from headwater.server.federation import cli as federation_cli
from headwater.server.federation.pruning import cli as pruning_cli
from headwater.server.rollout import cli as rollout_cli

if TYPE_CHECKING:
    from headwater.server.app import Addresses
    from headwater.server.registry import Registry

app = typer.Typer()
app.add_typer(archive_app, name="archive")
app.add_typer(devices_app, name="devices")
federation_cli.add_to(app)
pruning_cli.add_to(app)
rollout_cli.add_to(app)


@app.callback(invoke_without_command=True)
def server(
    context: typer.Context,
    *,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="A bundle to serve: a directory or a zip. May be given several times."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address of the gRPC service; port 0 takes a free one.")
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address of /metrics, /healthz, /readyz; '' for none.")
    ] = None,
    tls: Annotated[
        bool | None, typer.Option("--tls", help="Ask for certificates on loopback too; beyond it that is always so.")
    ] = None,
    enrol: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where devices enrol; else the port after --listen's.")
    ] = None,
    certificate_days: Annotated[
        float | None, typer.Option(help="How long devices' certificates are valid; they renew them by themselves.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Batches that run at a time; 0 for one a core.")] = None,
    pin: Annotated[
        bool | None, typer.Option("--pin", help="Give each worker a core of its own; for a machine that only serves.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of one batch's inference.")] = None,
    max_batch: Annotated[int | None, typer.Option(help="Frames of one batch at most.")] = None,
    max_wait_ms: Annotated[
        float | None, typer.Option(help="How long a frame may wait for company while another batch runs.")
    ] = None,
    queue: Annotated[int | None, typer.Option(help="Frames that may wait; one more is refused at once.")] = None,
    max_in_flight: Annotated[int | None, typer.Option(help="Frames of one device that may be unanswered.")] = None,
    max_streams: Annotated[int | None, typer.Option(help="Devices that may be connected.")] = None,
    max_greetings_per_s: Annotated[
        int | None, typer.Option(help="Devices that may connect in a second; the others are told when. 0 for any.")
    ] = None,
    max_device_streams: Annotated[int | None, typer.Option(help="Streams that one device may have open.")] = None,
    max_device_calls: Annotated[
        int | None, typer.Option(help="Calls of every kind that one device may have open.")
    ] = None,
    max_device_requests_per_s: Annotated[
        int | None, typer.Option(help="Frames and calls of one device in a second; 0 for any.")
    ] = None,
    max_device_bytes_per_s: Annotated[
        int | None, typer.Option(help="Bytes of one device that are read in a second; 0 for any.")
    ] = None,
    max_device_urgent_per_s: Annotated[
        int | None, typer.Option(help="Frames of one device in a second that go before others'; 0 for any.")
    ] = None,
    max_stream_bytes: Annotated[
        int | None, typer.Option(help="What one stream may hold of waiting frames, and of answers.")
    ] = None,
    max_frame_bytes: Annotated[int | None, typer.Option(help="The largest frame that is looked at.")] = None,
    answer_partial_after_ms: Annotated[
        int | None,
        typer.Option(help="Answer a frame in parts without a deadline so long after its first part; else when whole."),
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Store the frames that devices kept; none are taken otherwise.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="What devices are offered, and who they are: needed to listen beyond loopback."
        ),
    ] = None,
    state_mb: Annotated[
        int | None, typer.Option(help="Megabytes that contents and replies in --state may take.")
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT,...", help="Servers that devices are sent to when this one stops."),
    ] = None,
    heartbeat_ms: Annotated[int | None, typer.Option(help="How often a silent device has to be heard.")] = None,
    grace_s: Annotated[float | None, typer.Option(help="After SIGTERM, time for what is in flight.")] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option(help="Least level that is logged.")
    ] = None,
    log_format: Annotated[
        Literal["json", "text"] | None, typer.Option(help="An object a line, or text for people.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Run the edge server: take frames from devices, answer them with the tails of the bundles.

    It prints one line when it takes work. SIGTERM ends it without losing a frame, SIGHUP reads the bundles again.
    """
    if context.invoked_subcommand is not None:
        return
    given = {**locals(), "peers": tuple(map(str.strip, peers.split(","))) if peers else None}
    import asyncio

    from headwater.compression.settings import resolve
    from headwater.server import app as application
    from headwater.server import logs
    from headwater.server.loop import Loop
    from headwater.server.settings import ServerSettings

    flags = {field.name: given[field.name] for field in fields(ServerSettings)}
    settings = resolve(ServerSettings, flags, file=config).value
    logs.configure(settings.log_level, settings.log_format)
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(application.run(settings, _announce))


def _announce(addresses: "Addresses", registry: "Registry") -> None:
    """Print the line that whoever started the server waits for."""
    http = f"http={addresses.http}" if addresses.http else "http=none"
    tls = f"tls=on enrol={addresses.enrol}" if addresses.enrol else "tls=off"
    typer.echo(f"headwater server ready: grpc={addresses.grpc} {http} {tls} bundles={registry.listing()}")
