"""What the user wants of the frames: how sure, how many bytes, how much energy, which task first.

Data only; :mod:`headwater.device.control.rule` decides by it.

The prices of energy are documented defaults, to be replaced by what was measured on the device at hand:

- Radio: :mod:`headwater.device.radio`, which names the sources. An LTE radio stays awake for seconds after its last
  byte; a device that sends more often than that is always in this tail, so that no single frame owes it. Only a radio
  without a tail pays for waking with every frame.
- Computing: what a busy core adds to an idle board. A Raspberry Pi 4 draws about 2.3 W idle and 5.1 to 6.4 W with its
  cores busy; the head keeps one core busy of four, a quarter of the 4.1 W between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import fsum
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from headwater.compression.errors import SettingsError
from headwater.compression.settings import between
from headwater.device.radio import RADIOS, Radio, RadioKind

if TYPE_CHECKING:
    from collections.abc import Mapping

Objective = Literal["accuracy", "bytes", "energy"]
"""accuracy: the most right answers. bytes, energy: the least of these within `Policy.slack` of the most accurate."""


class Cost(NamedTuple):
    """What the user wants little of, bytes or joules, as a straight line."""

    per_ms: float
    """Of head, exit and coder."""
    per_frame: float
    """That is sent, whatever its length."""
    per_byte: float

    def of(self, compute_ms: float, sent_bytes: float = 0.0) -> float:
        """Of a frame; of one that is not sent it is the computing alone."""
        return self.per_ms * compute_ms + (self.per_frame + self.per_byte * sent_bytes if sent_bytes else 0.0)


@dataclass(frozen=True)
class Prices:
    """What a frame costs in energy."""

    compute_watts: float
    """Power that head, exit and coder add to the idle board while they run."""
    radio_watts: float
    """Power of the radio while it sends, beside the energy of the bits."""
    joule_per_byte: float
    """Of each byte that is sent."""
    joule_per_frame: float = 0.0
    """Of each transmission, whatever its length: waking the radio, its tail."""

    def cost(self, byte_ms: float) -> Cost:
        """Energy of frames on a link on which a byte takes so long."""
        per_byte = self.joule_per_byte + self.radio_watts * byte_ms / 1e3
        return Cost(self.compute_watts / 1e3, self.joule_per_frame, per_byte)


COMPUTE_WATTS = 1.0
"""What head, exit and coder add to an idle board; see the module's text."""


def _prices(radio: Radio) -> Prices:
    woken = 0.0 if radio.tail_s.mid else radio.wake_j.mid
    return Prices(COMPUTE_WATTS, radio.send_w.mid, radio.send_j_per_byte.mid, woken)


PRICES: Mapping[RadioKind, Prices] = MappingProxyType({kind: _prices(radio) for kind, radio in RADIOS.items()})
"""By the kind of radio."""


@dataclass(frozen=True)
class Policy:
    """What the user wants; :class:`SettingsError` for values that cannot be."""

    objective: Objective = "accuracy"
    """What is made as good as it can be."""
    level: float = 0.99
    """Least probability of the server's answer by the deadline, where no local exit can step in."""
    slack: float = 1.0
    """Points of expected accuracy that the objectives bytes and energy may give up."""
    max_bytes_per_s: float | None = None
    """Bytes on the wire, headers included, that may be sent a second; None for any."""
    burst_s: float = 2.0
    """Seconds of that budget that may be saved up and spent at once."""
    prices: Prices = PRICES["wifi"]
    """Of energy, for the objective energy."""
    prefer: Mapping[str, float] = field(default_factory=dict)
    """Weight of each task's accuracy; one that is not named weighs 1."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.5 <= self.level < 1:
            raise SettingsError(f"level is {self.level:g}; it must be a probability from 0.5 to below 1, such as 0.99.")
        between("slack", self.slack, 0, 100)
        between("burst_s", self.burst_s, 0.1, 3600)
        if self.max_bytes_per_s is not None:
            between("max_bytes_per_s", self.max_bytes_per_s, 1, 1e12)
        for task, weight in self.prefer.items():
            between(f"prefer.{task}", weight, 0, 1e6)

    def cost(self, byte_ms: float) -> Cost:
        """What the objectives bytes and energy want little of, on a link on which a byte takes so long."""
        return self.prices.cost(byte_ms) if self.objective == "energy" else Cost(0.0, 0.0, 1.0)

    def accuracy(self, of_tasks: Mapping[str, float]) -> float:
        """Weighted mean of the tasks' accuracies; 0 where there is none."""
        weights = {task: self.prefer.get(task, 1.0) for task in of_tasks}
        # fsum: the same on every Python, of which some round a sum otherwise.
        total = fsum(weights.values())
        return fsum(weights[task] * accuracy for task, accuracy in of_tasks.items()) / total if total else 0.0
