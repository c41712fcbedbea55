"""Devices and servers of the twin whose times are drawn from frames that were measured (calibration.py).

A frame's luck, which is its own whatever else happens, picks the measured frame that all its times are from: those on
the device, of the hops, and of the server's batch that it is in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.simulations.fleet.crew import Crew
from headwater.simulations.fleet.drawn import CODE, EXIT, HEAD, HOPS, OWN, PREPARE
from headwater.simulations.fleet.member import Device
from headwater.simulations.fleet.servers import Station

if TYPE_CHECKING:
    from headwater.device.control.controller import Decision
    from headwater.simulations.fleet.drawn import Drawn
    from headwater.simulations.fleet.flight import Flight
    from headwater.simulations.fleet.member import Device
    from headwater.simulations.fleet.servers import Batch


class CalibratedCrew(Crew):
    """Devices of a class."""

    def __init__(self, *crew: Any, drawn: Drawn) -> None:  # noqa: ANN401 - what Crew takes
        """``crew``: see :class:`Crew`."""
        super().__init__(*crew)
        self.drawn = drawn
        self._widths: dict[int, float] = {}
        """Of the head that ran last, by device."""

    def _work(self, device: Device, flight: Flight, decision: Decision) -> float:
        row, tally, pace = self.drawn.row(flight, decision.mode, decision.action), self.tally, device.pace
        cold_ms = 0.0 if decision.action == "whole" else self._cold_ms(device, decision.mode)
        flight.prepare_ms, flight.head_ms = row[PREPARE] * pace, (row[HEAD] + cold_ms) * pace
        flight.code_ms = row[CODE] * pace
        tally.prepare_s += flight.prepare_ms * 1e-3
        if decision.action == "whole":
            tally.whole_s += flight.head_ms * 1e-3
        else:
            tally.head_s += flight.head_ms * 1e-3
        if self.model.exit is not None and decision.action != "whole":
            flight.exit_ms = row[EXIT] * pace
            flight.confidence = device.ease
            tally.exit_s += flight.exit_ms * 1e-3
        return (row[OWN] * pace + flight.prepare_ms + flight.head_ms + flight.exit_ms) / 1e3

    def _cold_ms(self, device: Device, mode: int) -> float:
        """What the head takes more, as another one ran last."""
        width = self.model.widths[mode]
        if self._widths.get(device.key) == width:
            return 0.0
        self._widths[device.key] = width
        return self.drawn.cold_ms(mode)

    def _write(self, flight: Flight, now_s: float) -> None:
        super()._write(flight, now_s + self._half_hops_s(flight))

    def served(self, flight: Flight, started_s: float, now_s: float) -> None:
        """Its batch is done; what the way back takes is not the server's time."""
        half_s = self._half_hops_s(flight)
        super().served(flight, started_s, now_s + half_s)
        flight.server_ms -= half_s * 1e3

    def _half_hops_s(self, flight: Flight) -> float:
        return self.drawn.row(flight, flight.mode, "send")[HOPS] / 2e3


class CalibratedStation(Station):
    """A server: a batch takes what its first frame takes alone, times what its size makes of that."""

    def __init__(self, *station: Any, drawn: Drawn) -> None:  # noqa: ANN401 - what Station takes
        """``station``: see :class:`Station`."""
        super().__init__(*station)
        self.handling_s = 0.0  # it is part of the hops that were measured
        self._drawn = drawn

    def _took_s(self, batch: Batch) -> float:
        return self._drawn.batch_ms(batch[0].work, len(batch)) / 1e3
