"""A figure with its range and where it is from; what power and time of devices that nobody has at hand are told by."""

from __future__ import annotations

from dataclasses import dataclass

from headwater.compression.errors import SettingsError


@dataclass(frozen=True)
class Figure:
    """A value between a low and a high one. Sums and products take lows and highs together: the widest range."""

    low: float
    mid: float
    high: float
    source: str = ""
    """Where it is from: measured, cited or derived, and how."""

    def __post_init__(self) -> None:
        """Check the order; :class:`SettingsError` otherwise."""
        if not 0 <= self.low <= self.mid <= self.high < float("inf"):
            raise SettingsError(f"low, mid, high are {self.low:g}, {self.mid:g}, {self.high:g}; they must rise from 0.")

    def __add__(self, other: Figure) -> Figure:
        return Figure(self.low + other.low, self.mid + other.mid, self.high + other.high)

    def __mul__(self, other: Figure | float) -> Figure:
        by = other if isinstance(other, Figure) else Figure(other, other, other)
        return Figure(self.low * by.low, self.mid * by.mid, self.high * by.high)

    @property
    def relative(self) -> Figure:
        """Its range around 1; of a figure of 0, exactly 1."""
        return Figure(self.low / self.mid, 1.0, self.high / self.mid) if self.mid else Figure(1.0, 1.0, 1.0)


ZERO = Figure(0.0, 0.0, 0.0)
