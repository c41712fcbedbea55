"""Runs that are interrupted end like those that are not."""

import dataclasses
from pathlib import Path

import pytest
import torch
from rich.progress import Progress

from headwater.compression.errors import DataError
from headwater.compression.learning.samples import Samples
from headwater.server.training.loop import Run, Stage, schedule
from headwater.server.training.recipe import Recipe

RECIPE = Recipe(batch=8)
SAMPLES = Samples(torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8), {})


class PowerCutError(Exception):
    """Ends a run in the middle."""


def _stage(run: Run, *, epochs: int = 3, cut_at: int | None = None) -> Stage:
    torch.manual_seed(5)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 1), torch.nn.Dropout(0.5))
    steps = 0

    def step(indices: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        nonlocal steps
        steps += 1
        if steps == cut_at:
            raise PowerCutError
        noise = torch.rand(len(indices), 1, generator=run.generator)
        loss = (model(SAMPLES.images[indices] / 255.0) - noise).square().mean()
        return loss, {"loss": loss.item()}

    return Stage("fit", epochs, model, torch.optim.AdamW(model.parameters(), lr=0.01), step)


def _fit(folder: Path, cut_at: int | None = None) -> tuple[Run, Stage]:
    run = Run(folder, RECIPE, "data")
    stage = _stage(run, cut_at=cut_at)
    with Progress(disable=True) as progress:
        run.fit(stage, SAMPLES, progress)
    return run, stage


def test_a_run_that_was_interrupted_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole_run, whole = _fit(tmp_path / "whole")
    with pytest.raises(PowerCutError):
        _fit(tmp_path / "cut", cut_at=8)
    cut_run, cut = _fit(tmp_path / "cut")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(cut.model.state_dict()[name], value)
    assert cut_run.history == whole_run.history
    assert [entry["epoch"] for entry in cut_run.history] == [1, 2, 3]


def test_a_finished_stage_is_not_run_again(tmp_path: Path) -> None:
    _fit(tmp_path)
    _fit(tmp_path, cut_at=1)


def test_a_work_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    _fit(tmp_path)
    with pytest.raises(DataError, match="another recipe"):
        Run(tmp_path, dataclasses.replace(RECIPE, seed=1), "data")


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path, RECIPE, "data")
    stage = _stage(run)
    broken = dataclasses.replace(stage, step=lambda _: (torch.tensor(float("nan")), {}))
    with Progress(disable=True) as progress, pytest.raises(DataError, match="nan"):
        run.fit(broken, SAMPLES, progress)


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [schedule(n / 100) for n in range(101)]
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[0] < 0.1
    assert rates[-1] == pytest.approx(0.0)
    assert rates[20:] == sorted(rates[20:], reverse=True)
