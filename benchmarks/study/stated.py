"""The claims, from finished pieces. Operating points are fixed here, beforehand; none is picked by how well it looks.

    our point      the mode with the fewest bytes whose mean accuracy over the splits is within a point of the
                   teacher's; one mode on every split, never a mix
    a peer's       the fewest bytes at which its mean accuracy over the same splits is at least ours, on the upper
                   concave hull of all its settings (all codecs pooled) and of sending nothing; see arithmetic.py.
                   A peer that never gets there is taken at its most accurate, so that the ratio is a lower bound
    one width      every gain of the model of that width whose bytes our gains of the width enclose; ours between the
                   two neighbouring gains at the same bytes; the mean over these gains, and of the widths the worst
    later task     the mode of our point in the bundle with the added task, against the joint bundle between its two
                   neighbouring gains of that width at the same bytes
    lost groups    our point's frames cut after half of the channel groups
    local exit     our point's mode, thresholds set without the image that is judged

If no mode is within a point of the teacher, our point is the most accurate mode, and claims that start from "within a
point" do not hold, whatever their ratio.
"""

from __future__ import annotations

import dataclasses
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import claims
from benchmarks.study.arithmetic import Interval, Series, at_bytes, cheapest, gaps, paired, spread
from benchmarks.study.plan import FULL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.claims import Claim
    from benchmarks.study.plan import Plan
    from benchmarks.study.results import Results

NAME = "rate_accuracy"
MAX_DROP = 0.5


