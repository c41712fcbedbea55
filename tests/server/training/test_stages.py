"""The losses of the stages."""

import dataclasses

import pytest
import torch

from headwater.compression.learning.samples import Samples
from headwater.server.training import stages
from headwater.server.training.lite import Lite0
from headwater.server.training.loop import Stage
from headwater.server.training.recipe import Recipe
from headwater.server.training.student import Student

RECIPE = Recipe(colour="L", side=32, cut=3, skip=(), latent_channels=6, groups=3)
SAMPLES = Samples(
    torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
    {"side": torch.arange(8) % 2},
)


def stage(name: str, recipe: Recipe) -> tuple[Stage, Student]:
    torch.manual_seed(0)
    teacher = Lite0(1, [2], recipe.cut)
    student = Student(teacher, recipe)
    make = stages.match_stage if name == "match" else stages.tune_stage
    return make(student, teacher, SAMPLES, recipe, [torch.ones(2)], torch.Generator().manual_seed(0)), student


def gradient(name: str, recipe: Recipe) -> tuple[torch.Tensor, dict[str, float]]:
    """Of the bottleneck, which makes the latent, after one batch."""
    made, student = stage(name, recipe)
    loss, figures = made.step(torch.arange(8))
    loss.backward()  # type: ignore[no-untyped-call]
    assert student.head.bottleneck.weight.grad is not None
    return student.head.bottleneck.weight.grad, figures


@pytest.mark.parametrize("name", ["match", "tune"])
def test_the_exit_leads_the_head_to_what_tells_the_classes_apart(name: str) -> None:
    led, figures = gradient(name, RECIPE)
    left, _ = gradient(name, dataclasses.replace(RECIPE, exit_weight=0.0))
    assert not torch.allclose(led, left)
    assert 0.4 < figures["exit"] < 1.2, "the cross-entropy of two classes that nobody has learnt yet"


@pytest.mark.parametrize("name", ["match", "tune"])
def test_without_an_exit_nothing_leads_it(name: str) -> None:
    _, figures = gradient(name, dataclasses.replace(RECIPE, exit_epochs=0))
    assert "exit" not in figures
