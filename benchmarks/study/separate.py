"""A model trained for one width alone, as long as ours is for all: what sharing one set of weights costs.

It starts from the same teacher, whose checkpoint is copied, and sees the whole of each batch at its width, where ours
sees a share of it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.study.ours import bench_of, measure
from benchmarks.study.runner import Piece
from benchmarks.study.study import TEACHER, Study, labels_of
from benchmarks.study.teacher import start_from
from headwater.server.training import pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress

    from benchmarks.study.plan import Plan

MINUTES = 60


def pieces(plan: Plan) -> list[Piece]:
    """One a width on each narrow split."""
    return [_piece(plan, seed, width) for seed in plan.narrow_seeds for width in plan.recipe.widths]


def _piece(plan: Plan, seed: int, width: float) -> Piece:
    decides = {"data": plan.source, "recipe": plan.recipe_of(seed, widths=(width,), exit_epochs=0).to_json()}
    work = partial(train, seed=seed, width=width)
    return Piece(f"separate-{width:g}", seed, decides, work, builds_on=(TEACHER,), minutes=MINUTES)


def train(study: Study, folder: Path, progress: Progress, seed: int, width: float) -> dict[str, Any]:
    """Train with this width only and measure like ours."""
    prepared = study.prepared(seed)
    recipe = study.plan.recipe_of(seed, widths=(width,), exit_epochs=0)
    start_from(study, seed, folder)
    built, _ = pipeline.train(prepared, recipe, folder, progress)
    built.bundle.save(folder / "bundle.zip")
    bench = bench_of(built.bundle, prepared.test.images.numpy())
    return measure(bench, labels_of(prepared.test, prepared), usual=0)
