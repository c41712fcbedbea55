"""Whose arithmetic the deadline rule runs on: ``_ways.c``, or where it was not built its plain Python twin.

Both give the same to the last bit (tests/device/control/test_kernel.py). The twins say what is reckoned, and why; the
compiled ones take a tenth of their time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from headwater.device.control.margin import Margin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headwater.device.control.estimates import DeviceEstimate, RoundTrip

try:
    from headwater.device.control import _ways
except ImportError:  # installed where there was no C compiler
    _ways = None  # type: ignore[assignment]

Implementation = Literal["c", "python"]


def compiled(implementation: Implementation | None = None) -> bool:
    """Whether to run the compiled one; None takes it where it was built.

    Raises ImportError if it is asked for and was not built.
    """
    if implementation == "c" and _ways is None:
        raise ImportError("headwater.device.control._ways was not built; install headwater where there is a C compiler")
    return _ways is not None if implementation is None else implementation == "c"


def margin_type(implementation: Implementation | None = None) -> Callable[[float], Margin]:
    """:class:`headwater.device.control.margin.Margin`, or what is the same in C."""
    return cast("Callable[[float], Margin]", _ways.Margin) if compiled(implementation) else Margin


def round_trip_type() -> Callable[[float], RoundTrip]:
    """What is the same as :class:`headwater.device.control.estimates.RoundTrip`, in C."""
    return cast("Callable[[float], RoundTrip]", _ways.RoundTrip)


def device_estimate_type() -> Callable[[Mapping[float, int], float], DeviceEstimate]:
    """What is the same as :class:`headwater.device.control.estimates.DeviceEstimate`, in C."""
    return cast("Callable[[Mapping[float, int], float], DeviceEstimate]", _ways.DeviceEstimate)


def scales_type() -> type[_ways.Scales]:
    """What :class:`headwater.device.control.ways.Ways` weighs with in C."""
    return _ways.Scales


def decisions_type() -> type[_ways.Decisions]:
    """What makes decisions in C."""
    return _ways.Decisions


def steady_type() -> type[_ways.Steady]:
    """What :class:`headwater.device.control.deadline.DeadlineController` runs for the usual picture."""
    return _ways.Steady
