"""The virtual devices: names, node configs and behaviour, each computed from its number when it is asked for.

What the driver keeps of a device is a few numbers in arrays, and its node id; images are index lists that the actor
draws from the seed, and what a device has learnt is on the shelf. So a fleet of ten thousand takes the memory of one of
a hundred, and a few megabytes.

Legend: N devices.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.protos.nodes import node_id
from headwater.simulations.learning.availability import Always, Availability, Sleepers, Trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from headwater.simulations.learning.settings import LearningSettings

_WIDTH, _SLOW, _HOSTILE, _SLEEP = range(4)
"""What a seed is for, so that no two traits go together."""


@dataclass(frozen=True)
class Images:
    """Where the devices' images come from."""

    config: Mapping[str, Any]
    """Keys of every node config: data, and how it is shared out."""
    counts: NDArray[np.int64]
    """Images to learn from, of each device, [N]; of fewer, again from the first."""
    folders: Sequence[str] = ()
    """Of each device, its folder; again from the first where there are more devices. Empty: all have one."""


class Fleet:
    """N devices."""

    def __init__(self, told: LearningSettings, images: Images, memory: Mapping[float, int], bundle: str) -> None:
        """`memory`: bytes that make a device train a width and no wider one; `bundle`: its path."""
        N, seed = told.devices, told.seed
        self._told, self._images, self._bundle = told, images, bundle
        self.seed = seed
        self._digits = max(4, len(str(N - 1)))
        shares = told.width_shares()
        self.widths = [width for width, _ in shares]
        self._memory = [memory[width] for width in self.widths]
        self._width_of = _dealt([share for _, share in shares] or [1.0], N, (seed, _WIDTH))
        slow, self._factor = told.slow()
        self._slow = _dealt([1 - slow, slow], N, (seed, _SLOW)) == 1
        hostile, self._lie = told.hostile()
        self.hostile = _dealt([1 - hostile, hostile], N, (seed, _HOSTILE)) == 1
        self.numbers = {node_id(self.name(number)): number for number in range(N)}
        """The number of each node id."""
        self.availability = _availability(told)

    def __len__(self) -> int:
        """N."""
        return self._told.devices

    def name(self, number: int) -> str:
        """Of a device."""
        return f"device-{number:0{self._digits}d}"

    def lie(self, number: int) -> str:
        """How a device lies; empty for an honest one."""
        return self._lie if self.hostile[number] else ""

    def width(self, number: int) -> float | None:
        """The widest that it has memory for; None where all have memory for all."""
        return self.widths[self._width_of[number]] if self.widths else None

    def config(self, number: int) -> dict[str, Any]:
        """Its node config."""
        found = {"device": self.name(number), "bundle": self._bundle, **self._images.config, "partition-id": number}
        if self._images.folders:
            found["data"] = self._images.folders[number % len(self._images.folders)]
        if self.widths:
            found["memory-bytes"] = self._memory[self._width_of[number]]
        return found

    def takes_s(self, number: int, epochs: float, batch: int) -> float:
        """Simulated seconds of training: its steps, at its pace."""
        images = int(self._images.counts[number % len(self._images.counts)])
        steps = max(1, math.ceil(epochs * images / max(batch, 1)))
        return steps * self._told.step_s * (self._factor if self._slow[number] else 1.0)

    def drops(self, number: int, key: str) -> bool:
        """Whether a device never answers a message."""
        return bool(self._told.dropout) and chance(f"{self._told.seed}/drop/{number}/{key}") < self._told.dropout


def chance(text: str) -> float:
    """A number from 0 to 1 that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _dealt(shares: Sequence[float], devices: int, seed: tuple[int, int]) -> NDArray[np.uint8]:
    """The class of each device, [N]: shares are kept to within one device."""
    bounds = np.round(np.cumsum(shares) * devices).astype(np.int64)
    dealt = np.searchsorted(bounds, np.arange(devices), side="right").clip(max=len(shares) - 1).astype(np.uint8)
    return np.random.default_rng(seed).permutation(dealt)


def _availability(told: LearningSettings) -> Availability:
    if told.availability is not None:
        return Trace.read(told.availability, told.devices)
    if told.asleep:
        return Sleepers(told.devices, told.asleep, told.slot_s, told.seed * 4 + _SLEEP)
    return Always(told.devices)
