"""What is refused before it costs anything: a status for the caller, a count for the operator, a line for the log.

A line names the call, the device and its address, never what the caller sent. Whoever is refused a thousand times a
second is counted a thousand times, and logged once.
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Literal, get_args

import grpc

from headwater.server.access.limits import Meter

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.server.metrics import Metrics

Reason = Literal[
    "unknown",
    "revoked",
    "expired",
    "renewed",
    "replaced",
    "device",
    "register",
    "renamed",
    "enrolment",
    "calls",
    "streams",
    "requests",
    "turnstile",
    "memory",
    "size",
    "slow",
    "handshake",
]
"""Why, as the metric's label:

    unknown     the certificate is of the authority, but not in the register
    revoked     the device was revoked
    expired     the certificate is past its time
    renewed     the certificate of a device that has a newer one
    replaced    the certificate of a device that was enrolled again since
    device      the caller says that it is another device than its certificate
    register    the register of devices cannot be read, so that nobody can be let in
    renamed     the device was renamed while it was connected, and connects again
    enrolment   an enrolment's token is wrong, expired or used, or its request or name is bad
    calls       more calls of a device are open than may be
    streams     more streams of a device are open than may be
    requests    more calls or frames of a device come in a second than may
    turnstile   too many devices come at a time
    memory      a stream holds as much as it may
    size        a message is larger than any of its kind
    slow        a call's first message did not come in time
    handshake   a connection came to no call: no certificate that TLS would take, or nobody there (arrivals.py)
"""
REASONS: tuple[Reason, ...] = get_args(Reason)
_CODES: dict[Reason, grpc.StatusCode] = {
    "unknown": grpc.StatusCode.UNAUTHENTICATED,
    "revoked": grpc.StatusCode.PERMISSION_DENIED,
    "expired": grpc.StatusCode.UNAUTHENTICATED,
    "renewed": grpc.StatusCode.UNAUTHENTICATED,
    "replaced": grpc.StatusCode.UNAUTHENTICATED,
    "device": grpc.StatusCode.PERMISSION_DENIED,
    "register": grpc.StatusCode.UNAVAILABLE,
    "renamed": grpc.StatusCode.UNAVAILABLE,
    "slow": grpc.StatusCode.DEADLINE_EXCEEDED,
}
LINES_AT_ONCE, LINES_PER_S = 5, 0.2
"""Of the log, for each reason."""
PUSHBACK = "grpc-retry-pushback-ms"
"""Trailing metadata by which a server says when to come again; gRPC's own retry policies read it too."""

_log = logging.getLogger("headwater.server.access")


class Denied(Exception):  # noqa: N818 - an answer to the caller, not a fault
    """Why a call ends: the reason that is counted, and words for the caller."""

    def __init__(self, reason: Reason, detail: str, retry_after_s: float = 0.0) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s

    @property
    def code(self) -> grpc.StatusCode:
        """As which gRPC status the caller sees it."""
        return _CODES.get(self.reason, grpc.StatusCode.RESOURCE_EXHAUSTED)

    @property
    def pushback(self) -> tuple[tuple[str, str], ...]:
        """Trailing metadata with the time to wait, if there is one."""
        return ((PUSHBACK, str(math.ceil(self.retry_after_s * 1e3))),) if self.retry_after_s else ()


class Denials:
    """Counts and logs them; for the event loop's thread."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._lines: dict[Reason, Meter] = {reason: Meter(LINES_PER_S, LINES_AT_ONCE) for reason in REASONS}
        self._silent: dict[Reason, int] = dict.fromkeys(REASONS, 0)

    def count(self, reason: Reason) -> None:
        """Count one that is logged elsewhere."""
        self._metrics.count_denied(reason)

    def note_silent(self, connections: int) -> None:
        """Count and log connections that ended in the handshake."""
        if connections:
            self._metrics.count_denied("handshake", connections)
            extra = {"reason": "handshake", "connections": connections}
            _log.warning("connections came to no call", extra=extra)

    def note(self, why: Denied, method: str, device: str, peer: str) -> None:
        """Count a call that is refused, and log it unless many like it were logged just now."""
        self._metrics.count_denied(why.reason)
        if not self._lines[why.reason].take(self._clock()):
            self._silent[why.reason] += 1
            return
        silent, self._silent[why.reason] = self._silent[why.reason], 0
        extra = {"reason": why.reason, "method": method, "device": device, "peer": peer, "not_logged_before": silent}
        _log.warning("a call was denied", extra=extra)
