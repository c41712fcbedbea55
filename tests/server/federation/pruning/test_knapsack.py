"""The knapsack against every possibility tried out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.compression.errors import LearningError
from headwater.server.federation.pruning.knapsack import Choice, fill


def offers(seed: int, units: int, sizes: int) -> dict[str, list[Choice]]:
    rng = np.random.default_rng(seed)
    made = {}
    for unit in range(units):
        times, worths = np.sort(rng.uniform(0.1, 2, sizes)), np.sort(rng.uniform(0, 1, sizes))
        choices = zip(times, worths, strict=True)
        made[f"unit{unit}"] = [Choice(8 * (n + 1), float(t), float(w)) for n, (t, w) in enumerate(choices)]
    return made


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4), st.floats(0.0, 1.2))
def test_no_other_choice_that_fits_is_worth_more(seed: int, units: int, sizes: int, room: float) -> None:
    made = offers(seed, units, sizes)
    least = sum(choices[0].time_ms for choices in made.values())
    most = sum(choices[-1].time_ms for choices in made.values())
    limit = least + room * (most - least)
    found = fill(made, limit + 1e-9)
    assert list(found) == list(made)
    assert sum(choice.time_ms for choice in found.values()) <= limit + 1e-6
    step = (limit - least) / 4096
    fitting = [
        sum(choice.worth for choice in each)
        for each in itertools.product(*made.values())
        if sum(choice.time_ms for choice in each) <= limit - units * step
    ]
    if fitting:  # exact up to a step of time a unit
        assert sum(choice.worth for choice in found.values()) >= max(fitting) - 1e-9


def test_room_for_all_takes_all() -> None:
    made = offers(0, 5, 6)
    found = fill(made, 100.0)
    assert all(found[name] == choices[-1] for name, choices in made.items())


def test_a_time_that_nothing_fits_into_says_how_much_is_needed() -> None:
    with pytest.raises(LearningError, match=r"even the quickest choices take .* ms together, more than the 0.010 ms"):
        fill(offers(0, 3, 3), 0.01)
