"""What may be added to rounds without a strategy of its own: pruning does it, and so can a study.

A companion sees a round at three places: it adds to what is asked of devices, it sees what they send beside their
updates, and it has the last word on the new arrays. What it tells devices about a new version (new masks, say) travels
as that version's *note*, in the same chain as the updates, so that a device that slept through ten rounds gets all ten
in order. It lives through a kill by `dump`: its state is committed together with the version that it made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from flwr.app import ConfigRecord
    from numpy.typing import NDArray

    from headwater.server.federation.averaging import Arrays, Contribution


@dataclass(frozen=True)
class Ending:
    """How a round ends."""

    arrays: Arrays
    """What the network should hold now; devices get there by the update that is coded from it."""
    note: bytes = b""
    """For the devices, beside the update that leads to this version; they read it first. Empty for nothing."""


class Companion(Protocol):
    """All calls come in the order of the rounds; a round that is done again after a kill begins from the last dump."""

    def begin(self, arrays: Arrays) -> None:
        """Know the arrays that the run began from; called once, before all else."""

    def ask(self, number: int, round_: ConfigRecord) -> None:
        """Change what is asked of the devices in round `number` (the "round" record: sparse, gather, ...)."""

    def masks(self) -> Mapping[str, NDArray[np.bool_]] | None:
        """The masks of the version that is held now: it is 0 outside them. None for a dense network."""

    def coded(self, number: int, held: Arrays) -> Mapping[str, NDArray[np.bool_]] | None:
        """What devices' updates of round `number` code, from a version with these arrays; the round leaves no more."""

    def end(self, number: int, contributions: Sequence[Contribution], arrays: Arrays) -> Ending:
        """See what was gathered (`contribution.gathered`), change the aggregated arrays; masks() is new after it.

        `arrays` are the sum of the last version, of the round's aggregate and of what earlier updates left over.
        """

    def dump(self) -> bytes:
        """The state to go on from."""

    def load(self, state: bytes) -> None:
        """Go on from a state; one that another kind of companion has left, in an earlier run, is none."""


class Dense:
    """The companion of rounds that prune nothing."""

    def begin(self, arrays: Arrays) -> None:
        """They do not matter."""

    def ask(self, number: int, round_: ConfigRecord) -> None:
        """Ask for nothing more."""

    def masks(self) -> Mapping[str, NDArray[Any]] | None:
        """There are none."""
        return None

    def coded(self, number: int, held: Arrays) -> Mapping[str, NDArray[Any]] | None:
        """None: all of it."""
        del number, held
        return None

    def end(self, number: int, contributions: Sequence[Contribution], arrays: Arrays) -> Ending:
        """Leave all as it is."""
        del number, contributions
        return Ending(arrays)

    def dump(self) -> bytes:
        """There is no state."""
        return b""

    def load(self, state: bytes) -> None:
        """There is no state."""
