"""``headwater device``: the agent's command, a group whose default is to run it."""

import json
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headwater.compression.cli import ConfigOption
from headwater.device.install import cli as install_cli
from headwater.device.radio import RadioKind

if TYPE_CHECKING:
    from headwater.device.settings import DeviceSettings

app = typer.Typer()
install_cli.add_to(app)

BundleOption = Annotated[
    Path | None, typer.Option(metavar="PATH", help="The model bundle: a directory or a zip. The server has the same.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def device(
    context: typer.Context,
    *,
    bundle: BundleOption = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT,...", help="Addresses of the edge server; of several, one after the other."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="A folder or file, solar, digits, camera:N, /dev/videoN, http://..., rtsp://..., or - for JPEG or PNG "
            "pictures on standard input.",
        ),
    ] = None,
    once: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="Answer this one picture and exit, instead of a source.")
    ] = None,
    wait_for_source: Annotated[
        bool | None, typer.Option("--wait-for-source", help="Wait for a camera or stream that is not there yet.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Pictures a second; as many as are answered if not given.")] = None,
    count: Annotated[int | None, typer.Option(help="Stop after so many pictures.")] = None,
    repeat: Annotated[
        bool | None, typer.Option("--repeat", help="Begin a folder or data set again at its end.")
    ] = None,
    width: Annotated[float | None, typer.Option(help="Use only this width; a rule picks it otherwise.")] = None,
    gain: Annotated[int | None, typer.Option(help="Use only this gain, 0 for the fewest bytes.")] = None,
    deadline_ms: Annotated[
        int | None,
        typer.Option(help="Time from a picture to its answer; the local exit answers if the server does not."),
    ] = None,
    level: Annotated[
        float | None,
        typer.Option(help="Least probability of the server's answer by then, where no exit can step in (0.99)."),
    ] = None,
    objective: Annotated[
        Literal["accuracy", "bytes", "energy"] | None,
        typer.Option(help="What to make the best of; bytes and energy stay within --slack of the most accurate."),
    ] = None,
    slack: Annotated[
        float | None, typer.Option(metavar="POINTS", help="Of accuracy that they may give up (1).")
    ] = None,
    max_bytes_per_s: Annotated[
        float | None, typer.Option(help="Bytes that may be sent a second, headers included.")
    ] = None,
    radio: Annotated[
        RadioKind | None, typer.Option(help="What energy prices a byte by (wifi); none is a cable.")
    ] = None,
    compute_watts: Annotated[
        float | None, typer.Option(help="What computing adds to the idle board, for energy (1).")
    ] = None,
    prefer: Annotated[
        str | None, typer.Option(metavar="TASK=WEIGHT,...", help="Which task's accuracy counts how much.")
    ] = None,
    progressive: Annotated[
        bool | None,
        typer.Option("--progressive", help="Send long frames in parts: by the deadline what came is answered."),
    ] = None,
    progressive_bytes: Annotated[
        int | None, typer.Option(help="Only frames of more bytes than this are sent in parts.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="Answer confident frames on the device, as many as may be if so much accuracy is lost.",
        ),
    ] = None,
    whole_model: Annotated[
        bool | None,
        typer.Option("--whole-model", help="Load the whole model too, and answer with it here where that is better."),
    ] = None,
    exit_score: Annotated[
        Literal["softmax", "energy"] | None, typer.Option(help="What confidence is measured by there.")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option(help="Tasks to ask for, separated by commas; all with labels if not given."),
    ] = None,
    save_images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the pictures of a task such as reconstruct go.")
    ] = None,
    records: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append a JSON line a frame to this file.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The device's name; the machine's own if not given.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the head's inference.")] = None,
    window: Annotated[int | None, typer.Option(help="Frames that may be unanswered.")] = None,
    retry_s: Annotated[float | None, typer.Option(help="Longest pause between two attempts to connect.")] = None,
    keep: Annotated[
        Literal["none", "unanswered", "all"] | None,
        typer.Option(help="Frames to keep on disk until a server stores them: those that no server answered, or all."),
    ] = None,
    spool: Annotated[Path | None, typer.Option(metavar="FILE", help="What they are kept in.")] = None,
    spool_max_mib: Annotated[
        int | None, typer.Option(help="Of frames in it; more, and the oldest are dropped.")
    ] = None,
    spool_max_hours: Annotated[
        float | None, typer.Option(help="How long a frame waits in it while the device is up, then it is dropped.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where bundles, messages and training go on after a restart.")
    ] = None,
    trusted_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Take newer bundles from the server that the holder of this key released."),
    ] = None,
    report_s: Annotated[float | None, typer.Option(help="How often the server is told how the device does.")] = None,
    train_data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Labelled pictures to take part in federated rounds with; they stay here."),
    ] = None,
    train_app: Annotated[
        str | None, typer.Option(metavar="MODULE:NAME", help="The Flower ClientApp that trains.")
    ] = None,
    train_memory_mb: Annotated[
        int | None, typer.Option(help="Megabytes that training may take; half of what is free if not given.")
    ] = None,
    train_seconds: Annotated[float | None, typer.Option(help="Processor seconds that a message may train for.")] = None,
    train_nice: Annotated[
        int | None, typer.Option(help="Its priority, from 0, that of others, to 19: only when nobody else runs (19).")
    ] = None,
    train_on_battery: Annotated[
        bool | None, typer.Option("--train-on-battery", help="Train although the device runs on its battery.")
    ] = None,
    train_max_celsius: Annotated[
        float | None, typer.Option(metavar="DEGREES", help="Training waits while the device is hotter.")
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, typer.Option(help="Least level that is logged.")
    ] = None,
    as_json: JsonOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="At a terminal, draw bytes, latency, width and source of the last frames.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Run the device agent: take pictures, send them as feature frames, print the answers.

    It connects again by itself when the server or the link goes away. Ctrl-C or SIGTERM: it takes no more pictures,
    waits a moment for the answers that are due, and prints a summary.
    """
    if context.invoked_subcommand is not None:
        return
    given: dict[str, Any] = {**locals(), "server": _listed(server), "tasks": _listed(tasks), "prefer": _listed(prefer)}
    settings = _settings(given, config)
    if once is not None:
        _once(settings, once, as_json=as_json)
        return
    import asyncio

    from headwater.device.running import run

    sys.exit(asyncio.run(run(settings, as_json=as_json, watch=watch)))


@app.command()
def enroll(
    *,
    server: Annotated[
        str | None, typer.Option(metavar="HOST[:PORT],...", help="The server; of several, addresses of the same one.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(metavar="TOKEN", help="What `headwater server devices token` printed; asked for if not given."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="What to call the device, unless the token says; else the machine's name."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the key and the certificate go; the agent's --state.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Make a key on this device and have a server sign it, for a token; from then on both ends prove who they are."""
    import asyncio

    from headwater.device.access.argv import forget
    from headwater.device.access.enrolling import enroll as enrol
    from headwater.device.access.enrolling import with_port
    from headwater.device.access.identity import Identities

    forget(token or "")
    servers = tuple(map(with_port, _listed(server) or ())) or None
    settings = _settings({"server": servers, "name": name, "state": state}, config)
    identities = Identities.under(settings.state)
    text = token or (typer.prompt("Token", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline())
    identity = asyncio.run(enrol(identities, settings.server, text, settings.device_name))
    known = f"{identity.device} with {', '.join(identity.servers)}"
    typer.echo(f"enrolled as {known} until {identity.expires:%Y-%m-%d}; the key is in {identities.folder}")


@app.command()
def profile(
    bundle: BundleOption = None,
    threads: Annotated[int | None, typer.Option(help="Threads of the head's inference.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each width is run.")] = 200,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measure all that a simulated fleet has to know, and write it there (TOML)."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="For --out: how long; half of it with another core busy.")
    ] = 20.0,
    like: Annotated[
        str | None, typer.Option(metavar="CLASS", help="For --out: whose figures count where nothing is measured.")
    ] = None,
    idle_w: Annotated[float | None, typer.Option(min=0, help="For --out: power of the idle board, by a meter.")] = None,
    core_w: Annotated[float | None, typer.Option(min=0, help="For --out: what a busy core adds, by a meter.")] = None,
    sleep_w: Annotated[float | None, typer.Option(min=0, help="For --out: power asleep, by a meter.")] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Measure the head of every width on this machine, beside the whole model where the bundle has it."""
    from rich.console import Console

    from headwater.compression.bundle import Bundle
    from headwater.device import profile as profiling
    from headwater.device.screen import profile_table

    settings = _settings({"bundle": bundle, "threads": threads}, config)
    loaded = Bundle.load(settings.bundle_path)
    if out is not None:
        from headwater.device import measuring

        like = like or measuring.nearest_class()
        powers = {"idle_w": idle_w, "core_w": core_w, "sleep_w": sleep_w}
        measured = measuring.measure(loaded, threads=settings.threads, seconds=seconds)
        out.write_text(measuring.to_text(loaded, measured, powers, name=out.stem, like=like), encoding="utf-8")
        typer.echo(f"{out}: {len(measured)} figures measured; what is missing is that of {like}")
        return
    rows, whole_ms = profiling.profile(loaded, threads=settings.threads, rounds=rounds)
    if as_json:
        typer.echo(json.dumps({"widths": [asdict(row) for row in rows], "whole_ms": whole_ms}, indent=2))
        return
    threaded = f"{settings.threads} thread{'s' if settings.threads > 1 else ''}"
    whole = "" if whole_ms is None else f"; the whole model takes {whole_ms:.3f} ms here"
    Console().print(profile_table(rows, f"{loaded.manifest.name}, {threaded}{whole}", whole_ms))


def _listed(words: str | None) -> tuple[str, ...] | None:
    return tuple(map(str.strip, words.split(","))) if words else None


def _settings(given: dict[str, Any], config: Path | None) -> "DeviceSettings":
    from headwater.compression.settings import resolve
    from headwater.device import journal
    from headwater.device.settings import DeviceSettings

    flags = {field.name: given[field.name] for field in fields(DeviceSettings) if field.name in given}
    settings = resolve(DeviceSettings, flags, file=config).value
    journal.configure(settings.log_level)
    return settings


def _once(settings: "DeviceSettings", image: Path, *, as_json: bool) -> None:
    import asyncio

    from headwater.device.once import ask_once

    once = asyncio.run(ask_once(settings, image))
    if as_json:
        plain = {task: asdict(one) for task, one in once.results.items()}
        typer.echo(
            json.dumps(
                {
                    "source": once.source,
                    "bytes": once.bytes,
                    "results": plain,
                    "images": dict(once.images),
                    "detail": once.detail,
                }
            )
        )
        return
    for task, result in once.results.items():
        others = ", ".join(f"{label} {score:.1%}" for label, score in result.scores.items() if label != result.label)
        typer.echo(f"{task}: {result.label} {result.score:.1%} ({others})")
    for task, file in once.images.items():
        typer.echo(f"{task}: {file}")
    where = f"answered by the server, {once.bytes} bytes sent"
    if once.source == "local":
        where = f"answered on the device ({once.detail})" if once.detail else "answered on the device, nothing sent"
    typer.echo(f"{where}, head {once.head_ms:.2f} ms")
