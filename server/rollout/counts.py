"""What of a roll-out is on ``/metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.server.rollout.versions import Released

Settled = Literal["in use", "left", "refused"]
"""How a device stands to a release in the end."""
_LEFT = ("server", "device", "refused")


class Counts:
    """Bundles served, how far releases reach, changes of devices to them, and ways back. For any thread."""

    def __init__(self, registry: CollectorRegistry, served: Callable[[], int]) -> None:
        """Register with the server's metrics; `served` tells how many bundles are served."""
        bundles = Gauge("headwater_bundles_served", "Bundles whose frames are answered.", registry=registry)
        bundles.set_function(served)
        self._share = Gauge(
            "headwater_release_share",
            "Share of the devices that the newest release of a name is for: below 1 while it is tried.",
            ["name"],
            registry=registry,
        )
        self._ends = Gauge(
            "headwater_release_expiry_timestamp_seconds",
            "When the newest release of a name ends, Unix time: devices that have not followed it by then do not.",
            ["name"],
            registry=registry,
        )
        self._swaps = Counter(
            "headwater_bundle_swaps", "Devices that changed to a released bundle.", ["name"], registry=registry
        )
        self._back = Counter(
            "headwater_bundle_rollbacks",
            "Ways back: a release that was left for all (server), a device that left the bundle again or refused it.",
            ["by"],
            registry=registry,
        )
        for by in _LEFT:
            self._back.labels(by)
        self._newest: dict[str, int] = {}

    def stands(self, name: str, standing: Settled) -> None:
        """Count that a device uses a release now, or has gone back from it, or will not have it."""
        match standing:
            case "in use":
                self._swaps.labels(name).inc()
            case "left":
                self._back.labels("device").inc()
            case "refused":
                self._back.labels("refused").inc()

    def in_force(self, release: Released) -> None:
        """Look at the newest release of a name; one back that was not there before counts, whoever made it."""
        self._share.labels(release.name).set(min(release.share, 1.0))
        self._ends.labels(release.name).set(release.expires)
        before = self._newest.get(release.name)
        self._newest[release.name] = release.serial
        if release.back and before is not None and before != release.serial:
            self._back.labels("server").inc()
