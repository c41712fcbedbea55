"""What the study's curves say, beside what was promised."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks import claims

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.claims import Claim
    from benchmarks.fleet.curve import Curve

NAME = "federated"
FLOWER = "Flower's FedAvg, dense float32"
POINT = 0.01


@dataclass(frozen=True)
class Statement:
    """The claims of finished contests."""

    curves: Mapping[tuple[str, int], Curve]
    """By contest and split."""
    where: str
    """Data and size of the fleet."""
    whence: str = ""
    """When and with what commit it was measured, where that is not now."""

    def all(self, hostile: Sequence[str], sparse: Sequence[str]) -> list[Claim]:
        """Every claim; without a value where nothing was run."""
        return [
            *self.savings(),
            self._behind("a third at quarter width, a third asleep", "weak", "peer", FLOWER, 1.0),
            *(
                self._behind(f"a third of the devices hostile ({kind})", f"hostile-{kind}", "ours", _WITHOUT, 2.0)
                for kind in hostile
            ),
            self._behind("sparse rounds", "sparse", "ours", "dense rounds", 1.0),
            *(
                self._behind(f"sparse rounds without {part}", f"sparse-without-{part}", "ours", "dense rounds", 1.0)
                for part in sparse
                if self._seeds(f"sparse-without-{part}", "ours")
            ),
            self._behind("rounds after structured pruning", "pruned", "ours", "the network that was not pruned", 1.0),
        ]

    def savings(self) -> list[Claim]:
        """How many times fewer bytes ours need for the peer's accuracy; 0 where on some split they never have it."""
        seeds = self._seeds("ours", "peer")
        enough = f"to be half a point behind the peer's end, {self.where}, {len(seeds)} splits"
        peer = f"{FLOWER}; {self._ends(seeds)}{self.whence}"
        return [
            claims.at_least(
                NAME, f"{way}link {enough}", self._saving(seeds, way), unit="x less", target=target, peer=peer
            )
            for way, target in (("up", 100), ("down", 10))
        ]

    def _ends(self, seeds: Sequence[int]) -> str:
        """Accuracies at the start and in the end."""
        if not seeds:
            return "not run"
        start = fmean(self.curves["peer", seed].accuracy[0] for seed in seeds)
        peer, own = (fmean(self.curves[name, seed].final for seed in seeds) for name in ("peer", "ours"))
        never = ", ".join(str(seed) for seed in seeds if None in self._there(seed))
        return f"{start:.1%} at the start, {peer:.1%} it, {own:.1%} ours{never and f', never there on split {never}'}"

    def _seeds(self, *names: str) -> list[int]:
        """The splits that have all of these contests."""
        every = {seed for _, seed in self.curves}
        return sorted(seed for seed in every if all((name, seed) in self.curves for name in names))

    def _saving(self, seeds: Sequence[int], way: str) -> float | None:
        """How many times fewer bytes ours had sent when they were there than the peer when it was, over all splits.

        0 where ours never were; None where nothing was run.
        """
        spent, by_peer = 0, 0
        for seed in seeds:
            end, peers_end = self._there(seed)
            if end is None or peers_end is None:
                return 0.0
            peer, own = self.curves["peer", seed], self.curves["ours", seed]
            spent, by_peer = spent + getattr(own, way)[end], by_peer + getattr(peer, way)[peers_end]
        return float(by_peer / max(spent, 1)) if seeds else None

    def _there(self, seed: int) -> tuple[int | None, int | None]:
        """The rounds in which ours and the peer are half a point behind its end; None for never."""
        peer, own = self.curves["peer", seed], self.curves["ours", seed]
        wanted = peer.final - 0.5 * POINT
        return own.reaches(wanted), peer.reaches(wanted)

    def _behind(self, what: str, name: str, against: str, peer: str, target: float) -> Claim:
        """Points that a contest ends behind another, the mean over the splits that both have."""
        seeds = self._seeds(name, against)
        points = [100 * (self.curves[against, seed].final - self.curves[name, seed].final) for seed in seeds]
        value = fmean(points) if points else None
        spread = f"; by split {', '.join(f'{point:.1f}' for point in points)}{self.whence}" if points else "; not run"
        claim = f"points behind, {what}, {self.where}"
        return claims.at_most(NAME, claim, value, unit="points", target=target, peer=peer + spread)


_WITHOUT = "the same rounds without them"


def whence(records: Sequence[Mapping[str, Any]]) -> str:
    """When and with what code the records were made."""
    commits = ", ".join(sorted({record["commit"] for record in records}))
    return f"; not measured now, study of {max(record['date'] for record in records)}, commit {commits}"
