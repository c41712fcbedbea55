"""Dynamic sparse rounds: the server's part of FedMef (Huang et al., CVPR 2024).

A companion of the rounds. It tells devices how sparse they train, and every few rounds, until some round, it adjusts
the masks: the weights that extrusion has emptied go, and those come whose gradient is largest over all devices. Which
weights go is known when the round begins, so that its updates say nothing of them.

    round               1 .. every-1      every             ...   until          ...
    devices             train sparse      + extrude, and          the same       train sparse
                                          report gradients
    server, at the end                    prune and grow          prune and grow
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.compression.errors import SettingsError
from headwater.compression.learning import masks as masking
from headwater.compression.learning.sparse import SparsePlan
from headwater.server.federation.companion import Ending

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flwr.app import ConfigRecord
    from numpy.typing import NDArray

    from headwater.server.federation.averaging import Arrays, Contribution

_TAG = b"sparse\0"
GATHERED = "gathered"
"""The record of a reply that holds what was gathered."""


@dataclass(frozen=True)
class SparseSettings:
    """How sparse, and how it is changed."""

    density: float = 0.3
    """Share of the weights of convolutions and linear layers that are active."""
    keep: float = 0.3
    """Share of each layer's input that devices keep for backward."""
    extrude: float = 0.2
    """Share of a weight due to be dropped that a step takes away, in a round that ends with an adjustment."""
    every: int = 10
    """Rounds between adjustments."""
    until: int = 100
    """The round after which the masks stay."""
    fall: float = masking.FALL
    """Share of active weights that an adjustment at the very start would replace; it falls to 0 at `until`."""

    def __post_init__(self) -> None:
        """Raise :class:`SettingsError` for numbers that make no schedule; the plan checks the shares."""
        if self.every < 1 or self.until < 0 or not 0 <= self.fall < 1:
            raise SettingsError(
                f"masks cannot be adjusted every {self.every} rounds until round {self.until}, a share of {self.fall}: "
                "give every >= 1, until >= 0 and fall in 0..1"
            )

    def adjusts(self, number: int) -> bool:
        """Whether a round ends with an adjustment."""
        return number % self.every == 0 and number <= self.until

    def due(self, number: int) -> float:
        """Share of active weights that the next adjustment, at this round or after it, replaces."""
        at = -(-number // self.every) * self.every
        return masking.share_due(at / self.until, self.fall) if at <= self.until else 0.0

    def plan(self, number: int) -> SparsePlan:
        """What devices are asked for in a round."""
        adjusts = self.adjusts(number)
        return SparsePlan(self.density, self.keep, self.extrude if adjusts else 0.0, self.due(number), adjusts)


class Sparse:
    """The companion of sparse rounds."""

    def __init__(self, settings: SparseSettings, shapes: masking.Shapes) -> None:
        """Prepare.

        Args:
            settings: of the schedule.
            shapes: of what may be sparse, see :func:`headwater.compression.learning.sparse.maskable`.
        """
        self._settings, self._shapes = settings, shapes
        self._masks: dict[str, NDArray[np.bool_]] = {}
        self._announced = False

    def begin(self, arrays: Arrays) -> None:
        """Make the first masks, as devices do."""
        self._masks = masking.first(arrays, self._shapes, self._settings.density)

    def ask(self, number: int, round_: ConfigRecord) -> None:
        """Ask for sparse training."""
        round_["sparse"] = self._settings.plan(number).to_json()

    def masks(self) -> Mapping[str, NDArray[np.bool_]]:
        """The masks of now."""
        return self._masks

    def coded(self, number: int, held: Arrays) -> Mapping[str, NDArray[np.bool_]]:
        """The masks, in a round that adjusts them without what is due to go."""
        return self._settings.plan(number).coded(held, self._masks)

    def end(self, number: int, contributions: Sequence[Contribution], arrays: Arrays) -> Ending:
        """Adjust the masks if this round does."""
        before = self._masks
        if self._settings.adjusts(number):
            gradients = aggregated([(each.examples, each.gathered.get(GATHERED, {})) for each in contributions], before)
            arrays, self._masks = masking.adjust(arrays, before, gradients, self._settings.due(number))
        elif self._announced:
            return Ending(arrays)
        note = masking.to_bytes(self._masks, before, 0.0 if self._announced else self._settings.density)
        self._announced = True
        return Ending(arrays, note)

    def dump(self) -> bytes:
        """Whether devices know of the masks, and these, a bit a weight in the order of the names."""
        packed = [np.packbits(self._masks[name]).tobytes() for name in sorted(self._masks)]
        return _TAG + bytes([self._announced]) + b"".join(packed)

    def load(self, state: bytes) -> None:
        """Go on from a state; one that is not of sparse rounds is none.

        Raises :class:`SettingsError` if it is of another density: devices have its masks.
        """
        if not state.startswith(_TAG):
            return
        wanted = {name: int(mask.sum()) for name, mask in self._masks.items()}
        self._announced, done = bool(state[len(_TAG)]), len(_TAG) + 1
        for name in sorted(self._shapes):
            count = math.prod(self._shapes[name])
            bits = np.frombuffer(state, np.uint8, -(-count // 8), done)
            self._masks[name] = np.unpackbits(bits, count=count).astype(np.bool_).reshape(self._shapes[name])
            done += len(bits)
        if wanted != {name: int(mask.sum()) for name, mask in self._masks.items()}:
            raise SettingsError(
                f"what was learnt so far is sparse, of another density than {self._settings.density:g}: go on with "
                "that one, or have a dense run between, or begin --anew"
            )


def aggregated(
    reports: Sequence[tuple[float, Mapping[str, Any]]], masks: masking.Masks
) -> dict[str, NDArray[np.float32]]:
    """Gradients of inactive weights over all devices, weighted by their examples; 0 where nobody reported any.

    A device's values count as shares of its largest in a layer, so that none outweighs the others by its scale. A
    report that does not fit the layer counts as none.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for name, mask in masks.items():
        total = np.zeros(mask.size)
        for weight, report in reports:
            at, value = (report.get(f"{name}:{part}") for part in ("at", "value"))
            if isinstance(at, np.ndarray) and isinstance(value, np.ndarray) and _fits(at, value, mask.size):
                total[at] += weight * value.astype(np.float64) / max(np.abs(value).max(), 1e-30)
        found[name] = total.reshape(mask.shape).astype(np.float32)
    return found


def _fits(at: NDArray[Any], value: NDArray[Any], size: int) -> bool:
    """Whether these are distinct places of an array of ``size``, each with a finite value."""
    return (
        at.dtype == np.uint32
        and value.dtype == np.float32
        and at.ndim == 1
        and at.shape == value.shape
        and 0 < len(at) <= size
        and bool(at.max() < size)
        and len(np.unique(at)) == len(at)
        and bool(np.isfinite(value).all())
    )
