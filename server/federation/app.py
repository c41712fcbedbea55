"""Rounds for a live fleet, and the same as a ServerApp for Flower's own ways of starting one.

`federate` is what `headwater server federate` calls: over the streams of the devices that are connected to the server
of the same state folder. `app` is for `flwr run` and Flower's simulation engine; there the run's config names the
bundle and the state folder, and may override any setting of the rounds:

    [tool.flwr.app.components]
    serverapp = "headwater.server.federation.app:app"
    clientapp = "headwater.device.federated.app:app"

    [tool.flwr.app.config]
    bundle = "solar.zip"
    state = "out/rounds"
    rounds = 3
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from headwater.compression.bundle import Bundle
from headwater.compression.datasets import NAMES, open_dataset, split
from headwater.compression.errors import SettingsError
from headwater.compression.labelled import open_labelled
from headwater.compression.learning.arrays import arrays_of
from headwater.compression.learning.layout import belongs, layout_of
from headwater.compression.learning.reading import network_of
from headwater.compression.learning.samples import Samples
from headwater.compression.learning.sparse import maskable
from headwater.protos.flower import to_record
from headwater.server.federation.asynchronous import BufferedStrategy
from headwater.server.federation.companion import Dense
from headwater.server.federation.grid import StreamGrid
from headwater.server.federation.measuring import measure
from headwater.server.federation.outline import Outline
from headwater.server.federation.pruning.sparse import Sparse, SparseSettings
from headwater.server.federation.settings import RoundSettings
from headwater.server.federation.strategy import FleetStrategy, Surroundings
from headwater.server.federation.versions import FOLDER, Learnt, latest

if TYPE_CHECKING:
    from headwater.compression.learning.network import SplitNetwork
    from headwater.server.federation.averaging import Arrays
    from headwater.server.federation.companion import Companion

CompanionOf = Callable[["SplitNetwork"], "Companion"]
"""Makes a companion for the network of the rounds."""


@dataclass(frozen=True)
class Rounds:
    """A strategy, and the arrays that it begins from."""

    strategy: FleetStrategy
    initial: Arrays

    def over(self, grid: Grid) -> None:
        """Run them."""
        self.strategy.start(grid, to_record(self.initial))


def rounds_of(
    bundle: Bundle,
    state: Path,
    settings: RoundSettings,
    *,
    data: str | None = None,
    companion: CompanionOf | None = None,
    anew: bool = False,
    around: Surroundings | None = None,
) -> Rounds:
    """The rounds of a bundle in a state folder; its journal is opened.

    Args:
        bundle: that the devices use: its weights are version 0.
        state: the server's folder.
        settings: of the rounds.
        data: images that no device has, to measure each version on: `solar` or `digits`, of which the part counts that
            the bundle was measured on, or a folder, of which that is `test/` or all.
        companion: pruning, say; None for that of the settings, sparse or dense.
        anew: leave an unfinished run, and what others have learnt.
        around: time and chance, where these are simulated, and who is told of each step.
    """
    network = network_of(bundle)
    layout = layout_of(network)
    heads = frozenset(name for name in layout.shapes if belongs(name, "head"))
    measured = None if data is None else measure(network_of(bundle), _held_out(bundle, data), _task(bundle))
    around = replace(around or Surroundings(), bundle=bundle.id, measure=measured, anew=anew)
    kind = BufferedStrategy if settings.asynchronous else FleetStrategy
    with_it = (companion or _companion(settings))(network)
    return Rounds(kind(Outline.of(layout, heads), state / FOLDER, settings, with_it, around), arrays_of(network))


def _companion(settings: RoundSettings) -> CompanionOf:
    if not settings.sparse:
        return lambda _: Dense()
    told = SparseSettings(
        settings.sparse,
        settings.sparse_keep,
        settings.sparse_extrude,
        settings.sparse_every,
        settings.sparse_until,
    )
    return lambda network: Sparse(told, maskable(network))


def federate(rounds: Rounds, state: Path) -> Learnt:
    """Run rounds over the devices of a live server, to their end; what was learnt."""
    run = rounds.strategy.open(rounds.initial)
    with StreamGrid(state, run.number) as grid:
        rounds.over(grid)
    rounds.strategy.journal.close()
    return latest(state)


def _held_out(bundle: Bundle, data: str) -> Samples:
    """Of a named data set the part that the bundle was measured on; of a folder its test/, or all of it."""
    made = bundle.manifest
    if data in NAMES:
        dataset = open_dataset(data)
        by = made.data.get("split_by") if made.data.get("name") == data else None
        _, dataset = split(dataset, float(made.recipe.get("test_share", 0.25)), int(made.recipe.get("seed", 0)), by=by)
    else:
        dataset = open_labelled(Path(data), [task for task in made.tasks if task.labels])
        dataset = dataset if dataset.test is None else replace(dataset, items=dataset.test, test=None)
    return Samples.read(dataset, made.input, (_task(bundle),))


def _task(bundle: Bundle) -> str:
    """The first that has labels."""
    return next(task.name for task in bundle.manifest.tasks if task.labels)


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run rounds where Flower has started this process; the run's config says of what."""
    config = context.run_config
    if missing := {"bundle", "state"} - config.keys():
        raise SettingsError(
            f"the run's config lacks {' and '.join(sorted(missing))}: the bundle, and a folder for the rounds"
        )
    bundle, state = Bundle.load(Path(str(config["bundle"]))), Path(str(config["state"]))
    data = str(config["data"]) if "data" in config else None
    # A simulation's grid has its own time and its own chance.
    around = Surroundings(clock=getattr(grid, "clock", time.time), secret=getattr(grid, "secret", secrets.token_bytes))
    rounds = rounds_of(bundle, state, settings_from(config), data=data, around=around)
    rounds.over(grid)
    rounds.strategy.journal.close()


def settings_from(config: Mapping[str, Any]) -> RoundSettings:
    """The settings of a run's config; Flower has dashes where Python has underscores, and either will do."""
    known = {field.name: type(getattr(RoundSettings(), field.name)) for field in fields(RoundSettings)}
    given = {name.replace("-", "_"): value for name, value in config.items()}
    return replace(RoundSettings(), **{name: kind(given[name]) for name, kind in known.items() if name in given})
