"""``headwater server prune``: a bundle whose head and tails are quicker, by fewer channels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwater.compression.cli import ConfigOption

if TYPE_CHECKING:
    from headwater.compression.bundle import Bundle
    from headwater.server.federation.pruning.soft_masks import StructuredSettings
    from headwater.server.federation.pruning.structured import Carved


def add_to(server: typer.Typer) -> None:
    """Give `headwater server` this command."""
    server.command()(prune)


def prune(
    *,
    bundle: Annotated[Path, typer.Option(metavar="PATH", help="The bundle to begin from; it stays as it is.")],
    data: Annotated[str, typer.Option(help="What the bundle was trained on: solar, digits or a folder.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the smaller bundle goes: a directory or a .zip.")],
    target_latency: Annotated[
        float, typer.Option(metavar="SHARE", help="Time of the widest head, as a share of what it is now.")
    ] = 0.5,
    target_tail: Annotated[
        float, typer.Option(metavar="SHARE", help="Time of each tail, as a share of what it is now.")
    ] = 0.7,
    method: Annotated[str, typer.Option(help="Importance: gradients, sensitivity or activations.")] = "gradients",
    rounds: Annotated[int, typer.Option(min=1, help="In which channels fade, and may come back.")] = 6,
    epochs: Annotated[int, typer.Option(min=0, help="Of learning on the server's images afterwards.")] = 12,
    rate: Annotated[float, typer.Option(help="Step size of that, at its start.")] = 5e-4,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Fade in rounds over the devices of the server with this folder."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Remove channels until the head takes --target-latency of its time, measured here, then learn on.

    With --state the devices that are connected to that server say which channels matter, in federated rounds as the
    configuration's section federation describes them; else the server's own images do. The bundle that comes out is as
    any other: publish it with `headwater server publish`, go on learning with `headwater server federate`.
    """
    from datetime import UTC, datetime

    from headwater.compression.bundle import Bundle
    from headwater.server.federation.pruning import structured
    from headwater.server.federation.pruning.soft_masks import StructuredSettings
    from headwater.server.rollout.build import images_of, rebuild_from

    old = Bundle.load(bundle)
    settings = StructuredSettings(target_latency, target_tail, method, rounds)
    images = images_of(old, data)
    pruning = structured.Pruning(old, images.train, settings, rate=rate)
    if state is None:
        carved = pruning.here(typer.echo)
    else:
        from headwater.server.federation.pruning.fleet import over

        carved = over(pruning, state, config, typer.echo)
    pruning.tune(carved, epochs, typer.echo)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    new = rebuild_from(old, carved.network, images, created=created).bundle
    new.save(out)
    for line in _found(old, new, carved, settings):
        typer.echo(line)
    typer.echo(f"wrote {out} (id {new.short_id}); next: headwater server publish {out} --data {data}")


def _found(old: Bundle, new: Bundle, carved: Carved, settings: StructuredSettings) -> list[str]:
    """What it has brought."""
    lines = [
        f"{name}: {before} -> {after} channels" for name, (before, after) in carved.channels.items() if after < before
    ]
    for width, ms in carved.after.heads.items():
        lines.append(f"head {width:g}: {carved.before.heads[width]:.3f} -> {ms:.3f} ms here")
    for number, share in enumerate(carved.tails):
        lines.append(f"tail {number}: {share:.0%} of its time; {settings.target_tail:.0%} were asked for")
    sizes = [sum(entry.size for entry in each.manifest.files.values()) for each in (old, new)]
    lines.append(f"bundle: {sizes[0] / 1e6:.2f} -> {sizes[1] / 1e6:.2f} MB")
    for task in new.manifest.tasks:
        if task.labels:
            best = [max(mode.accuracy[task.name] for mode in each.manifest.modes) for each in (old, new)]
            lines.append(f"{task.name}: best mode {best[0]:.1%} -> {best[1]:.1%} on held-out images")
    return lines
