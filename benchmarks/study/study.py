"""What all pieces share: the plan, the images of a split, and what other pieces made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from benchmarks.study.records import Records
from headwater.compression.bundle import Bundle
from headwater.compression.learning.tail import channels_last
from headwater.server.training.lite import Lite0
from headwater.server.training.pipeline import Prepared, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.study.plan import Plan
    from headwater.compression.learning.samples import Samples

OURS, TEACHER = "ours", "teacher"


class Study(Records):
    """A plan and the folder where its pieces leave their results."""

    def __init__(self, plan: Plan, folder: Path, threads: int = 1, elsewhere: Sequence[dict[str, Any]] = ()) -> None:
        """Nothing is read or written yet; ``elsewhere`` are records of pieces that were done on other machines."""
        super().__init__(folder, elsewhere)
        self.plan, self.threads = plan, threads
        self._prepared: dict[tuple[int, tuple[str, ...]], Prepared] = {}

    # ------------------------------------------------------------ what pieces work with

    def prepared(self, seed: int, tasks: tuple[str, ...] | None = None) -> Prepared:
        """The images of a split, decoded once a process; with the recipe's tasks, or others."""
        tasks = self.plan.recipe.tasks if tasks is None else tasks
        key = (seed, tasks)
        if key not in self._prepared:
            self._prepared[key] = prepare(self.plan.source, self.plan.recipe_of(seed, tasks=tasks))
        return self._prepared[key]

    def bundle(self, seed: int, piece: str = OURS) -> Bundle:
        """The bundle that a piece made of a split, ours if none is named."""
        return Bundle.load(self.folder / f"seed{seed}" / piece / "bundle.zip")

    def teacher(self, seed: int) -> Lite0:
        """A fresh copy of the fine-tuned network of a split, in evaluation mode."""
        prepared = self.prepared(seed)
        classes = [len(task.labels) for task in prepared.tasks if task.labels]
        teacher = Lite0(prepared.spec.channels, classes, self.plan.recipe.cut)
        state = torch.load(self.folder / f"seed{seed}" / TEACHER / "teacher.pt", weights_only=True)  # noqa: TID251 - tensors alone
        teacher.load_state_dict(state["model"])
        channels_last(teacher)
        return teacher.eval()


def labels_of(samples: Samples, prepared: Prepared) -> NDArray[np.int64]:
    """Labels of the first task, int64 [N]."""
    labels: NDArray[np.int64] = samples.labels[prepared.tasks[0].name].numpy()
    return labels