class Statement:
    """Claims of one set of results; ``where`` says whose figures they are and goes into every claim's text."""

    def __init__(self, results: Results, where: str, suffix: str = "", plan: Plan = FULL) -> None:
        """Take results with at least one split of ours; ``suffix`` ends every claim's name."""
        self.results, self.where, self.suffix, self.plan = results, where, suffix, plan
        self.point, self.near = results.point()

    def all(self) -> list[Claim]:
        """Every claim of the study; what has no pieces yet says so."""
        return [
            self.within(),
            self.codecs("codec-", "image codec read by the untouched teacher", 30),
            self.codecs("tuned-", "image codec with a teacher tuned for it", 10),
            self.entropic(),
            *self.macs(),
            self.widths(),
            self.span(),
            *self.exit(),
            self.later_task(),
            self.lost_groups(),
        ]

    def _least(self, what: str, value: float | None, unit: str, target: float, peer: str) -> Claim:
        what, peer = what + self.suffix, f"{self.where}: {peer}"
        return claims.at_least(NAME, what, value, unit=unit, target=target, peer=peer)

    def _most(self, what: str, value: float | None, unit: str, target: float, peer: str) -> Claim:
        what, peer = what + self.suffix, f"{self.where}: {peer}"
        return claims.at_most(NAME, what, value, unit=unit, target=target, peer=peer)

    def _missed_if_far(self, claim: Claim) -> Claim:
        return claim if self.near or claim.holds is None else dataclasses.replace(claim, holds=False)

    # ------------------------------------------------------------ bytes at equal accuracy

    def within(self) -> Claim:
        """How near our point is to the teacher."""
        seeds = self.results.seeds
        ours, teacher = self.results.modes(seeds)[self.point], self.results.teacher(seeds)
        lost = gaps(teacher, ours)
        text = f"{ours.label}, {ours.size:.1f} bytes, {ours.accuracy:.1%}; teacher {teacher.accuracy:.1%}"
        text += f"; by split {spread(lost)}"
        return self._most("accuracy lost at our point", fmean(lost), "points", 1, text)

    def codecs(self, prefix: str, what: str, target: float) -> Claim:
        """Bytes of the best codec over ours."""
        seeds = self.results.seeds_of(prefix)
        claim = f"bytes of the best {what} over ours, within a point of the teacher"
        if prefix == "tuned-":  # the best of some is not the best
            undone = {seed: self._undone(seed) for seed in self.results.seeds}
            seeds = tuple(seed for seed, names in undone.items() if not names)
            if not seeds:
                left = ", ".join(undone[self.results.seeds[0]])
                return self._least(claim, None, "x", target, f"to be done yet: {left}")
        left_out = self.results.without(prefix, seeds)
        note = f"; not on all of these splits: {', '.join(left_out)}" if left_out else ""
        note += "".join(f"; {reason}" for reason in self.results.missing(prefix, seeds))
        return self._missed_if_far(self._ratio(claim, prefix, seeds, target, note))

    def _undone(self, seed: int) -> list[str]:
        """Pieces of tuned teachers that a split lacks."""
        codecs = self.plan.tuned_codecs(seed)
        wanted = [f"tuned-{codec.lower()}-{side}" for codec in codecs for side in self.plan.tuned_sides(codec)]
        return [name for name in wanted if self.results.result(name, seed) is None]

    def entropic(self) -> Claim:
        """Bytes of Entropic Student over ours."""
        seeds = self.results.seeds_of("entropic-")
        return self._ratio("bytes of Entropic Student over ours, at equal accuracy", "entropic-", seeds, 2, "")

    def _ratio(self, claim: str, prefix: str, seeds: Sequence[int], target: float, note: str) -> Claim:
        rows = self.results.rows(prefix, seeds)
        if not rows:
            return self._least(claim, None, "x", target, f"no piece {prefix}... is done{note}")
        ours = self.results.modes(seeds)[self.point]
        found = cheapest([*rows, self.results.nothing(seeds)], ours.accuracy)
        peer = found or max(rows, key=lambda row: (row.accuracy, -row.size))
        ratios = [theirs / mine for theirs, mine in zip(peer.sizes, ours.sizes, strict=True)]
        text = f"{peer.label}: {peer.size:.0f} bytes ({fmean(peer.file_sizes):.0f} as a file) to our {ours.size:.1f}"
        text += "" if found else " and less accurate, so the ratio is a lower bound"
        text += f"; {_by_split(ratios)}; accuracy {ours.accuracy:.1%}, ours less its {_gap(ours, peer)}"
        return self._least(claim, peer.size / ours.size, "x", target, text + note)

    # ------------------------------------------------------------ the head's cost

    def macs(self) -> list[Claim]:
        """Multiply-adds of Entropic Student's encoder over our heads'."""
        seeds = self.results.seeds_of("entropic-")
        names = self.results.named("entropic-", seeds[0]) if seeds else []
        encoder = self.results.result(names[0], seeds[0]) if names else None
        found = []
        for width, target in ((1.0, 3.5), (0.25, 10.0)):
            claim = f"multiply-adds of Entropic Student's encoder over our head's at width {width:g}"
            head = self.results.head_macs(width)
            if encoder is None or head is None:
                found.append(self._least(claim, None, "x", target, "no piece entropic-... or no such width"))
                continue
            macs, norm = encoder["encoder_macs"], encoder["encoder_norm_macs"]
            text = f"{macs / 1e6:.0f} M, its norms' {norm / 1e6:.0f} M not counted, to our {head / 1e6:.1f} M"
            found.append(self._least(claim, macs / head, "x", target, text))
        return found

    # ------------------------------------------------------------ one bundle for all

    def widths(self) -> Claim:
        """Points by which a model of one width beats ours at the same bytes, at the worst width."""
        claim = "accuracy of a model trained for one width less ours, same bytes, worst width"
        seeds = self.results.seeds_of("separate-")
        if undone := [
            f"separate-{width:g}" for width in self.results.widths if not self.results.separate(width, seeds)
        ]:
            return self._most(claim, None, "points", 0.5, f"to be done yet: {', '.join(undone)}")
        gap: dict[float, Interval] = {}
        for width in self.results.widths:
            pairs = [
                (alone, ours)
                for alone in self.results.separate(width, seeds)
                if (ours := at_bytes(self.results.modes_of(width, seeds), alone.size))
            ]
            if pairs:
                gap[width] = paired(_mean([one for one, _ in pairs]), _mean([two for _, two in pairs]))
        if not gap:
            return self._most(claim, None, "points", 0.5, "no piece separate-... is in our range of bytes")
        text = ", ".join(f"width {width:g}: {interval}" for width, interval in gap.items())
        return self._most(claim, max(each.difference for each in gap.values()), "points", 0.5, f"{text}, 95 %")

    def span(self) -> Claim:
        """Largest over smallest mean frame."""
        seeds = self.results.seeds
        sizes = [mode.sizes for mode in self.results.modes(seeds)]
        spans = [max(split) / min(split) for split in zip(*sizes, strict=True)]
        text = f"{min(map(fmean, sizes)):.0f} to {max(map(fmean, sizes)):.0f} bytes; {_by_split(spans)}"
        return self._least("largest over smallest mean frame of one bundle", fmean(spans), "x", 10, text)

    # ------------------------------------------------------------ exits, tasks, damage

    def exit(self) -> list[Claim]:
        """Share answered on the device, and what that loses on unseen images."""
        what = f"with --max-drop {MAX_DROP:g}, our point's mode"
        rows = [row for seed in self.results.seeds if (row := self.results.exit(self.point, seed)) is not None]
        share, drop = f"frames answered on the device {what}", f"accuracy lost on unseen images {what}"
        if not rows:
            reason = "no piece exit is done"
            return [self._least(share, None, "%", 50, reason), self._most(drop, None, "points", MAX_DROP, reason)]
        shares, drops = [100 * row["share"] for row in rows], [row["drop"] for row in rows]
        # Splits share images, so that their mean is no surer than this; it is the error of one split.
        error = fmean(row["drop_error"] for row in rows)
        text = f"{_by_split(drops)}; {MAX_DROP:g} points and the standard error of one split, {error:.2g}"
        text += f"; calibration error {fmean(row['calibration_error'] for row in rows):.1%}"
        return [
            self._least(share, fmean(shares), "%", 50, f"softmax; {_by_split(shares)}"),
            self._most(drop, fmean(drops), "points", round(MAX_DROP + error, 3), text),
        ]

    def later_task(self) -> Claim:
        """Points by which joint training beats the task added later."""
        claim = "accuracy of a task trained jointly less the same task added later, same bytes"
        seeds = self.results.seeds_of("task-")
        both = self.results.later(self.point, seeds)
        if both is None:
            return self._most(claim, None, "points", 1, "the pieces task-added and task-joint are not both done")
        added, beside = both
        interval = paired(beside.correct, added.correct)
        text = f"{added.accuracy:.1%} at {added.size:.1f} bytes, jointly {beside.accuracy:.1%} at {beside.size:.1f}"
        return self._most(claim, interval.difference, "points", 1, f"{text}; difference {interval}, 95 %")

    def lost_groups(self) -> Claim:
        """Points lost with half of the channel groups."""
        claim = "accuracy lost with half of the channel groups, our point"
        seeds = self.results.seeds
        groups = self.results.groups
        if groups < 2:
            return self._most(claim, None, "points", 3, "frames have a single group")
        lost = {
            at: gaps(mode, self.results.cut(at, groups // 2, seeds))
            for at, mode in enumerate(self.results.modes(seeds))
            if self.results.was_cut(at, groups // 2)
        }
        text = f"{groups // 2} of {groups} groups left; {_by_split(lost[self.point])}"
        if len(lost) > 1:
            means = [fmean(each) for each in lost.values()]
            text += f"; over all modes {fmean(means):.2g}, worst {max(means):.2g}"
        return self._most(claim, fmean(lost[self.point]), "points", 3, text)


def _by_split(values: Sequence[float]) -> str:
    return f"by split {spread(values)}" if len(values) > 1 else "one split"


def _gap(ours: Series, peer: Series) -> str:
    """Accuracy of ours less the peer's on the same images, with what it may be off by."""
    values = gaps(ours, peer)
    return f"{spread(values)} points" if len(values) > 1 else f"{paired(ours.correct, peer.correct)} points, 95 %"


def _mean(series: Sequence[Series]) -> list[np.ndarray]:
    """Chance of a right answer of every image, over several settings, split by split."""
    return [np.mean(splits, axis=0) for splits in zip(*(one.correct for one in series), strict=True)]
