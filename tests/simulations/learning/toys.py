"""Virtual devices that learn a linear map in milliseconds: the real grid, shelf and strategy; no torch, no Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, RecordDict

from headwater.protos.flower import Parcel, acting_as, call, context_from_bytes, context_to_bytes, pack, unpack
from headwater.server.federation.asynchronous import BufferedStrategy
from headwater.server.federation.settings import RoundSettings
from headwater.server.federation.strategy import FleetStrategy, Surroundings
from headwater.server.federation.survey import Survey, survey
from headwater.server.federation.versions import FOLDER, latest
from headwater.simulations.learning.answering import Done, Outcome, Work
from headwater.simulations.learning.fleet import Fleet, Images
from headwater.simulations.learning.grid import VirtualGrid
from headwater.simulations.learning.settings import LearningSettings
from headwater.simulations.learning.shelf import Shelf
from tests.server.federation import fleets, toy


class Killed(BaseException):
    """The process ends here."""


class ToyCrew:
    """Answers with the toy app; batches may wait, and come back in the wrong order."""

    def __init__(self, actors: int = 1) -> None:
        self.actors, self.out = actors, list[Outcome]()
        self.calls = 0
        self.batches: list[int] = []

    def room(self) -> int:
        return self.actors - len(self.out)

    def size(self) -> int:
        return self.actors

    def begin(self, works: Sequence[Work], load: Callable[[str], bytes]) -> None:
        self.batches.append(len(works))
        self.out.append(Outcome([self._one(work, load) for work in works]))

    def _one(self, work: Work, load: Callable[[str], bytes]) -> Done:
        self.calls += 1
        message = unpack(Parcel(work.envelope, load(work.content)))
        fresh = Context(1, work.node, {}, RecordDict(), {})
        context = fresh if work.context is None else context_from_bytes(work.context)
        context.node_config = {}
        parcel = pack(call(toy.app, message, context))
        return Done(work.key, work.node, parcel.envelope, parcel.content, context_to_bytes(context))

    def finished(self) -> list[Outcome]:
        return [self.out.pop()] if self.out else []  # the last one first

    def close(self) -> None:
        pass


def fleet(told: LearningSettings, images: Sequence[int] = (32,)) -> Fleet:
    return Fleet(told, Images({"data": "digits"}, np.array(images)), {0.5: 5, 1.0: 10}, "bundle")


def run(
    folder: Path,
    told: LearningSettings,
    crew: ToyCrew | None = None,
    *,
    images: Sequence[int] = (32,),
    at: Callable[[str], None] = lambda _: None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    **settings: Any,  # noqa: ANN401 - of any field
) -> Survey:
    """Rounds over virtual devices, to their end or until `at` raises; what the journal says."""
    rounds: RoundSettings = fleets.settings(batch=16, **settings)
    shelf = Shelf(folder)
    gives_up_s = rounds.lifetime_s if rounds.asynchronous else rounds.deadline_s
    grid = VirtualGrid(fleet(told, images), shelf, crew or ToyCrew(), gives_up_s=gives_up_s, progress=progress)
    kind = BufferedStrategy if rounds.asynchronous else FleetStrategy
    strategy = kind(
        toy.OUTLINE, folder / FOLDER, rounds, None, Surroundings(clock=grid.clock, secret=grid.secret, at=at)
    )
    try:
        with acting_as(1):
            strategy.start(grid, toy.initial())
    finally:
        strategy.journal.close()
        shelf.close()
    return survey(folder)


def came_out(folder: Path) -> tuple[Any, ...]:
    """All that has to be the same again: arrays, who counted in each round, bytes, simulated times."""
    rounds = [
        (each.round, dict(each.states), each.bytes_up, each.bytes_down, each.began, each.ended, dict(each.facts))
        for each in survey(folder).rounds
    ]
    return fleets.bytes_of(latest(folder).arrays), rounds
