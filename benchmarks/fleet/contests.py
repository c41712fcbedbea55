"""The pieces of the study: what is run on every split, and what each one leaves."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from benchmarks.fleet.ground import Ground
from benchmarks.fleet.ours import Troubles, rounds
from benchmarks.fleet.peer import OF_A_STEP, fedavg
from benchmarks.fleet.pruned import pruned
from benchmarks.study.records import Records
from benchmarks.study.runner import Piece, state
from headwater.server.federation.pruning.sparse import SparseSettings
from headwater.server.federation.settings import RoundSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.progress import Progress

    from benchmarks.fleet.curve import Curve
    from benchmarks.fleet.ground import Terrain

START, PEER, OURS, WEAK, SPARSE, PRUNED = "start", "peer", "ours", "weak", "sparse", "pruned"
HOSTILE = ("sign", "noise", "label", "scaled")
SPARSELY = SparseSettings(density=0.5, keep=0.3, every=5, until=14)
PARTS = {"extrusion": replace(SPARSELY, extrude=0.0), "activation-pruning": replace(SPARSELY, keep=1.0)}
"""Sparse rounds with one of FedMef's two parts switched off."""


@dataclass(frozen=True)
class Contest:
    """One way of running rounds."""

    settings: RoundSettings
    troubles: Troubles = field(default_factory=Troubles)
    first: Callable[[Ground, Path], tuple[Ground, dict[str, float]]] = lambda ground, _: (ground, {})
    """What becomes of the ground before it; with facts for the record."""


class Study(Records):
    """All contests of one terrain, and the folder where they leave what they found."""

    def __init__(self, terrain: Terrain, folder: Path, elsewhere: Sequence[dict[str, Any]] = ()) -> None:
        """Nothing is read or written yet; ``elsewhere`` are records of pieces that were done on other machines."""
        super().__init__(folder, elsewhere)
        self.terrain = terrain

    def record(self, name: str, seed: int) -> dict[str, Any] | None:
        """What a finished piece left; elsewhere counts as long as no other first bundle of the split is here.

        The same recipe gives another bundle on another processor, and contests are compared from one and the same.
        """
        found, theirs = super().record(name, seed), self.elsewhere.get((START, seed))
        if self.has(name, seed) or not self.has(START, seed):
            return found
        own = super().record(START, seed)
        return found if own and theirs and own["result"] == theirs["result"] else None

    def records(self, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """All that is done and current."""
        pieces = [piece for seed in seeds for piece in self.pieces(seed) if state(piece, self) == "done"]
        return [record for piece in pieces if (record := self.record(piece.name, piece.seed)) is not None]

    def ground(self, seed: int) -> Ground:
        """The data and the first bundle of a split."""
        return Ground(self.terrain, seed, self.folder / f"seed{seed}" / START)

    # ------------------------------------------------------------ pieces

    def pieces(self, seed: int) -> list[Piece]:
        """The first bundle, the peer, ours, and what may be wrong with a fleet."""
        plain = self.settings(seed)
        theirs = {key: getattr(plain, key) for key in ("rounds", *OF_A_STEP)}
        peer = self._piece(PEER, seed, theirs, lambda ground, _: asdict(fedavg(ground, plain)))
        start = Piece(START, seed, self.terrain.of_start(), self._start(seed), (), 10)
        return [start, peer, *(self._contest(name, seed, each) for name, each in self.contests(seed).items())]

    def contests(self, seed: int) -> dict[str, Contest]:
        """By name, in the order of the runs."""
        plain = self.settings(seed)
        robust = replace(plain, aggregator=self.terrain.robust, longest=self.terrain.longest)
        return {
            OURS: Contest(plain),
            WEAK: Contest(plain, Troubles(weak=True)),
            **{f"hostile-{kind}": Contest(robust, Troubles(hostile=kind)) for kind in HOSTILE},
            SPARSE: Contest(plain, Troubles(sparse=SPARSELY)),
            PRUNED: Contest(plain, first=pruned),
            **{f"{SPARSE}-without-{part}": Contest(plain, Troubles(sparse=each)) for part, each in PARTS.items()},
        }

    def settings(self, seed: int) -> RoundSettings:
        """How rounds are run."""
        terrain = self.terrain
        return RoundSettings(
            rounds=terrain.rounds,
            seed=seed,
            epochs=terrain.epochs,
            rate=terrain.rate,
            decay=terrain.decay,
            batch=terrain.batch,
            optimizer=terrain.optimizer,
            distil=terrain.distil,
            logit_adjustment=terrain.logit_adjustment,
            up=terrain.up.to_json(),
            down=terrain.down.to_json(),
        )

    def _start(self, seed: int) -> Callable[[Any, Path, Progress], dict[str, Any]]:
        def work(_study: object, _folder: Path, progress: Progress) -> dict[str, Any]:
            ground = self.ground(seed)
            ground.prepare(progress)
            return {"bundle": ground.bundle.id.hex()}

        return work

    def _contest(self, name: str, seed: int, contest: Contest) -> Piece:
        def work(ground: Ground, folder: Path) -> dict[str, Any]:
            begun, facts = contest.first(ground, folder)
            return {**asdict(rounds(begun, contest.settings, contest.troubles, folder / "rounds")), "facts": facts}

        settled = {**asdict(contest.settings), "troubles": repr(contest.troubles)}
        return self._piece(name, seed, settled, work)

    def _piece(
        self, name: str, seed: int, settled: dict[str, Any], contest: Callable[[Ground, Path], dict[str, Any]]
    ) -> Piece:
        def work(_study: object, folder: Path, _progress: Progress) -> dict[str, Any]:
            return contest(self.ground(seed), folder)

        return Piece(name, seed, settled, work, (START,), 7)


def curve_of(record: dict[str, Any]) -> Curve:
    """The curve of a contest's record."""
    from benchmarks.fleet.curve import Curve

    return Curve(**{name: record["result"][name] for name in ("accuracy", "up", "down")})
