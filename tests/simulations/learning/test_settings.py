"""What a simulated fleet can be told, and what it says of what it cannot read."""

from __future__ import annotations

from typing import Any

import pytest

from headwater.compression.errors import SettingsError
from headwater.simulations.learning.settings import LearningSettings, Partition


def test_words_are_read() -> None:
    told = LearningSettings(
        partition="domain:cell_type:0.3", widths="1.0:0.7,0.25:0.3", stragglers="0.2:5", liars="0.1:sign-flip"
    )
    assert told.partition_of() == Partition("domain", "cell_type", 0.3)
    assert told.width_shares() == ((0.25, 0.3), (1.0, 0.7))
    assert (told.slow(), told.hostile()) == ((0.2, 5.0), (0.1, "sign-flip"))
    assert LearningSettings(partition="domain").partition_of() == Partition("domain")
    assert LearningSettings(partition="dirichlet:7").partition_of().alpha == 7.0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"partition": "dirichlet:much"}, "'much' is no number"),
        ({"partition": "dirichlet:0"}, "above 0"),
        ({"partition": "folder:3"}, "want dirichlet:ALPHA"),
        ({"partition": "pareto"}, "want dirichlet:ALPHA"),
        ({"widths": "0.5:0.5"}, "add up to 1"),
        ({"widths": "0.5:0.5,0.5:0.5"}, "each width once"),
        ({"widths": "0.5"}, "'' is no number"),
        ({"stragglers": "0.5:0.1"}, "nobody is 0.1 times slower"),
        ({"stragglers": "2:3"}, "from 0 to 1"),
        ({"liars": "0.1:poison"}, "one of sign-flip, scaled, noise"),
        ({"devices": 0}, "devices"),
        ({"asleep": 1.0}, "asleep"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_says_what_can(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        LearningSettings(**wrong)
