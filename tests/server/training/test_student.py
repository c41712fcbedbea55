"""The student as it is built from a teacher."""

import dataclasses

import pytest
import torch

from headwater.compression.errors import SettingsError
from headwater.server.training.lite import Lite0
from headwater.server.training.recipe import Recipe
from headwater.server.training.student import Student

RECIPE = Recipe(colour="L", side=32, latent_channels=6, groups=3, cut=6, skip=(4,))


def test_a_skipped_block_is_missing_from_the_head_only() -> None:
    student = Student(Lite0(1, [2], RECIPE.cut), RECIPE)
    assert len(list(student.head.inverted_residuals())) == 5
    assert student.head(torch.zeros(2, 1, 32, 32), 1.0).shape == (2, 6, 2, 2)
    assert len(next(student.typed_tails()).blocks) == 10


def test_a_block_without_a_way_past_it_cannot_be_skipped() -> None:
    recipe = dataclasses.replace(RECIPE, skip=(3,))
    with pytest.raises(SettingsError, match=r"cannot skip the blocks \[3\]"):
        Student(Lite0(1, [2], recipe.cut), recipe)
