"""The part of structured pruning that a live fleet does: rounds in which channels fade."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.compression.learning.reading import network_of
from headwater.compression.settings import resolve
from headwater.server.federation.app import federate, rounds_of
from headwater.server.federation.pruning.structured import carve, soft_masks
from headwater.server.federation.settings import RoundSettings
from headwater.server.federation.strategy import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headwater.compression.learning.network import SplitNetwork
    from headwater.server.federation.pruning.soft_masks import SoftMasks
    from headwater.server.federation.pruning.structured import Carved, Pruning


def over(pruning: Pruning, state: Path, config: Path | None, say: Callable[[str], None]) -> Carved:
    """Fade in rounds over the devices of a live server, and carve; killed, it goes on where it was."""
    made: list[SoftMasks] = []
    spec = pruning.bundle.manifest.input

    def companion(network: SplitNetwork) -> SoftMasks:
        made.append(soft_masks(network, spec, pruning.settings))
        return made[0]

    # what is carved is the last version, as its arrays hold the factors that the masks end with: a mean holds others
    told = {"rounds": pruning.settings.rounds, "sparse": 0.0, "average": 1}
    settings = resolve(RoundSettings, told, file=config).value
    rounds = rounds_of(pruning.bundle, state, settings, companion=companion, around=Surroundings(at=say))
    learnt = federate(rounds, state)
    return carve(network_of(pruning.bundle), learnt.arrays, made[0], spec)
