"""``headwater server devices``: tokens for new devices, and which devices there are; while the server runs or not."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.compression.cli import ConfigOption

if TYPE_CHECKING:
    from rich.table import Table

    from headwater.server.access.register import Entry

devices_app = typer.Typer(help="Let devices in, list, rename and revoke them.", no_args_is_help=True)

StateOption = Annotated[Path | None, typer.Option(metavar="DIR", help="The server's --state.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of a device, as `ls` shows it.")]


@devices_app.command()
def token(
    *,
    name: Annotated[
        str | None, typer.Option(help="What the device will be called; one that is there is enrolled again.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Where devices reach the enrolment, if not where it listens.")
    ] = None,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Print a token for one device, good for 15 minutes; it is shown this once, and only its hash is kept."""
    from headwater.compression.enrolment import DEFAULT_PORT, Token
    from headwater.server.access import tokens
    from headwater.server.access.access import ENROL_PORT, FRAMES_PORT
    from headwater.server.access.authority import Authority
    from headwater.server.access.register import Register

    folder = _state(state, config)
    authority = Authority.open(folder)
    with Register.open(folder) as register:
        made = Token(port or _port(register.fact(ENROL_PORT)), authority.pin, tokens.mint(register, name))
        frames_port = int(register.fact(FRAMES_PORT) or DEFAULT_PORT)
    typer.echo(made.text())
    who = f"for {name}" if name else "for one device"
    host = "HOST" if frames_port == DEFAULT_PORT else f"HOST:{frames_port}"
    typer.echo(
        f"good {who}, once, for {tokens.LIFE_S / 60:g} minutes; on the device: headwater device enroll --server {host}",
        err=True,
    )


@devices_app.command("ls")
def list_devices(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON line for each.")] = False,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Print every device that was enrolled: whether its certificate is in force, until when, and when it was seen."""
    from rich.console import Console

    from headwater.server.access.register import Register

    with Register.open(_state(state, config)) as register:
        entries = register.entries()
    if not as_json:
        Console().print(_table(entries))
        return
    for entry in entries:
        typer.echo(json.dumps({**vars(entry), "standing": entry.standing.name.lower()}))


@devices_app.command()
def revoke(name: NameArgument, *, state: StateOption = None, config: ConfigOption = None) -> None:
    """Let a device in no more, from this moment on; a server that runs closes what it holds open."""
    from headwater.server.access.access import tell
    from headwater.server.access.register import Register

    folder = _state(state, config)
    with Register.open(folder) as register:
        ended = register.revoke(name)
    tell(folder)
    typer.echo(f"{name} is revoked" if ended else f"{name} had no certificate in force")


@devices_app.command()
def rename(
    old: NameArgument,
    new: Annotated[str, typer.Argument(metavar="NEW", help="What it is called from now on.")],
    *,
    state: StateOption = None,
    config: ConfigOption = None,
) -> None:
    """Call a device something else, at once; its certificate says so from its next renewal on."""
    from headwater.server.access.access import tell
    from headwater.server.access.register import Register

    folder = _state(state, config)
    with Register.open(folder) as register:
        register.rename(old, new)
    tell(folder)
    typer.echo(f"{old} is {new} now")


def _state(given: Path | None, config: Path | None) -> Path:
    from headwater.compression.errors import SettingsError
    from headwater.compression.settings import resolve
    from headwater.server.settings import ServerSettings

    state = resolve(ServerSettings, {"state": given}, file=config).value.state
    if state is None:
        raise SettingsError("no state is set; give --state DIR, the server's own.")
    return state


def _port(noted: str | None) -> int:
    from headwater.compression.errors import SettingsError

    if noted is None:
        raise SettingsError(
            "no server has let devices enrol with this state yet; start `headwater server --listen 0.0.0.0:50051` with "
            "it, or say where devices will find the enrolment with --port."
        )
    return int(noted)


def _table(entries: "list[Entry]") -> "Table":
    from rich.table import Table

    table = Table("device", "certificate", "until", "last seen", "number")
    for entry in entries:
        standing = entry.standing.name.lower().replace("_", " ")
        seen = "never" if entry.seen is None else _when(entry.seen)
        table.add_row(entry.name, standing, _when(entry.expires), seen, entry.serial[:12])
    return table


def _when(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M}"
