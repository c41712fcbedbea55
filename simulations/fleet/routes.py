"""Which server a device is at, as servers go down and come back: the product's order, and staying where it works."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headwater.device.route import ranked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headwater.simulations.fleet.member import Device
    from headwater.simulations.fleet.servers import Station

RECONNECT_S = 1.0
"""From a connection's end to the next one's being of use: one attempt in vain, one that works, and the hello."""


class Routes:
    """Of all devices of a shard."""

    def __init__(self, stations: Mapping[str, Station]) -> None:
        """``stations``: by name."""
        self._stations = stations
        self._orders: dict[int, tuple[str, ...]] = {}
        self.outages = any(station.outages for station in stations.values())

    def first(self, device: int, name: str, servers: Sequence[str]) -> Station:
        """Where a device begins; remembers its order where that may be of use. ``device``: its key."""
        if len(self._stations) == 1 and not self.outages:
            (only,) = self._stations.values()
            return only
        order = ranked(servers, name)
        if self.outages:
            self._orders[device] = tuple(order)
        return self._stations[order[0]]

    def follow(self, device: Device, now_s: float) -> None:
        """Move a device on from servers that went down until now."""
        while (down_s := self._down(device, now_s)) is not None:
            self._move(device, down_s)

    def _down(self, device: Device, now_s: float) -> float | None:
        """When the device's server went down under it, by now."""
        since_s = device.since_s
        for from_s, to_s in device.station.outages:
            if from_s <= now_s and to_s > since_s and now_s >= since_s:
                return max(from_s, since_s)
        return None

    def _move(self, device: Device, down_s: float) -> None:
        """To the next in its order that is up then; where none is, to the one that is up first."""
        order = self._orders[device.key]
        own = order.index(device.station.name)
        at_s = down_s + RECONNECT_S
        others = [self._stations[name] for name in (*order[own + 1 :], *order[:own], order[own])]
        station = next((each for each in others if each.is_up(at_s)), None)
        if station is None:
            station = min(others, key=lambda each: _up_again(each, at_s))
            at_s = _up_again(station, at_s) + RECONNECT_S
        device.station, device.since_s = station, at_s


def _up_again(station: Station, time_s: float) -> float:
    return min((to_s for from_s, to_s in station.outages if from_s <= time_s < to_s), default=math.inf)
