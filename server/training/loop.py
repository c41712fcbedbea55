"""Epochs, learning-rate schedule, progress and checkpoints, the same for every stage of training.

A checkpoint holds everything that the next epoch depends on (weights, optimiser, random states, history), so that a run
that was interrupted ends with the same weights as one that was not.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from headwater.compression.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.progress import Progress
    from torch import nn

    from headwater.compression.learning.samples import Samples
    from headwater.server.training.recipe import Recipe

WARM_UP = 0.08  # share of a stage in which the learning rate rises


def schedule(done: float) -> float:
    """Factor on the learning rate when a share ``done`` of a stage is over: a short rise, then half a cosine."""
    if done < WARM_UP:
        return max(done / WARM_UP, 0.02)
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


@dataclass(frozen=True)
class Stage:
    """One stage: what is trained, for how long, and what a step does."""

    name: str
    epochs: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[[torch.Tensor], tuple[torch.Tensor, dict[str, float]]]
    """Takes the indices of a batch, gives the loss and figures to plot."""
    factor: Callable[[float], float] = schedule
    """Of the learning rates, when a share of the stage is over."""


class Run:
    """A resumable training run in a folder of its own."""

    def __init__(self, folder: Path, recipe: Recipe, data: str) -> None:
        """Open or start a run; raises :class:`DataError` if the folder holds a run of another recipe or data set."""
        self.folder = folder
        self.recipe = recipe
        self.history: list[dict[str, Any]] = []
        self.generator = torch.Generator().manual_seed(recipe.seed)
        folder.mkdir(parents=True, exist_ok=True)
        plan = json.dumps({"data": data, "recipe": recipe.to_json()}, indent=1, sort_keys=True)
        path = folder / "plan.json"
        if path.exists() and path.read_text(encoding="utf-8") != plan:
            raise DataError(
                f"{folder} holds a run with another recipe or data set; "
                "go on with its settings, give another --work folder, or --restart to throw it away"
            )
        path.write_text(plan, encoding="utf-8")

    def fit(self, stage: Stage, samples: Samples, progress: Progress) -> None:
        """Run a stage to its end, from its last checkpoint if there is one."""
        first = self._resume(stage)
        batches = len(range(0, len(samples), self.recipe.batch))
        task = progress.add_task(stage.name, total=stage.epochs * batches, completed=first * batches)
        base_rates = [group.setdefault("initial_lr", group["lr"]) for group in stage.optimizer.param_groups]
        for epoch in range(first, stage.epochs):
            sums: dict[str, float] = {}
            steps = 0
            stage.model.train()
            for steps, indices in enumerate(samples.batches(self.recipe.batch, self.generator), start=1):
                done = (epoch + (steps - 1) / batches) / stage.epochs
                _set_rates(stage.optimizer, base_rates, stage.factor(done))
                figures = self._step(stage, indices)
                for name, value in figures.items():
                    sums[name] = sums.get(name, 0.0) + value
                progress.update(task, completed=epoch * batches + steps, description=_describe(stage.name, figures))
            progress.update(task, completed=(epoch + 1) * batches)
            means = {name: value / max(steps, 1) for name, value in sums.items()}
            self.history.append({"stage": stage.name, "epoch": epoch + 1, **means})
            self._save(stage, epoch + 1)

    @staticmethod
    def _step(stage: Stage, indices: torch.Tensor) -> dict[str, float]:
        stage.optimizer.zero_grad(set_to_none=True)
        loss, figures = stage.step(indices)
        if not torch.isfinite(loss):
            raise DataError(f"the loss of {stage.name} is {loss.item()}; lower the learning rate or look at the images")
        loss.backward()
        parameters = [p for group in stage.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        stage.optimizer.step()
        return figures

    def _path(self, stage: Stage) -> Path:
        return self.folder / f"{stage.name.replace(' ', '_')}.pt"

    def _save(self, stage: Stage, epochs: int) -> None:
        state = {
            "epochs": epochs,
            "model": stage.model.state_dict(),
            "optimizer": stage.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "history": self.history,
        }
        path = self._path(stage)
        partial = path.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(path)  # a run that is killed here keeps the checkpoint before

    def _resume(self, stage: Stage) -> int:
        path = self._path(stage)
        if not path.exists():
            torch.manual_seed(self.recipe.seed)
            return 0
        state = torch.load(path, weights_only=True)  # noqa: TID251 - tensors alone
        stage.model.load_state_dict(state["model"])
        stage.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        self.history = list(state["history"])
        return int(state["epochs"])


def _set_rates(optimizer: torch.optim.Optimizer, base: Sequence[float], factor: float) -> None:
    for group, rate in zip(optimizer.param_groups, base, strict=True):
        group["lr"] = rate * factor


def _describe(name: str, figures: dict[str, float]) -> str:
    return name + "  " + " ".join(f"{key} {value:.3g}" for key, value in figures.items())
