"""What devices are to do for a while, said once: real devices do it (`stage.py`), and the twin does it (`replay.py`).

Each device takes its pictures at moments that are known beforehand, of pictures that are known beforehand, on a link of
its own whose trace is known beforehand. What is left to chance is how long everything takes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater.simulations.trace import LinkTrace

LEAD_S = 0.25
"""From the start of the traces to the first picture of all."""
SPREAD = 0.618033988749895
"""Of a period, between the pictures of one device and the next: the golden ratio leaves no two of them close."""
LINK_SHIFT_S = 7.0
"""How much later in the trace each device begins than the one before it."""


@dataclass(frozen=True)
class Traffic:
    """Devices of one kind, for a while."""

    name: str
    link: LinkTrace
    """Of the first device; each other has the same, begun :data:`LINK_SHIFT_S` later than that before it."""
    devices: int = 1
    fps: float = 5.0
    """Pictures a second of each."""
    seconds: float = 10.0
    """How long pictures are taken."""
    deadline_ms: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    """More of the agent's settings, such as width, gain or objective."""
    sweep: tuple[tuple[int, str], ...] = ()
    """Modes and actions that the devices take in turn, in place of their own rule: for measuring what each takes."""
    exit: bool = True
    """Whether the bundle's local exit may answer or step in."""
    seed: int = 0
    """Of the pictures' order."""
    landing_s: float = 30.0
    """How long frames that were given up may be on their way in the end; on a dead link they never land."""

    @property
    def frames(self) -> int:
        """Pictures of each device."""
        return max(round(self.fps * self.seconds), 1)

    @property
    def frames_per_s(self) -> float:
        """Of all devices together."""
        return self.fps * self.devices

    def due_s(self, device: int, number: int = 0) -> float:
        """When a device takes a picture, by the traces' time."""
        return LEAD_S + ((device * SPREAD) % 1 + number) / self.fps

    def link_of(self, device: int) -> LinkTrace:
        """A device's own link."""
        return self.link.later(device * LINK_SHIFT_S) if device else self.link

    def pictures(self, device: int, count: int) -> list[int]:
        """Which of `count` pictures each frame of a device is of: all in an order of its own, again and again."""
        order = list(range(count))
        random.Random(f"{self.seed}/{device}").shuffle(order)  # noqa: S311 - an order, not a secret
        return [order[number % count] for number in range(self.frames)]
