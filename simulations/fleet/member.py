"""One simulated device: a few numbers, its controller, its link, and its frames on their way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater.device.control.controller import Controller
    from headwater.simulations.fleet.flight import Flight
    from headwater.simulations.fleet.links import Line, Link
    from headwater.simulations.fleet.releases import Release
    from headwater.simulations.fleet.servers import Station


class Device:
    """One device."""

    __slots__ = (
        *("base_s", "burst_left", "controller", "ease", "flights", "free_s", "held_s", "key", "line", "link", "number"),
        *("pace", "release", "richness", "since_s", "station", "taken_s", "uses_new", "waiting"),
    )

    def __init__(self, key: int, controller: Controller, link: Link, line: Line, station: Station) -> None:
        self.key, self.controller, self.link, self.line, self.station = key, controller, link, line, station
        self.number = 0
        """Of the picture that comes next."""
        self.base_s = 0.0
        """When the last one was due."""
        self.burst_left = 0
        self.taken_s = -math.inf
        """When the last one was taken."""
        self.richness = self.ease = 0.0
        """Of what it sees: how long its frames are, how easy it is for the exit; standard normal, slowly varying."""
        self.free_s = 0.0
        """When it is done with the picture at hand; infinite while that is not known."""
        self.waiting: tuple[float, int] | None = None
        """The picture that waits for it: when it was taken, and its luck."""
        self.flights: list[Flight] = []
        self.held_s = 0.0
        """Until when it writes nothing, as the server was full."""
        self.since_s = 0.0
        """From when on it is connected."""
        self.pace = 1.0
        """How much longer its work takes now: it trains."""
        self.release: Release | None = None
        """Of the roll-out on its server, where there is one."""
        self.uses_new = False
        """It has that release's bundle."""

    def part(self) -> None:
        """Let go of frames and release, when all is done: they go round in circles, and nobody collects those."""
        self.flights, self.release = [], None
