"""``headwater train``: from labelled images to a model bundle."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress

    from headwater.compression.bundle import Bundle
    from headwater.server.training.build import Built
    from headwater.server.training.loop import Run
    from headwater.server.training.pipeline import Prepared
    from headwater.server.training.recipe import Recipe

app = typer.Typer(help="Train a model bundle on labelled images.", add_completion=False)


@app.command()
def train(
    data: Annotated[
        str,
        typer.Argument(
            help="solar, digits, a folder with a sub-folder a class (own test/ optional), or with labels.csv."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the bundle goes: a directory, or a file ending in .zip.")
    ],
    tasks: Annotated[
        str | None,
        typer.Option(help="Tasks to train, separated by commas, reconstruct among them. Default: the first."),
    ] = None,
    add_task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Train only a tail for this task, on the head of --bundle as it is."),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The bundle that --add-task starts from; it stays as it is.")
    ] = None,
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

    With --add-task, train one more tail for the bundle of --bundle and write a bundle that has it too: a server with
    that one also answers devices that have the old one, and gives them the new task.

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
    old = _old(add_task, bundle)
    recipe = _recipe(data, old, {key: value for key, value in changes.items() if value is not None}, epochs)
    recipe = recipe.changed(choose or ())
    work = work or out.with_name(f"{out.name}.work")
    if restart:
        shutil.rmtree(work, ignore_errors=True)
    if old is None or add_task is None:
        _train(data, out, recipe, work, threads)
    else:
        _add_task(data, old, add_task, out, recipe, work, threads)


def _old(add_task: str | None, path: Path | None) -> Bundle | None:
    from headwater.compression.bundle import Bundle
    from headwater.compression.errors import SettingsError

    if (add_task is None) is not (path is None):
        raise SettingsError("--add-task NAME and --bundle PATH belong together: the task, and the bundle that gets it")
    return None if path is None else Bundle.load(path)


def _recipe(data: str, old: Bundle | None, changes: dict[str, object], epochs: float) -> Recipe:
    from headwater.server.training.recipe import recipe_for

    if old is None:
        recipe = recipe_for(data)
    else:
        from headwater.server.training.add_task import recipe_of

        recipe = recipe_of(old)
    lengths = {
        name: max(1, round(getattr(recipe, name) * epochs))
        for name in ("teacher_epochs", "match_epochs", "tune_epochs", "task_epochs", "exit_epochs")
        if old is None or name in {"teacher_epochs", "task_epochs"}
    }
    return dataclasses.replace(recipe, **lengths, **changes)  # type: ignore[arg-type]


def _train(data: str, out: Path, recipe: Recipe, work: Path, threads: int | None) -> None:
    from headwater.server.training import pipeline

    prepared = pipeline.prepare(data, recipe)
    _run(prepared, out, threads, lambda progress: pipeline.train(prepared, recipe, work, progress))


def _add_task(data: str, old: Bundle, name: str, out: Path, recipe: Recipe, work: Path, threads: int | None) -> None:
    from headwater.server.training.add_task import add_task, check_changes, prepare, recipe_of

    check_changes(recipe_of(old), recipe)
    prepared = prepare(data, old, name)
    _run(prepared, out, threads, lambda progress: add_task(prepared, old, recipe, work, progress))


def _run(prepared: Prepared, out: Path, threads: int | None, fit: Callable[[Progress], tuple[Built, Run]]) -> None:
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    from headwater.compression.allocator import keep_all
    from headwater.server.training import pipeline

    keep_all()
    if threads:
        torch.set_num_threads(threads)
    console = Console()
    started = time.monotonic()
    for skipped in prepared.dataset.skipped:
        console.print(f"skipped {skipped.name}: {skipped.reason}", style="yellow", highlight=False)
    console.print(
        f"{prepared.dataset.name}: {len(prepared.train)} images to learn from, {len(prepared.test)} held out, "
        f"{len(prepared.dataset.skipped)} files skipped; tasks: {', '.join(task.name for task in prepared.tasks)}"
    )
    losses = TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"))
    columns = (losses, BarColumn(10), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, expand=True) as progress:
        built, run = fit(progress)
    bundle = pipeline.publish(built, run, prepared, out)
    found = "\n".join(_best(bundle, task.name) for task in prepared.tasks)
    console.print(_summary(bundle, out, time.monotonic() - started, found), highlight=False, soft_wrap=True)


def _summary(bundle: Bundle, out: Path, seconds: float, found: str) -> str:
    sizes = [mode.mean_bytes for mode in bundle.manifest.modes]
    return (
        f"wrote {out} (id {bundle.short_id}, {len(sizes)} modes, "
        f"{min(sizes):.0f} to {max(sizes):.0f} bytes a frame) "
        f"and {out.parent / (out.stem + '-report.html')} after {seconds / 60:.1f} minutes\n"
        f"{found}\nnext: headwater bundle show {out}; headwater server --bundle {out}"
    )


def _best(bundle: Bundle, task: str) -> str:
    """What the best mode gives for a task."""
    manifest = bundle.manifest
    figures = [mode.accuracy.get(task, mode.psnr_db.get(task, 0.0)) for mode in manifest.modes]
    best = manifest.modes[figures.index(max(figures))]
    where = f"at {best.mean_bytes:.0f} bytes (width {best.width:g}, gain {best.gain})"
    if task in best.psnr_db:
        return f"{task}: best mode {best.psnr_db[task]:.1f} dB {where}"
    local = manifest.measured["local"].get(task)
    whole = f", unsplit model {local['accuracy']:.1%}" if local else ""
    return f"{task}: best mode {best.accuracy[task]:.1%} {where}{whole}"
