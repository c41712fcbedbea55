"""How many channels each layer keeps: the most importance that fits into a stated time.

Each unit offers a few choices, each with a time and a worth, and takes exactly one: the multiple-choice knapsack
problem (Sinha and Zoltners, 1979), solved exactly up to the rounding of times, by dynamic programming. That layers are
pruned by what they cost and what they are worth, together, follows "Structural Pruning via Latency-Saliency Knapsack"
(Shen et al., NeurIPS 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.errors import LearningError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STEPS = 4096
"""Into which the time is divided; each unit's time is rounded up to one of them, so that the bound holds."""


@dataclass(frozen=True)
class Choice:
    """One size that a unit could have."""

    channels: int
    time_ms: float
    worth: float


def fill(offers: Mapping[str, Sequence[Choice]], limit_ms: float) -> dict[str, Choice]:
    """A choice for each unit, of the largest sum of worth whose times together are at most ``limit_ms``.

    Raises :class:`LearningError` if even the quickest choices take longer.
    """
    least = sum(min(choice.time_ms for choice in choices) for choices in offers.values())
    if least > limit_ms:
        raise LearningError(
            f"even the quickest choices take {least:.3f} ms together, more than the {limit_ms:.3f} ms that were asked "
            "for; ask for a longer time"
        )
    # What all units take at least is no matter of choice: only what goes beyond it is divided into steps.
    step = max((limit_ms - least) / STEPS, 1e-12)
    best = np.zeros(STEPS + 1)
    taken: list[np.ndarray] = []
    for choices in offers.values():
        quickest = min(choice.time_ms for choice in choices)
        rows = np.full((len(choices), STEPS + 1), -np.inf)
        for row, choice in zip(rows, choices, strict=True):
            steps = int(np.ceil((choice.time_ms - quickest) / step - 1e-9))
            if steps <= STEPS:
                row[steps:] = best[: STEPS + 1 - steps] + choice.worth
        taken.append(rows.argmax(axis=0))
        best = rows.max(axis=0)
    found, left = {}, STEPS
    for (name, choices), row in zip(reversed(list(offers.items())), reversed(taken), strict=True):
        choice = choices[int(row[left])]
        left -= int(np.ceil((choice.time_ms - min(each.time_ms for each in choices)) / step - 1e-9))
        found[name] = choice
    return {name: found[name] for name in offers}
