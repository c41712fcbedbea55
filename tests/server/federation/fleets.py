"""A toy fleet in this process, and rounds over it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord

from headwater.protos.flower import acting_as
from headwater.server.federation.asynchronous import BufferedStrategy
from headwater.server.federation.companion import Companion
from headwater.server.federation.inprocess import InProcessGrid
from headwater.server.federation.settings import RoundSettings
from headwater.server.federation.strategy import FleetStrategy, Surroundings
from tests.server.federation import toy

FIVE = {"a": 1.0, "b": 1.0, "c": 0.5, "d": 0.25, "e": 1.0}


class Clock:
    """Seconds that pass when a test says so, and a little whenever somebody looks."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now, self.tick = 1000.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def grid(devices: Mapping[str, float] | None = None, **behaviour: Any) -> InProcessGrid:  # noqa: ANN401 - passed on
    """A grid of devices, by their widths."""
    widths = FIVE if devices is None else devices
    return InProcessGrid(toy.app, {name: {"width": width} for name, width in widths.items()}, **behaviour)


def settings(**changes: Any) -> RoundSettings:  # noqa: ANN401 - of any field
    return RoundSettings(**{"rounds": 2, "rate": 0.1, "up": toy.EXACT, "down": toy.EXACT, **changes})


def strategy(
    folder: Path,
    told: RoundSettings | None = None,
    *,
    companion: Companion | None = None,
    clock: Callable[[], float] | None = None,
    **around: Any,  # noqa: ANN401 - of any field
) -> FleetStrategy:
    told = told or settings()
    kind = BufferedStrategy if told.asynchronous else FleetStrategy
    return kind(toy.OUTLINE, folder, told, companion, Surroundings(clock=clock or Clock(), **around))


def run(rounds: FleetStrategy, over: InProcessGrid, initial: ArrayRecord | None = None) -> dict[str, Any]:
    """Run to the end and close; the arrays that come out."""
    try:
        with acting_as(1):
            result = rounds.start(over, initial or toy.initial())
    finally:
        rounds.journal.close()
    return {name: array.numpy() for name, array in result.arrays.items()}


def bytes_of(arrays: Mapping[str, Any]) -> bytes:
    return b"".join(arrays[name].tobytes() for name in sorted(arrays))
