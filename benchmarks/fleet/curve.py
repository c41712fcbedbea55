"""What a contest gives: accuracy and bytes so far, after each round."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater.compression.learning.arrays import load
from headwater.compression.learning.train import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.fleet.ground import Ground
    from headwater.compression.learning.arrays import Arrays
    from headwater.server.federation.inprocess import InProcessGrid

SMOOTH = 3
"""Rounds that an accuracy is the mean of: one alone is as much luck as learning."""


@dataclass
class Curve:
    """By round, from 0, the start."""

    accuracy: list[float] = field(default_factory=list)
    """Share of right answers on the test pictures: the widest head's, at the finest gain."""
    up: list[int] = field(default_factory=list)
    """Bytes that all devices have sent so far."""
    down: list[int] = field(default_factory=list)
    """Bytes that they were sent."""

    @property
    def final(self) -> float:
        """Accuracy in the end: of the last :data:`SMOOTH` rounds."""
        last = self.accuracy[-SMOOTH:]
        return sum(last) / len(last)

    def reaches(self, accuracy: float) -> int | None:
        """The first round from which on :data:`SMOOTH` rounds have this accuracy on average; None for never."""
        for first in range(len(self.accuracy) - SMOOTH + 1):
            if sum(self.accuracy[first : first + SMOOTH]) / SMOOTH >= accuracy:
                return first + SMOOTH - 1
        return None


class Watch:
    """Measures every version of a grid's rounds."""

    def __init__(self, grid: InProcessGrid, ground: Ground, after: Callable[[int], None] = lambda _: None) -> None:
        """Measure on the ground's test pictures; `after` is called with the number of each round that is over."""
        from headwater.compression.learning.reading import network_of

        self.curve = Curve()
        self._grid, self._network, self._test, self._after = grid, network_of(ground.bundle), ground.test(), after

    def measure(self, arrays: Arrays) -> Mapping[str, float]:
        """Note what a version is worth, and what it has cost so far."""
        load(self._network, arrays)
        nodes, curve = self._grid.nodes.values(), self.curve
        curve.accuracy.append(evaluate(self._network, self._test, self._network.widths[-1], -1)["accuracy"])
        curve.up.append(sum(node.bytes_up for node in nodes))
        curve.down.append(sum(node.bytes_down for node in nodes))
        self._after(len(curve.accuracy) - 1)
        return {"accuracy": curve.accuracy[-1]}
