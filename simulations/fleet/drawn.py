"""The measured frames that a simulated one takes its times from: picked by its luck, which is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.simulations.fleet.calibration import Calibration
    from headwater.simulations.fleet.flight import Flight

OWN, PREPARE, HEAD, EXIT, CODE, HOPS, SERVE = range(7)
"""Columns of a row; see calibration.py."""
Row = list[float]


class Drawn:
    """What a class of devices draws from, or a server."""

    def __init__(self, calibration: Calibration, widths: Sequence[float], frames_per_s: float) -> None:
        """Take what was measured.

        Args:
            calibration: with frames of every width that is used.
            widths: of each mode.
            frames_per_s: of all that share a processor, which is the load that times are drawn for.
        """
        self._calibration, self._widths, self._load = calibration, widths, frames_per_s
        self._rows: dict[tuple[int, str], list[Row]] = {}
        self._cold_ms: dict[int, float] = {}

    def row(self, flight: Flight, mode: int, action: str) -> Row:
        """What this frame takes, ms; raises :class:`SettingsError` where nothing of the kind was measured."""
        rows = self._rows.get((mode, action))
        if rows is None:
            times = self._calibration.times(self._widths[mode], action, self._load)
            rows = self._rows[mode, action] = times.tolist()
        return rows[flight.luck % len(rows)]

    def cold_ms(self, mode: int) -> float:
        """What the head of a mode takes more where another one ran before it."""
        cold_ms = self._cold_ms.get(mode)
        if cold_ms is None:
            cold_ms = self._cold_ms[mode] = self._calibration.cold_ms(self._widths[mode])
        return cold_ms

    def batch_ms(self, flight: Flight, size: int) -> float:
        """What a batch takes whose first frame this is: that frame alone, times what the size makes of it."""
        return self.row(flight, flight.mode, "send")[SERVE] * self._calibration.batch_times(size)
