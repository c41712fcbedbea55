"""A smaller bundle for the fleet to begin with: the first one, structurally pruned on the server's own pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headwater.server.federation.pruning.soft_masks import StructuredSettings
from headwater.server.federation.pruning.structured import Pruning
from headwater.server.rollout.build import Held, rebuild_from

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.fleet.ground import Ground

EPOCHS = 12
"""Over the server's pictures after surgery, as `headwater server prune` does it."""
CREATED = "2026-11-22T00:00:00+00:00"
"""In the manifest: of no matter, and the same each time."""


def pruned(ground: Ground, folder: Path) -> tuple[Ground, dict[str, float]]:
    """The same ground with the smaller bundle, and the times of its widest head and its tail, as shares of before."""
    first, images = ground.bundle, ground.servers()
    pruning = Pruning(first, images, StructuredSettings())
    carved = pruning.here(lambda _: None)
    pruning.tune(carved, EPOCHS, lambda _: None)
    path = folder / "pruned.zip"
    rebuild_from(first, carved.network, Held(images, ground.test()), created=CREATED).bundle.save(path)
    return replace(ground, begins_with=path), {"head": carved.head, "tail": carved.tails[0]}
