"""The command ``headwater``: one root, sub-commands found by the entry-point group ``headwater.commands``.

A sub-command is a :class:`typer.Typer` app that its folder registers (``device = "headwater.device.cli:app"``), so that
this module names neither end, and a package beside headwater can add one of its own. It is imported when it is called
or listed, so its module must import quickly: what a command runs is imported inside its function.

:func:`main` is where an error becomes a message: a :class:`HeadwaterError` prints as one paragraph on stderr and ends
with status 2 if a setting or flag is wrong and 1 otherwise; so does a file that cannot be read or written, by its name;
a missing optional package names the extra that has it.
``HEADWATER_DEBUG=1`` shows the traceback instead.
"""

import inspect
import json
import os
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from headwater.compression import settings
from headwater.compression.errors import HeadwaterError, SettingsError

ENTRY_POINTS = "headwater.commands"

_MODULE_OF = {"opencv-python-headless": "cv2", "scikit-learn": "sklearn"}
"""Packages that are imported by another name than their own."""

_COMPLETION = {"install_completion", "show_completion"}
"""Flags that typer gives every app; only the root's make sense."""

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="PATH",
        help="Configuration file (TOML). Default: ./headwater.toml, then ~/.config/headwater/config.toml.",
    ),
]
"""The flag ``--config`` of every command with settings; pass its value to ``resolve(..., file=config)``."""


class _Commands(TyperGroup):
    """Commands of this module and, imported one by one when they are asked for, those of the entry points."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - typer's context class has moved between versions
        return sorted({*super().list_commands(ctx), *_entry_points()})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - the same
        point = _entry_points().get(cmd_name)
        if point is None:
            own = super().get_command(ctx, cmd_name)
            if own is None:  # typer suggests one of the commands that it holds, so let it hold them all
                self.commands.update((name, self.get_command(ctx, name)) for name in _entry_points())
            return own
        command = typer.main.get_command(_load(point))
        command.name = cmd_name
        command.params = [param for param in command.params if param.name not in _COMPLETION]
        _flow(command)
        return command


def _flow(command: Any) -> None:  # noqa: ANN401 - one of typer's, or of click's that it holds
    """Have the help of a command and of its own commands flow: typer keeps the line breaks of the source."""
    command.help = re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(command.help or "")) or None
    for each in getattr(command, "commands", {}).values():
        _flow(each)


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_show_locals=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headwater {metadata.version('headwater')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """One neural network in two places: its head on a small device, its tail on an edge server.

    Settings come from flags, HEADWATER_* variables, a TOML file and defaults, in this order: see `headwater config`.
    """


@app.command()
def config(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Print the effective settings of every section, and where each came from."""
    sections = settings.registered_sections()
    resolved = {name: settings.resolve(section, file=config) for name, section in sections.items()}
    if as_json:
        typer.echo(json.dumps({name: _as_json(section) for name, section in resolved.items()}, indent=2))
        return
    console = Console()
    file = settings.find_file(os.environ, config)
    console.print(f"Configuration file: {file or 'none'}", highlight=False, soft_wrap=True)
    for name, section in resolved.items():
        console.print(_table(name, section))


def _as_json(resolved: settings.Resolved[Any]) -> dict[str, dict[str, object]]:
    return {
        key: {"value": _plain(getattr(resolved.value, key)), "layer": origin.layer, "where": origin.where}
        for key, origin in resolved.origin.items()
    }


def _plain(value: object) -> object:
    """Turn a setting into what TOML or JSON would hold."""
    return (
        [_plain(item) for item in value]
        if isinstance(value, tuple)
        else str(value)
        if isinstance(value, Path)
        else value
    )


def _table(name: str, resolved: settings.Resolved[Any]) -> Table:
    texts = settings.descriptions(type(resolved.value))
    table = Table(
        "key", "value", "from", "meaning", title=Text(f"[{name}]", "bold"), title_justify="left", box=SIMPLE_HEAD
    )
    for key, origin in resolved.origin.items():
        value = _plain(getattr(resolved.value, key))
        shown = "" if value is None else value if isinstance(value, str) else json.dumps(value)
        style = "" if origin.layer == "default" else "bold"
        table.add_row(
            Text(key, style), Text(shown, style), Text(str(origin), style), Text(" ".join(texts.get(key, "").split()))
        )
    return table


def main() -> None:
    """Run the command line; the entry point of the script ``headwater``."""
    # gRPC's own lines, one for each failed handshake, are no part of any log format here, and anybody can cause them.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        app(prog_name="headwater")
    except (HeadwaterError, ModuleNotFoundError, OSError) as error:
        message = _message(error)
        if message is None or os.environ.get("HEADWATER_DEBUG") == "1":
            raise
        Console(stderr=True).print(Text("error: ", "bold red") + Text(" ".join(message.split())), soft_wrap=True)
        sys.exit(2 if isinstance(error, SettingsError) else 1)


def _message(error: HeadwaterError | ModuleNotFoundError | OSError) -> str | None:
    """What to tell whoever typed the command; None where it is a fault, whose traceback helps."""
    match error:
        case ModuleNotFoundError():
            return _missing_module(error)
        case OSError(filename=str() | bytes() | os.PathLike() as path, strerror=str() as reason):
            return f"{os.fsdecode(path)}: {reason}"
        case OSError():
            return None
    return str(error)


def _missing_module(error: ModuleNotFoundError) -> str | None:
    """Say which extra has the module, or None where no extra has it: then it is a fault, and its traceback helps."""
    module = (error.name or "").partition(".")[0]
    extras = _extras().get(module)
    if not extras:
        return None
    return f"it needs the package {module}, which is not installed; pip install 'headwater[{extras[0]}]' brings it."


def _extras() -> dict[str, list[str]]:
    """Map every optional module to the extras that bring it, in the order of the package's metadata."""
    found: dict[str, list[str]] = {}
    for requirement in metadata.requires("headwater") or ():
        match = re.fullmatch(r"""([A-Za-z0-9._-]+).*extra == ['"](\w+)['"].*""", requirement)
        if match and match[2] != "dev":
            package = match[1].lower()
            found.setdefault(_MODULE_OF.get(package, package.replace("-", "_")), []).append(match[2])
    return found


def _entry_points() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}


def _load(point: metadata.EntryPoint) -> typer.Typer:
    """Import a sub-command; one that lacks a package is listed as such and fails when it is called."""
    try:
        app: typer.Typer = point.load()
    except ModuleNotFoundError as error:
        return _unavailable(error)
    return app


def _unavailable(error: ModuleNotFoundError) -> typer.Typer:
    app = typer.Typer()

    @app.command(
        help=f"Not available: {_missing_module(error) or error}",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def fail() -> None:
        raise error

    return app


if __name__ == "__main__":
    main()
