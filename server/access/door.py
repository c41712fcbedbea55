"""Where a device's stream begins: so many of a device, and so many devices a second, each other one told when."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from headwater.server.access.denials import Denied
from headwater.server.access.limits import Allowances, DeviceLimits, Turnstile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater.server.access.limits import Allowance
    from headwater.server.settings import ServerSettings

REMEMBERED = 4
"""Devices whose allowances are remembered, of those that may be connected."""
OCCUPIED_S = 5.0
"""When a device with too many streams may try again; one that the network has lost ends after three heartbeats."""


class Door:
    """Lets streams in.

    Args:
        allowances: what each device has taken of what it may.
        turnstile: of all devices.
        most: streams of all devices.
    """

    def __init__(self, allowances: Allowances, turnstile: Turnstile, most: int) -> None:
        self.allowances = allowances
        self.inside = 0
        """Streams that are open."""
        self._turnstile = turnstile
        self._most = most

    @classmethod
    def of(cls, settings: ServerSettings, clock: Callable[[], float]) -> Self:
        """With the limits of the settings; `clock` gives monotonic seconds."""
        limits = DeviceLimits(
            requests_per_s=settings.max_device_requests_per_s,
            bytes_per_s=settings.max_device_bytes_per_s,
            urgent_per_s=settings.max_device_urgent_per_s,
            streams=settings.max_device_streams,
            calls=settings.max_device_calls,
            unanswered=settings.max_in_flight,
            stream_bytes=settings.max_stream_bytes,
        )
        rate, most = settings.max_greetings_per_s, settings.max_streams
        return cls(Allowances(limits, REMEMBERED * most, clock), Turnstile(rate, rate, most), most)

    @contextmanager
    def entered(self, device: str) -> Iterator[Allowance]:
        """Count a stream of the device while it is open; raises :class:`Denied`."""
        allowance = self._enter(device)
        allowance.streams += 1
        self.inside += 1
        try:
            yield allowance
        finally:
            allowance.streams -= 1
            self.inside -= 1

    def _enter(self, device: str) -> Allowance:
        allowance, now_s = self.allowances.of(device), self.allowances.clock()
        most = allowance.limits.streams
        if self.inside >= self._most:
            raise Denied("streams", f"{self._most} devices are connected already; try later", OCCUPIED_S)
        if allowance.streams >= most:
            raise Denied("streams", f"{most} streams of this device are open already; end one", OCCUPIED_S)
        if wait_s := allowance.greetings.wait_s(now_s):
            raise Denied("streams", f"this device opens streams too often; wait {wait_s:.3f} s", wait_s)
        if wait_s := self._turnstile.enter(device, now_s):
            raise Denied("turnstile", f"too many devices come at a time; come again in {wait_s:.3f} s", wait_s)
        allowance.greetings.take(now_s)
        return allowance
