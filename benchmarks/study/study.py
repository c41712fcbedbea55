"""What all pieces share: the plan, the folder, the images of a split, and what is done so far."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from headwater.compression.bundle import Bundle
from headwater.compression.learning.tail import channels_last
from headwater.server.training.lite import Lite0
from headwater.server.training.pipeline import Prepared, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from benchmarks.study.plan import Plan
    from benchmarks.study.runner import Piece
    from headwater.compression.learning.samples import Samples

OURS, TEACHER = "ours", "teacher"


class Study:
    """A plan and the folder where its pieces leave their results."""

    def __init__(self, plan: Plan, folder: Path, threads: int = 1, elsewhere: Sequence[dict[str, Any]] = ()) -> None:
        """Nothing is read or written yet; ``elsewhere`` are records of pieces that were done on other machines."""
        self.plan, self.folder, self.threads = plan, folder, threads
        self.elsewhere = {(record["piece"], record["seed"]): record for record in elsewhere}
        self._prepared: dict[tuple[int, tuple[str, ...]], Prepared] = {}

    # ------------------------------------------------------------ what is done

    def work(self, piece: Piece) -> Path:
        """The folder of a piece's checkpoints."""
        return self.folder / f"seed{piece.seed}" / piece.name

    def record(self, name: str, seed: int) -> dict[str, Any] | None:
        """What a finished piece left, here or elsewhere; None where it is not finished."""
        path = self._path(name, seed)
        if not path.exists():
            return self.elsewhere.get((name, seed))
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record

    def has(self, name: str, seed: int) -> bool:
        """Whether a finished piece is in the folder, with what others build on."""
        return self._path(name, seed).exists()

    def keep(self, record: dict[str, Any]) -> None:
        """Write a finished piece's record, in one step."""
        path = self._path(record["piece"], record["seed"])
        write_json(path, record)

    def _path(self, name: str, seed: int) -> Path:
        return self.folder / f"seed{seed}" / f"{name}.json"

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


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - anything that JSON holds
    """Replace a file in one step, so that a kill leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".part", delete=False) as file:
        json.dump(value, file, separators=(",", ":"), allow_nan=False)
        file.write("\n")
    Path(file.name).replace(path)
