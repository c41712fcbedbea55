"""A task that is added to a finished bundle, against the same task trained along from the start.

    task-joint   a bundle for both tasks, trained as ours is
    task-added   ``headwater train --add-task`` on the bundle without it: head, tables and decoder stay as they are

Where our own recipe has the task already, ours is the joint bundle, and ``task-alone`` is one without it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.study.figures import Figures
from benchmarks.study.runner import Piece
from benchmarks.study.study import OURS, Study
from headwater.server.training import add_task, pipeline
from headwater.server.training.measure import Bench

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress

    from benchmarks.study.plan import Plan
    from headwater.compression.bundle import Bundle
    from headwater.compression.learning.samples import Samples

ALONE = "task-alone"
TRAINED_MINUTES, ADDED_MINUTES, MEASURED_MINUTES = 100, 50, 2


def pieces(plan: Plan) -> list[Piece]:
    """The joint bundle and the added task on each narrow split."""
    return [piece for seed in plan.narrow_seeds for piece in _of_split(plan, seed)]


def _of_split(plan: Plan, seed: int) -> list[Piece]:
    decides = {"data": plan.source, "task": plan.added_task, "recipe": plan.recipe_of(seed).to_json()}

    def added(base: str) -> Piece:
        return Piece("task-added", seed, decides, partial(add, seed=seed, base=base), (base,), ADDED_MINUTES)

    if plan.added_task in plan.recipe.tasks:
        work = partial(measure_ours, seed=seed)
        joint = Piece("task-joint", seed, decides, work, (OURS,), MEASURED_MINUTES)
        alone = Piece(ALONE, seed, decides, partial(train_alone, seed=seed), (), TRAINED_MINUTES)
        return [joint, alone, added(ALONE)]
    joint = Piece("task-joint", seed, decides, partial(train_joint, seed=seed), (), TRAINED_MINUTES)
    return [joint, added(OURS)]


def train_joint(study: Study, folder: Path, progress: Progress, seed: int) -> dict[str, Any]:
    """Train the first task and the added one together."""
    task = study.plan.added_task
    bundle = _train(study, folder, progress, seed, (_first(study, seed), task))
    return measure(bundle, study.prepared(seed, (task,)).test, task)


def train_alone(study: Study, folder: Path, progress: Progress, seed: int) -> dict[str, Any]:
    """Train a bundle of the first task, for the other to be added to."""
    first = _first(study, seed)
    bundle = _train(study, folder, progress, seed, (first,))
    return measure(bundle, study.prepared(seed, (first,)).test, first)


def measure_ours(study: Study, _: Path, __: Progress, seed: int) -> dict[str, Any]:
    """Our own bundle, which has both tasks."""
    task = study.plan.added_task
    return measure(study.bundle(seed), study.prepared(seed, (task,)).test, task)


def add(study: Study, folder: Path, progress: Progress, seed: int, base: str) -> dict[str, Any]:
    """Add the task to a finished bundle."""
    old, task = study.bundle(seed, base), study.plan.added_task
    prepared = add_task.prepare(study.plan.source, old, task)
    built, _ = add_task.add_task(prepared, old, add_task.recipe_of(old), folder, progress)
    built.bundle.save(folder / "bundle.zip")
    return measure(built.bundle, prepared.test, task)


def _train(study: Study, folder: Path, progress: Progress, seed: int, tasks: tuple[str, ...]) -> Bundle:
    recipe = study.plan.recipe_of(seed, tasks=tasks, exit_epochs=0)
    built, _ = pipeline.train(study.prepared(seed, tasks), recipe, folder, progress)
    built.bundle.save(folder / "bundle.zip")
    return built.bundle


def _first(study: Study, seed: int) -> str:
    return study.prepared(seed).tasks[0].name


def measure(bundle: Bundle, test: Samples, name: str) -> dict[str, Any]:
    """Figures of one task in every mode."""
    (task,) = (task for task in bundle.manifest.tasks if task.name == name)
    bench = Bench(bundle, test.images.numpy(), (task,))
    modes = []
    for mode in bundle.manifest.modes:
        run = bench.run(mode)
        figures = Figures.of(run.sizes, run.logits[name], test.labels[name].numpy())
        modes.append({"width": mode.width, "gain": mode.gain, "figures": figures.to_json()})
    return {"bundle": bundle.id.hex(), "modes": modes}
