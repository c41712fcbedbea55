"""What training may take of the device, and when it has to wait: memory, mains or battery, heat.

An app finds its budget in its node config (Flower's ``context.node_config``), under these keys:

===============  ===================================================================================
device           the device's name
bundle           path of the bundle in use, a directory or a zip
data             folder of labelled pictures (``--train-data``)
memory-bytes     what it may allocate above what its process takes when it is idle
seconds          processor time that the message may take (``--train-seconds``); 0.0: any
===============  ===================================================================================

Under a stock ``flwr run`` the same keys come from a SuperNode's ``--node-config``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater.device.federated.jobs import Config
    from headwater.device.settings import DeviceSettings

SHARE = 0.5
"""Of the memory that is free, what training takes unless it was told."""
COOLER = 5.0
"""Degrees below its limit that the device cools down before training goes on."""


@dataclass(frozen=True)
class Budget:
    """What the settings allow, on this machine."""

    memory_bytes: int | None
    """None: :data:`SHARE` of what is free when a message is begun."""
    seconds: float | None
    on_battery: bool
    max_celsius: float | None
    system: Path = Path("/")
    """Where ``proc`` and ``sys`` are."""

    @classmethod
    def of(cls, settings: DeviceSettings) -> Budget:
        """That of the settings."""
        megabytes = settings.train_memory_mb
        memory = None if megabytes is None else megabytes * 1_000_000
        return cls(memory, settings.train_seconds, settings.train_on_battery, settings.train_max_celsius)

    def config(self, settings: DeviceSettings, bundle: Path) -> Config:
        """The node config of a message that is begun now."""
        room = self.memory_bytes if self.memory_bytes is not None else int(SHARE * free_bytes(self.system))
        return {
            "device": settings.device_name,
            "bundle": str(bundle),
            "data": str(settings.train_data),
            "memory-bytes": room,
            "seconds": self.seconds or 0.0,
        }

    def why_not(self, *, waiting: bool) -> str:
        """Why nothing is to be trained now, for people; empty if it may. ``waiting``: it has been held up so far."""
        if not self.on_battery and runs_on_battery(self.system):
            return "the device runs on its battery"
        limit = self.max_celsius
        if limit is not None and (hot := celsius(self.system)) > limit - COOLER * waiting:
            return f"the device has {hot:.0f} degrees"
        return ""


def free_bytes(system: Path = Path("/")) -> int:
    """Memory that this process may still take: what the machine has, or what its control group is allowed."""
    lines = (system / "proc/meminfo").read_text(encoding="ascii").splitlines()
    free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    group = system / "sys/fs/cgroup"
    try:
        limit, used = (int((group / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
    except (OSError, ValueError):  # no such group, or its limit is "max"
        return free
    return max(min(free, limit - used), 0)


def runs_on_battery(system: Path = Path("/")) -> bool:
    """Whether a battery is being drained; False where the machine knows of none."""
    supplies = list((system / "sys/class/power_supply").glob("*"))
    return any(_word(each / "type") == "Battery" and _word(each / "status") == "Discharging" for each in supplies)


def celsius(system: Path = Path("/")) -> float:
    """The hottest sensor, degrees Celsius; absolute zero where there is none."""
    zones = (system / "sys/class/thermal").glob("thermal_zone*/temp")
    return max((int(_word(zone)) / 1000 for zone in zones if _word(zone).lstrip("-").isdigit()), default=-273.15)


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
