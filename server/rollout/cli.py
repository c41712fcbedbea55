"""``headwater server publish``, ``rollback``, ``refresh``, ``versions``: what a roll-out is told, and what it tells."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwater.compression.cli import ConfigOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Manifest
    from headwater.server.rollout.settings import RolloutSettings

StateOption = Annotated[Path | None, typer.Option(metavar="DIR", help="The server's --state.")]
KeyOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Private key to sign with.")]
KeysOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Lists of keys that name it, after `headwater bundle rotate`.")
]
DaysOption = Annotated[float | None, typer.Option(metavar="DAYS", help="How long devices may take the release up.")]
NameOption = Annotated[str | None, typer.Option(help="Of which bundle's name, where there are several.")]


def publish(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="A directory or a zip; with --data, made from the rounds.")
    ] = None,
    *,
    data: Annotated[
        str | None,
        typer.Option(
            help="Build a bundle from what rounds have learnt, measured on solar, digits or a folder; with a BUNDLE, "
            "the images that it was measured on, for the one in use where that was measured on others."
        ),
    ] = None,
    parent: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The bundle that they began from, if the server has it no more.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="Keep what was built there, too.")] = None,
    state: StateOption = None,
    key: KeyOption = None,
    key_lists: KeysOption = None,
    valid_days: DaysOption = None,
    max_regression: Annotated[
        float | None, typer.Option(metavar="POINTS", help="Of accuracy that a task may lose in any mode.")
    ] = None,
    max_growth: Annotated[
        float | None, typer.Option(metavar="PERCENT", help="That a mode's mean frame may grow.")
    ] = None,
    canary: Annotated[float | None, typer.Option(metavar="SHARE", help="Of the devices, first; 1 for all.")] = None,
    canary_frames: Annotated[int | None, typer.Option(help="Frames answered before it goes further.")] = None,
    max_fall: Annotated[
        float | None, typer.Option(metavar="POINTS", help="That agreement or confidence may fall in the field.")
    ] = None,
    max_failures: Annotated[
        float | None, typer.Option(metavar="POINTS", help="That the share of failed frames may rise there.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Release a bundle, or what rounds have learnt, to the devices: a few first, all if it does well, none if not.

    It is refused if it is worse on held-out images than the bundle in use. A server that runs with the same --state
    does the rest; so does one that is started later.
    """
    given = dict(locals())
    from headwater.server.rollout import publish as publishing

    settings, folder = _settings(given, config), _state(state, config)
    signer = settings.signer
    new, again = _new(bundle, folder, data, parent)
    if out is not None:
        new.save(out)
    done = publishing.publish(folder, new, signer, settings.rules, settings.bounds, again=again)
    release, passed = done.release, done.passed
    typer.echo(f"release {release.serial}: {release.name} {new.short_id} for {_reach(release.stage, release.share)}")
    if passed is None:
        typer.echo("there was no bundle of that name to compare with, and there is none to go back to")
    else:
        typer.echo(
            f"against the one before: {_signed(passed.mean)} points in the mean, {_signed(-passed.worst)} at worst, "
            f"frames {_signed(passed.growth)} %"
        )
    typer.echo(f"next: headwater server versions --state {folder}; headwater server rollback --state {folder}")


def rollback(
    *,
    state: StateOption = None,
    name: NameOption = None,
    to: Annotated[str | None, typer.Option(metavar="ID", help="An earlier bundle; needs the key.")] = None,
    reason: Annotated[str, typer.Option(help="For the record.")] = "by hand",
    key: KeyOption = None,
    key_lists: KeysOption = None,
    valid_days: DaysOption = None,
    config: ConfigOption = None,
) -> None:
    """Have all devices use the bundle before the one that was released last, or any earlier one."""
    from headwater.server.rollout import publish as publishing

    folder = _state(state, config)
    if to is None:
        back = publishing.roll_back(folder, reason, name)
    else:
        signer = _settings({"key": key, "key_lists": key_lists, "valid_days": valid_days}, config).signer
        back = publishing.roll_back_to(folder, to, signer, reason)
    typer.echo(f"release {back.serial}: back to {back.name} {back.bundle[:5].hex()}")


def refresh(
    *,
    state: StateOption = None,
    name: NameOption = None,
    key: KeyOption = None,
    key_lists: KeysOption = None,
    valid_days: DaysOption = None,
    config: ConfigOption = None,
) -> None:
    """Sign the release in force anew, before its time is over or after a change of keys; no bundle changes."""
    from datetime import UTC, datetime

    from headwater.server.rollout import publish as publishing

    signer = _settings({"key": key, "key_lists": key_lists, "valid_days": valid_days}, config).signer
    found = publishing.refresh(_state(state, config), signer, name)
    until = datetime.fromtimestamp(found.expires, UTC)
    typer.echo(f"release {found.serial}: {found.name} {found.bundle[:5].hex()}, until {until:%Y-%m-%d %H:%M} UTC")


def versions(
    *,
    state: StateOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: ConfigOption = None,
) -> None:
    """Show the bundles, the releases, and how each did in the field."""
    from headwater.server.rollout.show import as_plain, tables
    from headwater.server.rollout.versions import Versions

    with Versions.existing(_state(state, config)) as found:
        if as_json:
            import json

            typer.echo(json.dumps(as_plain(found), indent=2, ensure_ascii=False))
            return
        from rich.console import Console

        console = Console()
        for table in tables(found):
            console.print(table)


def add_to(app: typer.Typer) -> None:
    """Make these commands of ``headwater server``."""
    for command in (publish, rollback, refresh, versions):
        app.command()(command)


def _signed(change: float) -> str:
    return f"{round(change, 2) + 0.0:+.2f}"  # without a minus before zero


def _new(
    bundle: Path | None, state: Path, data: str | None, parent: Path | None
) -> tuple["Bundle", "Callable[[Bundle], Manifest] | None"]:
    """The bundle that is given, or that of the rounds, and then how to measure another on the same images."""
    from headwater.compression.bundle import Bundle
    from headwater.compression.errors import SettingsError

    if data is None:
        if bundle is None:
            raise SettingsError("name a BUNDLE, or the images (--data) that one is built by from what rounds learnt.")
        return Bundle.load(bundle), None
    from datetime import UTC, datetime
    from functools import partial

    from headwater.server.rollout.build import images_of, measured_on, of_rounds

    if bundle is not None:
        return Bundle.load(bundle), lambda old: measured_on(old, images_of(old, data))
    began = None if parent is None else Bundle.load(parent)
    made = of_rounds(state, data, created=datetime.now(UTC).isoformat(timespec="seconds"), parent=began)
    return made.bundle, partial(measured_on, images=made.images)


def _reach(stage: str, share: float) -> str:
    return "all devices" if stage == "everyone" else f"{share:.0%} of the devices at first"


def _settings(given: dict[str, Any], config: Path | None) -> "RolloutSettings":
    from headwater.compression.settings import resolve
    from headwater.server.rollout.settings import RolloutSettings

    flags = {field.name: given[field.name] for field in fields(RolloutSettings) if field.name in given}
    return resolve(RolloutSettings, flags, file=config).value


def _state(state: Path | None, config: Path | None) -> Path:
    from headwater.compression.errors import SettingsError
    from headwater.compression.settings import resolve
    from headwater.server.settings import ServerSettings

    found = resolve(ServerSettings, {"state": state}, file=config).value.state
    if found is None:
        raise SettingsError("no state is set; give the --state DIR that the server has.")
    return found
