"""What federated rounds bring and cost, beside Flower's FedAvg with dense float32 arrays on the same pictures.

    python -m benchmarks.federated                       # digits, 4 devices, minutes: the way, not the figures
    python -m benchmarks.federated --full --seeds 0      # solar cells, 16 devices; hours a seed on one core
    python -m benchmarks.federated --full --show         # the claims of what is done so far

A seed is a split of the data: of the test pictures, of those that the first bundle is made of, and of what each device
has. Pieces leave a JSON each in ``out/federated`` and are skipped when it is there, so that a study may be stopped and
go on. Every contest begins with the same bundle and trains on the devices in the same way; they differ in what travels,
who takes part and how it is put together. Accuracies are of the widest head on pictures that nobody learns from, the
mean of the last three rounds.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from benchmarks import claims
from benchmarks.study.runner import Piece
from benchmarks.study.runner import run as run_pieces
from benchmarks.study.study import write_json

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks.claims import Claim
    from benchmarks.fleet.curve import Curve
    from benchmarks.fleet.ground import Ground, Terrain
    from headwater.server.federation.settings import RoundSettings

NAME = "federated"
PEER = "Flower's FedAvg, dense float32"
START = "start"
HOSTILE = ("sign", "noise", "label", "scaled")
POINT = 0.01


class Fleet:
    """The pieces of one terrain, and the folder where they leave what they found."""

    def __init__(self, terrain: Terrain, folder: Path) -> None:
        """Nothing is read or written yet."""
        self.terrain, self.folder = terrain, folder

    def work(self, piece: Piece) -> Path:
        """The folder that a piece works in."""
        return self.folder / f"seed{piece.seed}" / piece.name

    def record(self, name: str, seed: int) -> dict[str, Any] | None:
        """What a finished piece left."""
        import json

        path = self.folder / f"seed{seed}" / f"{name}.json"
        found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        return found

    def keep(self, record: dict[str, Any]) -> None:
        """Write what a piece found."""
        write_json(self.folder / f"seed{record['seed']}" / f"{record['piece']}.json", record)

    def ground(self, seed: int) -> Ground:
        """The data and the first bundle of a seed."""
        from benchmarks.fleet.ground import Ground

        return Ground(self.terrain, seed, self.folder / f"seed{seed}" / START)

    def pieces(self, seed: int) -> list[Piece]:
        """The first bundle, the peer, ours, and what may be wrong with a fleet."""
        from benchmarks.fleet.ours import Fleet as Troubles
        from benchmarks.fleet.ours import rounds
        from benchmarks.fleet.peer import fedavg

        plain = self._settings(seed)
        settled = asdict(plain)

        def ours(name: str, troubles: Troubles, settings: RoundSettings = plain) -> Piece:
            return self._piece(
                name,
                seed,
                {**asdict(settings), "troubles": repr(troubles)},
                lambda ground, folder: rounds(ground, settings, troubles, folder / "rounds"),
            )

        robust = replace(plain, aggregator="flag")
        return [
            Piece(START, seed, {"terrain": repr(self.terrain)}, self._start(seed), {}, 20),
            self._piece("peer", seed, settled, lambda ground, _: fedavg(ground, plain)),
            ours("ours", Troubles()),
            ours("weak", Troubles(weak=True)),
            *(ours(f"hostile-{kind}", Troubles(hostile=kind), robust) for kind in HOSTILE),
        ]

    def _settings(self, seed: int) -> RoundSettings:
        from headwater.server.federation.settings import RoundSettings

        return RoundSettings(rounds=self.terrain.rounds, seed=seed, rate=self.terrain.rate, distil=0.5)

    def _start(self, seed: int) -> Callable[[Any, Path, Progress], dict[str, Any]]:
        def work(_study: object, _folder: Path, progress: Progress) -> dict[str, Any]:
            ground = self.ground(seed)
            ground.prepare(progress)
            return {"bundle": ground.bundle.id.hex()}

        return work

    def _piece(self, name: str, seed: int, settings: dict[str, Any], contest: Callable[[Ground, Path], Curve]) -> Piece:
        def work(_study: object, folder: Path, _progress: Progress) -> dict[str, Any]:
            return asdict(contest(self.ground(seed), folder))

        return Piece(name, seed, settings, work, {START: "bundle"}, 30)

    def curves(self, name: str, seeds: Iterable[int]) -> dict[int, Curve]:
        """The curves of a contest, by seed, where it is done."""
        from benchmarks.fleet.curve import Curve

        found = {seed: self.record(name, seed) for seed in seeds}
        return {seed: Curve(**record["result"]) for seed, record in found.items() if record is not None}

    def claims(self, seeds: Sequence[int]) -> list[Claim]:
        """What the pieces that are done say."""
        peers, ours = self.curves("peer", seeds), self.curves("ours", seeds)
        both = [(peers[seed], ours[seed]) for seed in seeds if seed in peers and seed in ours]
        up, down = (self._saving(both, way) for way in ("up", "down"))
        where = f"{self.terrain.source}, {self.terrain.devices} devices, {len(both)} splits"
        enough = "to be half a point behind the peer's end"
        found = [
            claims.at_least(NAME, f"uplink {enough}, {where}", up, unit="x less", target=100, peer=PEER),
            claims.at_least(NAME, f"downlink {enough}, {where}", down, unit="x less", target=10, peer=PEER),
            self._behind("a third at quarter width, a third asleep", "weak", peers, seeds, PEER, 1.0),
        ]
        for kind in HOSTILE:
            what = f"a third of the devices hostile ({kind})"
            found.append(self._behind(what, f"hostile-{kind}", ours, seeds, "the same rounds without them", 2.0))
        return found

    @staticmethod
    def _saving(both: Sequence[tuple[Curve, Curve]], way: str) -> float | None:
        """How many times fewer bytes ours had sent when it was there, over all splits; None where it never was."""
        ends = [(peer, own, own.reaches(peer.final - 0.5 * POINT)) for peer, own in both]
        if not ends or any(end is None for _, _, end in ends):
            return None
        spent = sum(max(getattr(own, way)[end], 1) for _, own, end in ends if end is not None)
        return float(sum(getattr(peer, way)[-1] for peer, _, _ in ends) / spent)

    def _behind(
        self, what: str, name: str, against: dict[int, Curve], seeds: Sequence[int], peer: str, target: float
    ) -> Claim:
        """Points that a contest ends behind another, the mean over the splits that both have."""
        curves = self.curves(name, seeds)
        points = [
            100 * (against[seed].final - curves[seed].final) for seed in seeds if seed in curves and seed in against
        ]
        value = fmean(points) if points else None
        spread = f"; by split {', '.join(f'{point:.1f}' for point in points)}" if points else "; not run"
        return claims.at_most(NAME, f"points behind, {what}", value, unit="points", target=target, peer=peer + spread)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not done, and report."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--pieces", default="")
    own, rest = parser.parse_known_args(arguments)
    options = claims.options(__doc__, rest)
    from benchmarks.fleet.ground import DIGITS_FLEET, SOLAR_FLEET

    seeds = [int(seed) for seed in own.seeds.split(",")]
    fleet = Fleet(
        SOLAR_FLEET if own.full else DIGITS_FLEET, Path("out/federated") / ("solar" if own.full else "digits")
    )
    wanted = own.pieces.split(",") if own.pieces else [] if own.full else [START, "peer", "ours"]
    if not own.show:
        console = Console()
        pieces = [piece for seed in seeds for piece in fleet.pieces(seed) if not wanted or piece.name in wanted]
        with Progress(console=console, disable=not console.is_terminal) as progress:
            run_pieces(pieces, fleet, console, progress)  # type: ignore[arg-type]  # it needs of a study what this has
    title = f"Federated rounds on {fleet.terrain.source}"
    return claims.report(title, fleet.claims(seeds), options)


if __name__ == "__main__":
    sys.exit(main())
