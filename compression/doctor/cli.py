"""``headwater doctor``: look at this machine, and at the device or server that is set up on it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.compression.cli import ConfigOption

if TYPE_CHECKING:
    from headwater.compression.doctor.finding import Findings

EXAMINATIONS = "headwater.examinations"
"""Entry points of what can be looked at: functions of the findings, the flags and the configuration file."""

app = typer.Typer()


@app.command()
def doctor(
    what: Annotated[
        str, typer.Argument(metavar="[device|server]", help="What to look at; if not said, what is configured here.")
    ] = "",
    *,
    state: Annotated[Path | None, typer.Option(metavar="DIR", help="Its --state.")] = None,
    bundle: Annotated[Path | None, typer.Option(metavar="PATH", help="Its --bundle.")] = None,
    server: Annotated[
        str | None, typer.Option(metavar="HOST:PORT,...", help="A device's: where its servers are.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="A device's: where its pictures come from.")] = None,
    trusted_key: Annotated[
        Path | None, typer.Option(metavar="FILE.pub", help="A device's: whose releases it takes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: ConfigOption = None,
) -> None:
    """Find what is wrong with a device or a server, and say what to do.

    It looks at clock, permissions, versions, bundle and release, certificate, link, camera, space, and at what slows
    the processor down. It changes nothing, and what it looks at may run meanwhile. The exit status is 1 if anything is
    wrong; doubtful things do not count.
    """
    from headwater.compression.doctor import machine
    from headwater.compression.doctor.finding import Findings

    given = {"state": state, "bundle": bundle, "server": server, "source": source, "trusted_key": trusted_key}
    flags = {key: value for key, value in given.items() if value is not None}
    findings = Findings()
    machine.clock(findings)
    machine.versions(findings)
    machine.throttling(findings)
    for name in [what] if what else _configured(config, flags):
        _examination(name, flags)(findings, flags, config)
    (_print_json if as_json else _print)(findings)
    raise typer.Exit(1 if findings.state == "wrong" else 0)


def _configured(config: Path | None, flags: dict[str, Any]) -> list[str]:
    """What the configuration says anything of."""
    from headwater.compression import settings
    from headwater.compression.errors import SettingsError

    if flags:
        flag = next(iter(flags)).replace("_", "-")
        raise SettingsError(f"whose --{flag} is that? Say `headwater doctor device` or `headwater doctor server`.")
    sections = settings.registered_sections()
    resolved = {name: settings.resolve(sections[name], file=config) for name in _examinations() if name in sections}
    return [name for name, one in resolved.items() if any(origin.layer != "default" for origin in one.origin.values())]


def _examinations() -> list[str]:
    from importlib.metadata import entry_points

    return sorted(point.name for point in entry_points(group=EXAMINATIONS))


def _examination(name: str, flags: dict[str, Any]) -> Any:  # noqa: ANN401 - of another package
    from dataclasses import fields
    from importlib.metadata import entry_points

    from headwater.compression.errors import SettingsError
    from headwater.compression.settings import registered_sections

    for point in entry_points(group=EXAMINATIONS, name=name):
        keys = {field.name for field in fields(registered_sections()[name])}
        if lacking := [f"--{key.replace('_', '-')}" for key in flags if key not in keys]:
            raise SettingsError(f"a {name} has no {' and no '.join(lacking)}; leave that out.")
        return point.load()
    raise SettingsError(f"there is no {name} to look at; there are {' and '.join(_examinations())}.")


def _print_json(findings: "Findings") -> None:
    from dataclasses import asdict

    typer.echo(json.dumps({"state": findings.state, "findings": [asdict(each) for each in findings.all]}, indent=2))


def _print(findings: "Findings") -> None:
    colours = {"well": "green", "doubtful": "yellow", "wrong": "red"}
    for each in findings.all:
        typer.echo(f"{typer.style(f'{each.state:9}', fg=colours[each.state])} {each.check:12} {each.found}")
        if each.remedy:
            typer.echo(f"{'':23}-> {each.remedy}")
    count = sum(each.state != "well" for each in findings.all)
    typer.echo(f"{count} of {len(findings.all)} to be looked after" if count else "nothing is wrong")
