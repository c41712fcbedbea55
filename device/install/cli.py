"""``headwater device install`` and ``uninstall``."""

from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

RootOption = Annotated[
    Path, typer.Option("--root", metavar="DIR", help="The root of an image to do it in, instead of this system.")
]


def add_to(app: typer.Typer) -> None:
    """Give ``headwater device`` its commands for the service."""
    app.command()(install)
    app.command()(uninstall)


def install(
    bundle: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The model bundle; it is copied. Needed the first time.")
    ] = None,
    server: Annotated[str | None, typer.Option(metavar="HOST:PORT,...", help="Addresses of the edge server.")] = None,
    source: Annotated[str | None, typer.Option(metavar="WHAT", help="Where pictures come from (camera).")] = None,
    fps: Annotated[float | None, typer.Option(help="Pictures a second.")] = None,
    deadline_ms: Annotated[int | None, typer.Option(help="Time from a picture to its answer.")] = None,
    name: Annotated[str | None, typer.Option(help="The device's name; the machine's own if not given.")] = None,
    program: Annotated[
        str | None, typer.Option(metavar="PATH", help="The command headwater that the service runs; this one.")
    ] = None,
    root: RootOption = Path("/"),
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start it now.")] = True,
) -> None:
    """Install the agent as a service of systemd that starts with the machine, with a user of its own.

    The flags are what its settings begin with, /etc/headwater/headwater.toml; settings that are there already are left
    as they are, and the unit is fitted to them.
    """
    from headwater.device.install import service
    from headwater.device.install.layout import Root

    given = {
        "server": [word.strip() for word in server.split(",")] if server else None,
        "source": source,
        "fps": fps,
        "deadline_ms": deadline_ms,
        "name": name,
    }
    path = PurePosixPath(program) if program else None
    for line in service.install(Root(root.absolute()), path, bundle, given, start=start):
        typer.echo(line)


def uninstall(
    root: RootOption = Path("/"),
    keep_state: Annotated[
        bool,
        typer.Option("--keep-state", help="Leave /var/lib/headwater: the device's key, and frames it still keeps."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take the service out again, with its user, its settings and its state; nothing is left."""
    from headwater.device.install import service
    from headwater.device.install.layout import STATE, Root

    place = Root(root.absolute())
    if not (yes or keep_state) and place(STATE).exists():
        typer.confirm(
            f"{place(STATE)} goes too: the device's key, and frames that no server has yet. Go on?", abort=True
        )
    for line in service.uninstall(place, keep_state=keep_state):
        typer.echo(line)
