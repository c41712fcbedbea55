"""Amounts as a report prints them: few digits, a unit that fits, and words where digits would mislead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.simulations.charts import duration

if TYPE_CHECKING:
    from headwater.device.figure import Figure


def percent(value: float) -> str:
    """Of 100."""
    return "under 0.01 %" if 0 < value < 0.01 else f"{value:.3g} %"


def time(ms: float | None) -> str:
    """A duration in milliseconds, in the unit that fits."""
    return "-" if ms is None else duration(ms / 1e3)


def signed(number: float, digits: int) -> str:
    """A difference; none has no sign."""
    rounded = round(number, digits) + 0.0  # no -0.00
    return f"{rounded:+.{digits}f}" if rounded else f"{0:.{digits}f}"


def count(number: float) -> str:
    """How many."""
    return f"{number:,.0f}" if number < 1e5 else f"{number / 1e6:.2f} M"


def size(count: float) -> str:
    """Bytes, in the unit that fits."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


def joules(energy: float) -> str:
    """Joules, in the unit that fits."""
    unit, scale = _unit(energy)
    return f"{energy / scale:.3g} {unit}"


def joules_ranged(figure: Figure) -> str:
    """Joules with their range; a cell may break before the bracket only."""
    unit, scale = _unit(figure.mid)
    low, mid, high = (f"{each / scale:.3g}" for each in (figure.low, figure.mid, figure.high))
    return f"{mid}\N{NO-BREAK SPACE}{unit} ({low}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{high})" if figure.high else "0"


def _unit(energy: float) -> tuple[str, float]:
    return ("MJ", 1e6) if energy >= 1e6 else ("kJ", 1e3) if energy >= 1e3 else ("J", 1.0)
