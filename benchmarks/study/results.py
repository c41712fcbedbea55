"""What the study found, as the claims, the plot and the table read it.

The file (``benchmarks/results/rate_accuracy.json``) is the list of all finished pieces as they were left, each with
the commit, date, seconds and key it was made with.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.study.arithmetic import Series, at_bytes
from benchmarks.study.figures import Figures
from benchmarks.study.plan import CODECS
from benchmarks.study.study import OURS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CUT = "cut-"
WITHIN_POINTS = 1.0
"""How far below the teacher our operating point may be."""


class Cut(NamedTuple):
    """A bundle that is cut elsewhere."""

    seed: int
    modes: tuple[Series, ...]
    macs: dict[float, int]
    """Multiply-adds of the head, by width."""


@dataclass(frozen=True)
class Results:
    """Finished pieces."""

    records: tuple[dict[str, Any], ...]

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read a results file."""
        return cls(tuple(json.loads(path.read_text(encoding="utf-8"))["pieces"]))

    def to_json(self) -> dict[str, Any]:
        """As written to the file; by split, then name, so that it changes little."""
        ordered = sorted(self.records, key=lambda record: (record["seed"], record["piece"]))
        dates, commits = ({record[key] for record in ordered} for key in ("date", "commit"))
        return {
            "about": "python -m benchmarks.rate_accuracy --full",
            "dates": sorted(dates),
            "commits": sorted(commits),
            "pieces": ordered,
        }

    def result(self, name: str, seed: int) -> dict[str, Any] | None:
        """Of a piece on a split; None where it is not done."""
        found = (record["result"] for record in self.records if (record["piece"], record["seed"]) == (name, seed))
        return next(found, None)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The splits that have our bundle."""
        return tuple(sorted(record["seed"] for record in self.records if record["piece"] == OURS))

    def seeds_of(self, prefix: str) -> tuple[int, ...]:
        """The splits with our bundle that have the most pieces with such a name: a half-done split is left out."""
        counts = {seed: len(self.named(prefix, seed)) for seed in self.seeds}
        most = max(counts.values(), default=0)
        return tuple(seed for seed, count in counts.items() if count == most > 0)

    def named(self, prefix: str, seed: int) -> list[str]:
        """Names of the pieces of a split that begin so."""
        return [r["piece"] for r in self.records if r["seed"] == seed and r["piece"].startswith(prefix)]

    # ------------------------------------------------------------ ours

    def _ours(self, seeds: Sequence[int]) -> list[dict[str, Any]]:
        found = [self.result(OURS, seed) for seed in seeds]
        return [result for result in found if result is not None]

    def teacher(self, seeds: Sequence[int]) -> Series:
        """The unsplit network."""
        return self._single("teacher", "local", seeds)

    def nothing(self, seeds: Sequence[int]) -> Series:
        """No bytes, the most frequent class."""
        return self._single("nothing sent", "nothing", seeds)

    def _single(self, label: str, entry: str, seeds: Sequence[int]) -> Series:
        return Series.of(label, [Figures.from_json(result[entry]) for result in self._ours(seeds)])

    def modes(self, seeds: Sequence[int]) -> list[Series]:
        """Every mode, in the manifest's order."""
        return _modes(self._ours(seeds))

    def was_cut(self, mode: int, groups: int) -> bool:
        """Whether a mode's frames cut after so many groups were measured."""
        return all(result["modes"][mode]["cuts"][groups - 1] is not None for result in self._ours(self.seeds))

    def cut(self, mode: int, groups: int, seeds: Sequence[int]) -> Series:
        """A mode's frames cut after so many groups."""
        rows = [Figures.from_json(result["modes"][mode]["cuts"][groups - 1]) for result in self._ours(seeds)]
        return Series.of(f"mode {mode} cut after {groups} groups", rows)

    @property
    def _first(self) -> dict[str, Any]:
        """Our result on the first split, for what does not depend on the split."""
        return self._ours(self.seeds[:1])[0]

    @property
    def widths(self) -> list[float]:
        """Ascending."""
        return sorted({mode["width"] for mode in self._first["modes"]})

    @property
    def groups(self) -> int:
        """Channel groups of a frame."""
        return len(self._first["modes"][0]["cuts"]) + 1

    def head_macs(self, width: float) -> int | None:
        """Multiply-adds of the head of a width; None if there is no such width."""
        return next((int(mode["head_macs"]) for mode in self._first["modes"] if mode["width"] == width), None)

    def macs_of(self, mode: int) -> int:
        """Multiply-adds of the head of a mode."""
        return int(self._first["modes"][mode]["head_macs"])

    @property
    def local_macs(self) -> int:
        """Multiply-adds of the whole unsplit network."""
        return int(self._first["local_macs"])

    @property
    def encoder_macs(self) -> int | None:
        """Multiply-adds of Entropic Student's convolutions; None while there is no such piece."""
        names = [(name, seed) for seed in self.seeds_of("entropic-") for name in self.named("entropic-", seed)]
        found = self.result(*names[0]) if names else None
        return None if found is None else int(found["encoder_macs"])

    def modes_of(self, width: float, seeds: Sequence[int]) -> list[Series]:
        """Every gain of a width."""
        found = zip(self._first["modes"], self.modes(seeds), strict=True)
        return [series for mode, series in found if mode["width"] == width]

    def exit(self, mode: int, seed: int) -> dict[str, Any] | None:
        """What the local exit does in a mode of a split."""
        result = self.result("exit", seed)
        return None if result is None or "modes" not in result else result["modes"][mode]

    def point(self) -> tuple[int, bool]:
        """Our operating point: the mode of fewest bytes within a point of the teacher, as means over all splits.

        Where none is within a point, the most accurate mode, and False.
        """
        modes, teacher = self.modes(self.seeds), self.teacher(self.seeds)
        near = [at for at, mode in enumerate(modes) if mode.accuracy >= teacher.accuracy - WITHIN_POINTS / 100 - 1e-9]
        if near:
            return min(near, key=lambda at: modes[at].size), True
        return max(range(len(modes)), key=lambda at: (modes[at].accuracy, -modes[at].size)), False

    # ------------------------------------------------------------ peers

    def rows(self, prefix: str, seeds: Sequence[int]) -> list[Series]:
        """Every setting of the pieces that begin so and are done on all of these splits."""
        found = []
        for name in self.named(prefix, seeds[0]) if seeds else []:
            results = [self.result(name, seed) for seed in seeds]
            tables = [
                {row["setting"]: row["figures"] for row in result.get("rows", [])} for result in results if result
            ]
            if len(tables) < len(seeds):
                continue
            suffix = " (one quality)" if "-q" in name else ""
            for setting in tables[0]:
                if all(setting in table for table in tables):
                    figures = [Figures.from_json(table[setting]) for table in tables]
                    found.append(Series.of(setting + suffix, figures))
        return found

    def missing(self, prefix: str, seeds: Sequence[int]) -> list[str]:
        """What could not be measured here, in words."""
        results = [self.result(name, seed) for seed in seeds for name in self.named(prefix, seed)]
        return sorted({result["missing"] for result in results if result and "missing" in result})

    def without(self, prefix: str, seeds: Sequence[int]) -> list[str]:
        """Codecs that have no row that is done on all of these splits."""
        have = {series.label.split()[0] for series in self.rows(prefix, seeds)}
        return [codec for codec in CODECS if codec not in have]

    def separate(self, width: float, seeds: Sequence[int]) -> list[Series]:
        """Every gain of a model of one width."""
        return _modes(self._all(f"separate-{width:g}", seeds))

    def later(self, mode: int, seeds: Sequence[int]) -> tuple[Series, Series] | None:
        """The added task in a mode, and the joint bundle at the same bytes and width; None unless all splits have both.

        Where the joint bundle has no frames of that size, its mode that comes closest.
        """
        added, joint = _modes(self._all("task-added", seeds)), _modes(self._all("task-joint", seeds))
        if not added or not joint:
            return None
        size, alike = added[mode].size, [joint[at] for at in self.same_width(mode)]
        return added[mode], at_bytes(alike, size) or min(alike, key=lambda one: abs(one.size - size))

    def same_width(self, mode: int) -> list[int]:
        """The modes that have the width of this one, by index."""
        every = self._first["modes"]
        return [at for at, one in enumerate(every) if one["width"] == every[mode]["width"]]

    def cuts(self) -> dict[int, Cut]:
        """The network split elsewhere, by the block after which it is, on the first split that has it."""
        found: dict[int, Cut] = {}
        for seed in self.seeds:
            for name in self.named(CUT, seed):
                result = self.result(name, seed)
                assert result is not None
                macs = {mode["width"]: int(mode["head_macs"]) for mode in result["modes"]}
                found.setdefault(int(name.removeprefix(CUT)), Cut(seed, tuple(_modes([result])), macs))
        return dict(sorted(found.items()))

    def _all(self, name: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
        """A piece's results on these splits; none unless all are done."""
        results = [self.result(name, seed) for seed in seeds]
        found = [result for result in results if result is not None and "modes" in result]
        return found if len(found) == len(results) else []


def _modes(results: Sequence[dict[str, Any]]) -> list[Series]:
    """Modes of bundles of several splits, split by split."""
    found = []
    for at, mode in enumerate(results[0]["modes"] if results else []):
        rows = [Figures.from_json(result["modes"][at]["figures"]) for result in results]
        found.append(Series.of(f"width {mode['width']:g}, gain {mode['gain']}", rows))
    return found
