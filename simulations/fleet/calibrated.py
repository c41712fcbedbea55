"""Devices and servers of the twin whose times are drawn from frames that were measured (calibration.py).

A frame's luck, which is its own whatever else happens, picks the measured frame that all its times are from: those on
the device, of the hops, and of the server's batch that it is in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater.simulations.fleet.crew import Crew
from headwater.simulations.fleet.member import Device
from headwater.simulations.fleet.servers import Station

if TYPE_CHECKING:
    from headwater.compression.manifest import Mode
    from headwater.device.controller import Decision
    from headwater.simulations.fleet.calibration import Calibration
    from headwater.simulations.fleet.flight import Flight
    from headwater.simulations.fleet.member import Device
    from headwater.simulations.fleet.servers import Batch

OWN, PREPARE, HEAD, EXIT, CODE, HOPS, SERVE = range(7)
"""Columns of a row."""
Row = list[float]


class Drawn:
    """The measured frames that a class of devices draws from."""

    def __init__(self, calibration: Calibration, modes: tuple[Mode, ...], frames_per_s: float) -> None:
        """``frames_per_s``: of all that share a processor, which is the load that they are drawn for."""
        self._calibration, self._modes, self._load = calibration, modes, frames_per_s
        self._rows: dict[tuple[int, str], list[Row]] = {}

    def row(self, flight: Flight, mode: int, action: str) -> Row:
        """What this frame takes; raises :class:`SettingsError` where nothing of the kind was measured."""
        rows = self._rows.get((mode, action))
        if rows is None:
            times = self._calibration.times(self._modes[mode].width, action, self._load)
            rows = self._rows[mode, action] = times.tolist()
        return rows[flight.luck % len(rows)]


class CalibratedCrew(Crew):
    """Devices of a class."""

    def __init__(self, *crew: Any, drawn: Drawn) -> None:  # noqa: ANN401 - what Crew takes
        """``crew``: see :class:`Crew`."""
        super().__init__(*crew)
        self.drawn = drawn

    def _work(self, device: Device, flight: Flight, decision: Decision) -> float:
        row, tally, pace = self.drawn.row(flight, decision.mode, decision.action), self.tally, device.pace
        flight.prepare_ms, flight.head_ms = row[PREPARE] * pace, row[HEAD] * pace
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

    calibration: Calibration
    """Set before anything arrives."""

    def _took_s(self, batch: Batch) -> float:
        flight = batch[0].work
        crew = flight.crew
        assert isinstance(crew, CalibratedCrew), "a calibrated server has calibrated devices"
        alone_ms = crew.drawn.row(flight, flight.mode, "send")[SERVE]
        return alone_ms * self.calibration.batch_times(len(batch)) / 1e3
