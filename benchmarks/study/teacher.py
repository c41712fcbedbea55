"""The network before the split, fine-tuned once a split: ours starts from it, peers are read by it or tuned from it.

It is a piece of its own, so that a change of how the student is trained leaves teacher and peers as they are.
"""

from __future__ import annotations

import hashlib
import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.study import learning
from benchmarks.study.figures import Figures
from benchmarks.study.runner import Piece
from benchmarks.study.study import TEACHER, Study, labels_of
from headwater.compression.learning.samples import normalise
from headwater.compression.learning.tail import channels_last
from headwater.server.training.lite import Lite0, load_pretrained
from headwater.server.training.loop import Run
from headwater.server.training.stages import class_weights, teacher_stage

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress

    from benchmarks.study.plan import Plan

CHECKPOINT = "teacher.pt"
MINUTES = 25


def pieces(plan: Plan) -> list[Piece]:
    """One a split."""
    return [
        Piece(
            TEACHER,
            seed,
            {"data": plan.source, "recipe": plan.peer_recipe(seed).to_json()},
            partial(train, seed=seed),
            builds_on=(),
            minutes=MINUTES,
        )
        for seed in plan.seeds
    ]


def train(study: Study, folder: Path, progress: Progress, seed: int) -> dict[str, Any]:
    """Fine-tune, as the first stage of :func:`headwater.server.training.pipeline.train` does."""
    prepared, recipe = study.prepared(seed), study.plan.peer_recipe(seed)
    run = Run(folder, recipe, prepared.source)
    tasks = [task for task in prepared.tasks if task.labels]
    weights = [class_weights(prepared.train.labels[task.name], len(task.labels), recipe) for task in tasks]
    torch.manual_seed(seed)
    model = Lite0(prepared.spec.channels, [len(task.labels) for task in tasks], recipe.cut)
    load_pretrained(model)
    channels_last(model)
    run.fit(teacher_stage(model, prepared.train, recipe, weights, run.generator), prepared.train, progress)
    model.eval()
    logits = learning.answers(lambda x: model(normalise(x))[0], prepared.test.images)
    raw = np.full(len(logits), prepared.test.images[0].numel())
    return {
        "weights": _digest(model),
        "figures": Figures.of(raw, logits, labels_of(prepared.test, prepared)).to_json(),
    }


def start_from(study: Study, seed: int, folder: Path) -> None:
    """Put the teacher's checkpoint where a training run looks for it, so that it goes on from there."""
    if not (folder / CHECKPOINT).exists():
        partial_copy = folder / f"{CHECKPOINT}.part"
        shutil.copy(study.folder / f"seed{seed}" / TEACHER / CHECKPOINT, partial_copy)
        partial_copy.rename(folder / CHECKPOINT)


def _digest(model: Lite0) -> str:
    parts = hashlib.sha256()
    for name, value in model.state_dict().items():
        parts.update(name.encode() + value.contiguous().numpy().tobytes())
    return parts.hexdigest()
