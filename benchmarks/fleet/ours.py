"""Our rounds on the same ground, and what may be wrong with a fleet: weak devices, sleeping ones, hostile ones."""

from __future__ import annotations

import itertools
import random
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flwr.app import Array, ArrayRecord

from benchmarks.fleet.curve import Curve, Watch
from headwater.compression.learning.fitting import needs
from headwater.compression.learning.layout import belongs, layout_of
from headwater.compression.learning.plan import Plan
from headwater.compression.learning.sparse import maskable
from headwater.device.federated.app import app
from headwater.device.federated.holding import start_of
from headwater.protos.flower import acting_as
from headwater.server.federation.inprocess import InProcessGrid
from headwater.server.federation.outline import Outline
from headwater.server.federation.pruning.sparse import Sparse, SparseSettings
from headwater.server.federation.strategy import FleetStrategy, Surroundings
from headwater.simulations.learning.hostile import lied

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flwr.app import Message

    from benchmarks.fleet.ground import Ground
    from headwater.compression.updates import Layout
    from headwater.server.federation.settings import RoundSettings

    Tamper = Callable[[Message], Message]

THIRD = 3
LIES = {"sign": "sign-flip", "noise": "noise", "scaled": "scaled"}
"""Of a contest with hostile devices, what they do to their updates; who flips labels learns what is wrong, honestly."""


@dataclass(frozen=True)
class Troubles:
    """What is wrong with a fleet."""

    weak: bool = False
    """A third of the devices have memory for the narrowest width alone, and another third sleeps, by turns."""
    hostile: str = ""
    """What a third of the devices does: sign, noise, label, scaled; empty: nothing."""
    sparse: SparseSettings | None = None
    """Sparse rounds."""


def rounds(ground: Ground, settings: RoundSettings, troubles: Troubles, folder: Path) -> Curve:
    """Run them in a fresh folder; what each round brought and cost."""
    shutil.rmtree(folder, ignore_errors=True)
    start = start_of(str(ground.bundle_path))
    network = start.network()
    layout, rng = layout_of(network), random.Random(ground.seed)
    third = sorted(rng.sample(ground.names, len(ground.names) // THIRD))
    tamper = dict.fromkeys(third, _tampers(layout, troubles.hostile)) if troubles.hostile in LIES else {}
    nodes: dict[str, dict[str, Any]] = {
        name: {"bundle": str(ground.bundle_path), "data": str(ground.data(name))} for name in ground.names
    }
    if troubles.hostile == "label":
        for name in third:
            nodes[name]["data"] = str(_flipped(ground.data(name), folder / name))
    if troubles.weak:
        narrow = Plan(width=network.widths[0], batch=settings.batch, at_once=1)
        for name in third:
            nodes[name]["memory-bytes"] = needs(network, start.bundle.manifest.input, narrow).peak
    grid = InProcessGrid(app, nodes, tamper=tamper)
    sleepers = _Sleepers(grid, rng) if troubles.weak else None
    watch = Watch(grid, ground, sleepers or (lambda _: None))
    heads = frozenset(name for name in layout.shapes if belongs(name, "head"))
    companion = None if troubles.sparse is None else Sparse(troubles.sparse, maskable(network))
    around = Surroundings(start.bundle.id, watch.measure)
    strategy = FleetStrategy(Outline.of(layout, heads), folder, settings, companion, around)
    watch.measure(start.arrays)
    with acting_as(grid.run.run_id):
        strategy.start(grid, ArrayRecord({name: Array(array) for name, array in start.arrays.items()}))
    strategy.journal.close()
    return watch.curve


class _Sleepers:
    """After each round another third of the devices sleeps."""

    def __init__(self, grid: InProcessGrid, rng: random.Random) -> None:
        self._nodes, self._rng = sorted(grid.nodes.values(), key=lambda node: node.name), rng

    def __call__(self, _: int) -> None:
        asleep = set(self._rng.sample(range(len(self._nodes)), len(self._nodes) // THIRD))
        for index, node in enumerate(self._nodes):
            node.awake = index not in asleep


# ---------------------------------------------------------------- hostile devices


def _tampers(layout: Layout, kind: str) -> Tamper:
    """What hostile devices do to each of their updates before they send it; no two of them the same noise."""
    seeds = itertools.count()
    return lambda reply: lied(reply, LIES[kind], layout, next(seeds))


def _flipped(source: Path, target: Path) -> Path:
    """A copy of a folder of pictures in which every label is the next one."""
    labels = sorted(path.name for path in source.parent.glob("*/*") if path.is_dir())
    names = sorted(set(labels))
    for index, name in enumerate(names):
        wrong = target / names[(index + 1) % len(names)]
        wrong.mkdir(parents=True, exist_ok=True)
        for file in sorted((source / name).glob("*.png")):
            shutil.copyfile(file, wrong / f"{name}-{file.name}")
    return target
