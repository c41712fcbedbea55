"""Settings of a recipe, and what it refuses."""

import pytest

from headwater.compression.errors import SettingsError
from headwater.server.training.recipe import Recipe, recipe_for


def test_settings_are_changed_by_name() -> None:
    recipe = Recipe().changed(["cut=4", "skip=()", "rate_weights=[1,2e-3,3e-4,4e-5,5e-6]", "mix=0", "colour=L"])
    assert (recipe.cut, recipe.skip, recipe.mix, recipe.colour) == (4, (), 0.0, "L")
    assert recipe.rate_weights == (1, 2e-3, 3e-4, 4e-5, 5e-6)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("cuts=4", "no setting 'cuts'; did you mean 'cut'"),
        ("cut=four", "cut is 'four'; want int"),
        ("skip=(9,)", "blocks \\[9\\] are to be skipped; those before the cut are 0 to 5"),
        ("side=100", "a multiple of 32"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Recipe().changed([setting])


def test_a_folder_has_the_default_recipe() -> None:
    assert recipe_for("photos/") == Recipe()
