"""Where to cut: the same network split after an earlier or a later block. Earlier, the head is cheaper; later, a frame
has fewer bytes.

Every cut is trained by our recipe with fewer epochs and without what was chosen for the one that ships (a block that
the head skips, the local exit), from the same teacher: only the names of its weights depend on the cut.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.study.ours import bench_of, measure
from benchmarks.study.results import CUT
from benchmarks.study.runner import Piece
from benchmarks.study.study import TEACHER, Study, labels_of
from benchmarks.study.teacher import CHECKPOINT
from headwater.server.training import pipeline
from headwater.server.training.lite import Lite0

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.progress import Progress

    from benchmarks.study.plan import Plan
    from headwater.server.training.recipe import Recipe

MINUTES = 20


def pieces(plan: Plan) -> list[Piece]:
    """One a cut on each narrow split."""
    return [_piece(plan, seed, cut) for seed in plan.narrow_seeds for cut in plan.cuts]


def recipe_of(plan: Plan, seed: int, cut: int) -> Recipe:
    """Our recipe with another cut."""
    match, tune = plan.cut_epochs
    return plan.recipe_of(seed, cut=cut, skip=(), exit_epochs=0, match_epochs=match, tune_epochs=tune)


def _piece(plan: Plan, seed: int, cut: int) -> Piece:
    decides = {"data": plan.source, "recipe": recipe_of(plan, seed, cut).to_json()}
    work = partial(train, seed=seed, cut=cut)
    return Piece(f"{CUT}{cut}", seed, decides, work, builds_on=(TEACHER,), minutes=MINUTES)


def train(study: Study, folder: Path, progress: Progress, seed: int, cut: int) -> dict[str, Any]:
    """Train with this cut and measure every mode."""
    prepared, recipe = study.prepared(seed), recipe_of(study.plan, seed, cut)
    if not (path := folder / CHECKPOINT).exists():
        state = torch.load(study.folder / f"seed{seed}" / TEACHER / CHECKPOINT, weights_only=True)  # noqa: TID251 - tensors alone
        classes = [len(task.labels) for task in prepared.tasks if task.labels]
        state["model"] = recut(state["model"], Lite0(prepared.spec.channels, classes, cut))
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)
    built, _ = pipeline.train(prepared, recipe, folder, progress)
    built.bundle.save(folder / "bundle.zip")
    bench = bench_of(built.bundle, prepared.test.images.numpy())
    return measure(bench, labels_of(prepared.test, prepared), usual=0, cuts=())


def recut(state: Mapping[str, torch.Tensor], model: Lite0) -> dict[str, torch.Tensor]:
    """The weights of a network under the names that they have in `model`, which is cut elsewhere.

    With one tail, both list them in the order in which a picture meets them.
    """
    names = model.state_dict()
    shapes = [value.shape for value in names.values()]
    assert [value.shape for value in state.values()] == shapes, "networks of the same blocks, with one tail"
    return dict(zip(names, state.values(), strict=True))
