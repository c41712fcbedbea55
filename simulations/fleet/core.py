"""What a shard is simulated with: the compiled core ``_core.c``, or where it was not built its plain Python twin.

Both give the same bytes (tests/simulations/fleet/test_core.py). The Python says what happens and why, and does what the
compiled one leaves to it; that takes a tenth of its time for each picture, the product's controller and queue aside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headwater.simulations.fleet.agenda import Agenda
from headwater.simulations.fleet.crew import Crew
from headwater.simulations.fleet.links import Line, RateLink
from headwater.simulations.fleet.member import Device
from headwater.simulations.fleet.servers import Station
from headwater.simulations.fleet.tally import Tally

try:
    from headwater.simulations.fleet import compiled
except ImportError:  # installed where there was no C compiler
    compiled = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable

Implementation = Literal["c", "python"]


@dataclass(frozen=True)
class Kit:
    """What the parts of a simulation are made with; each is called as the Python class of its name is."""

    agenda: Callable[[float], Agenda]
    station: Callable[..., Station]
    tally: Callable[..., Tally]
    crew: Callable[..., Crew]
    device: Callable[..., Device]
    line: Callable[[float], Line]
    rate_link: type[RateLink]


PYTHON = Kit(Agenda, Station, Tally, Crew, Device, Line, RateLink)
_OF_C: Any = compiled  # their members are those of the Python classes, but types cannot say so


def kit(implementation: Implementation | None = None) -> Kit:
    """The parts of one implementation; None takes the compiled one where it was built.

    Raises ImportError if that is asked for and was not built.
    """
    if implementation == "c" and _OF_C is None:
        raise ImportError(
            "headwater.simulations.fleet._core was not built; install headwater where there is a C compiler"
        )
    if implementation == "python" or _OF_C is None:
        return PYTHON
    of = _OF_C
    return Kit(of.agenda, of.Station, of.Tally, of.Crew, of.Device, of.Line, of.RateLink)
