"""``headwater train``: from labelled images to a model bundle."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headwater.compression.bundle import Bundle
    from headwater.server.training.recipe import Recipe

app = typer.Typer(help="Train a model bundle on labelled images.", add_completion=False)


@app.command()
def train(
    data: Annotated[
        str, typer.Argument(help="solar, digits, or a folder with a sub-folder a class (own test/ split optional).")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the bundle goes: a directory, or a file ending in .zip.")
    ],
    tasks: Annotated[str | None, typer.Option(help="Tasks to train, separated by commas. Default: the first.")] = None,
    side: Annotated[int | None, typer.Option(help="Height and width of the input in pixels, a multiple of 32.")] = None,
    colour: Annotated[str | None, typer.Option(help="L for grey, RGB for colour.")] = None,
    epochs: Annotated[
        float, typer.Option(min=0.01, help="Factor on the number of epochs of every stage: 0.5 is half as long.")
    ] = 1.0,
    batch: Annotated[int | None, typer.Option(min=8, help="Images in a step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of split, weights and order.")] = None,
    test_share: Annotated[
        float | None, typer.Option(help="Share of images held out, where the data has no test/.")
    ] = None,
    class_weights: Annotated[str | None, typer.Option(help="auto, balanced or none: weight of rare classes.")] = None,
    choose: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting of the recipe, as NAME=VALUE, such as cut=4; may be repeated."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the arithmetic. Default: all cores.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder of the checkpoints. Default: OUT with .work after it.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away an unfinished run in the work folder.")
    ] = False,
) -> None:
    """Train a teacher and a slimmable student, and write a bundle with a report beside it.

    An interrupted run goes on from its last epoch when the same command is given again.
    """
    changes = {
        "tasks": tuple(tasks.split(",")) if tasks else None,
        "side": side,
        "colour": colour,
        "batch": batch,
        "seed": seed,
        "test_share": test_share,
        "class_weights": class_weights,
    }
    recipe = _recipe(data, {key: value for key, value in changes.items() if value is not None}, epochs)
    recipe = recipe.changed(choose or ())
    work = work or out.with_name(f"{out.name}.work")
    if restart:
        shutil.rmtree(work, ignore_errors=True)
    _run(data, out, recipe, work, threads)


def _recipe(data: str, changes: dict[str, object], epochs: float) -> Recipe:
    from headwater.server.training.recipe import recipe_for

    recipe = recipe_for(data)
    lengths = {
        name: max(1, round(getattr(recipe, name) * epochs))
        for name in ("teacher_epochs", "match_epochs", "tune_epochs")
    }
    return dataclasses.replace(recipe, **lengths, **changes)  # type: ignore[arg-type]


def _run(data: str, out: Path, recipe: Recipe, work: Path, threads: int | None) -> None:
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from headwater.server.training import pipeline

    if threads:
        torch.set_num_threads(threads)
    console = Console()
    started = time.monotonic()
    prepared = pipeline.prepare(data, recipe)
    for skipped in prepared.dataset.skipped:
        console.print(f"skipped {skipped.name}: {skipped.reason}", style="yellow", highlight=False)
    console.print(
        f"{prepared.dataset.name}: {len(prepared.train)} images to learn from, {len(prepared.test)} held out, "
        f"{len(prepared.dataset.skipped)} files skipped; tasks: {', '.join(task.name for task in prepared.tasks)}"
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        built, run = pipeline.train(prepared, recipe, work, progress)
    bundle = pipeline.publish(built, run, prepared, out)
    _summary(console, bundle, out, time.monotonic() - started)


def _summary(console: object, bundle: Bundle, out: Path, seconds: float) -> None:
    from rich.console import Console

    assert isinstance(console, Console)
    manifest = bundle.manifest
    task = manifest.tasks[0].name
    sizes = [mode.mean_bytes for mode in manifest.modes]
    best = max(manifest.modes, key=lambda mode: mode.accuracy[task])
    console.print(
        f"wrote {out} (id {bundle.short_id}, {len(manifest.modes)} modes, "
        f"{min(sizes):.0f} to {max(sizes):.0f} bytes a frame) "
        f"and {out.parent / (out.stem + '-report.html')} after {seconds / 60:.1f} minutes\n"
        f"{task}: best mode {best.accuracy[task]:.1%} at {best.mean_bytes:.0f} bytes "
        f"(width {best.width:g}, gain {best.gain}), unsplit model {manifest.measured['local'][task]['accuracy']:.1%}\n"
        f"next: headwater bundle show {out}; headwater server --bundle {out}",
        highlight=False,
    )
