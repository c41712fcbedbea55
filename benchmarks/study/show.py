"""The study's results for people: the plot of the README, its table, and the list of pieces."""

from __future__ import annotations

import math
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from rich.table import Table

from benchmarks.study.arithmetic import Series, cheapest, hull, paired
from benchmarks.study.plan import CODECS
from benchmarks.study.runner import Piece, state
from headwater.server.charts import Chart

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.claims import Claim
    from benchmarks.study.results import Cut, Results
    from benchmarks.study.study import Study

BELOW = (1, 2, 3)
"""Points below the teacher at which cuts are compared."""


def plot(results: Results) -> str:
    """Accuracy over bytes, as an SVG file: ours, codecs read by both teachers, the other peers; means over splits.

    What was done on fewer splits than ours says so: they differ by more than the lines do.
    """
    seeds = results.seeds
    chart = Chart("bytes a picture, headers of ours included", "accuracy", log_x=True, percent_y=True)
    _line(chart, "ours, one bundle", hull(results.modes(seeds)))
    untouched = results.seeds_of("codec-")
    _line(chart, f"codecs, teacher untouched{_on(untouched, seeds)}", hull(results.rows("codec-", untouched)))
    for codec in CODECS:
        tuned = results.seeds_of(f"tuned-{codec.lower()}-")
        rows = _of(results.rows("tuned-", tuned), codec)
        _line(chart, f"{codec}, teacher tuned{_on(tuned, seeds)}", hull(rows))
    entropic = results.seeds_of("entropic-")
    _line(chart, f"Entropic Student{_on(entropic, seeds)}", hull(results.rows("entropic-", entropic)))
    zstd = results.rows("zstd", results.seeds_of("zstd"))
    chart.points(
        f"zstd on 8 bits{_on(results.seeds_of('zstd'), seeds)}",
        [row.size for row in zstd],
        [row.accuracy for row in zstd],
    )
    teacher = results.teacher(seeds)
    lowest = min(mode.size for mode in results.modes(seeds))
    chart.line("teacher, nothing lost", [lowest, teacher.size], [teacher.accuracy, teacher.accuracy])
    return chart.file(
        "What a byte buys", f"accuracy over bytes a picture, means over {len(seeds)} splits of solar cells"
    )


def _on(done: Sequence[int], seeds: Sequence[int]) -> str:
    """On which splits, if not on all."""
    return "" if not done or set(done) == set(seeds) else f", split {' and '.join(map(str, done))} alone"


def _line(chart: Chart, name: str, series: Sequence[Series]) -> None:
    chart.line(name, [one.size for one in series], [one.accuracy for one in series])


def _of(rows: Sequence[Series], codec: str) -> list[Series]:
    return [row for row in rows if row.label.startswith(f"{codec} ")]


def markdown(results: Results, claims: Sequence[Claim]) -> str:
    """The claims and the figures behind them, as two Markdown tables."""
    lines = ["| claim | value | target | holds | beside |", "|---|---:|---:|---|---|"]
    for claim in claims:
        value = "not measured" if claim.value is None else f"{claim.value:g} {claim.unit}"
        holds = {True: "yes", False: "**no**", None: ""}[claim.holds]
        bound = "at least" if claim.direction == "min" else "at most"
        lines.append(f"| {claim.claim} | {value} | {bound} {claim.target:g} {claim.unit} | {holds} | {claim.peer} |")
    lines += ["", "| what is sent | bytes | accuracy, % | balanced, % | AUROC | M MACs on the device | splits |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|"]
    lines += [_row(what, series, macs) for what, series, macs in _rows(results)]
    return "\n".join([*lines, *_later(results), *_cuts(results)]) + "\n"


def _rows(results: Results) -> Iterator[tuple[str, Series, int | None]]:
    seeds = results.seeds
    modes, (point, _) = results.modes(seeds), results.point()
    teacher = results.teacher(seeds)
    yield "nothing lost: the picture as it is, the teacher on the server", teacher, 0
    yield "nothing sent: the teacher on the device", teacher.free(), results.local_macs
    yield "**ours, the claims' point**", modes[point], results.macs_of(point)
    for mode in hull(modes):
        if mode.label != modes[point].label:
            yield "ours", mode, results.macs_of(modes.index(mode))
    yield from _codec_rows(results, point)
    for prefix, name in (("entropic-", "Entropic Student"), ("zstd", "zstd level 19 on")):
        for row in sorted(results.rows(prefix, results.seeds_of(prefix)), key=lambda row: row.size):
            yield name, row, results.encoder_macs if prefix == "entropic-" else None


def _codec_rows(results: Results, point: int) -> Iterator[tuple[str, Series, int | None]]:
    """Each codec at our point's accuracy."""
    for prefix, reader in (("codec-", "teacher untouched"), ("tuned-", "teacher tuned")):
        for codec in CODECS:
            done = results.seeds_of(prefix + codec.lower())
            if rows := _of(results.rows(prefix, done), codec):
                ours = results.modes(done)[point]
                reached = cheapest([*rows, results.nothing(done)], ours.accuracy)
                yield f"{codec}, {reader}", reached or max(rows, key=lambda row: (row.accuracy, -row.size)), 0


def _row(what: str, series: Series, macs: int | None) -> str:
    balanced, auroc = ("" if math.isnan(v) else f"{s * v:.{d}f}" for v, s, d in _means(series))
    label = "" if series.label == "teacher" else f" ({series.label})"
    splits = len(series.sizes)
    accuracy = f"{100 * series.accuracy:.1f}" + (f" ± {100 * stdev(series.accuracies):.1f}" if splits > 1 else "")
    cost = "" if macs is None else f"{macs / 1e6:.1f}"
    return f"| {what}{label} | {series.size:,.1f} | {accuracy} | {balanced} | {auroc} | {cost} | {splits} |"


def _means(series: Series) -> tuple[tuple[float, float, int], tuple[float, float, int]]:
    """Mean, factor and digits of balanced accuracy and AUROC."""
    return (fmean(series.balanced), 100, 1), (fmean(series.auroc), 1, 3)


def _later(results: Results) -> list[str]:
    """The task that is added later, at every gain of our point's width, as a table; nothing where it is not done."""
    seeds, point = results.seeds_of("task-"), results.point()[0]
    found = [both for at in results.same_width(point) if (both := results.later(at, seeds))]
    if not found:
        return []
    lines = ["", "| bytes | a task added later, % | trained jointly, at those bytes, % | points between, 95 % |"]
    lines += ["|---:|---:|---:|---:|"]
    for added, joint in found:
        between = paired(joint.correct, added.correct)
        lines.append(f"| {added.size:.1f} | {100 * added.accuracy:.1f} | {100 * joint.accuracy:.1f} | {between} |")
    return lines


def _cuts(results: Results) -> list[str]:
    """Where to cut, as a table; nothing where no cut is done."""
    if not (cuts := results.cuts()):
        return []
    points = " | ".join(f"bytes within {points}" for points in BELOW)
    lines = ["", f"| cut after block | M MACs, narrowest to widest | {points} | most accurate, % | teacher, % |"]
    lines += ["|---:|---:|" + "---:|" * (len(BELOW) + 2)]
    return lines + [_cut_row(block, cut, results.teacher([cut.seed]).accuracy) for block, cut in cuts.items()]


def _cut_row(block: int, cut: Cut, teacher: float) -> str:
    macs = [count / 1e6 for count in cut.macs.values()]
    reached = [cheapest(cut.modes, teacher - points / 100) for points in BELOW]
    told = " | ".join(f"{one.size:.0f}" if one else "-" for one in reached)
    best = max(mode.accuracy for mode in cut.modes)
    return f"| {block} | {min(macs):.1f} to {max(macs):.1f} | {told} | {100 * best:.1f} | {100 * teacher:.1f} |"


def listing(pieces: Sequence[Piece], study: Study) -> Table:
    """What there is to do, what is done, and how long each takes."""
    table = Table(title=f"Pieces of the study, in {study.folder}", title_justify="left")
    for column, justify in (("piece", "left"), ("state", "left"), ("minutes, one core", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    left = 0.0
    for piece in pieces:
        now, record = state(piece, study), study.record(piece.name, piece.seed)
        left += 0 if now == "done" else piece.minutes
        took = f"{record['seconds'] / 60:.0f}" if now == "done" and record else f"about {piece.minutes:g}"
        where = ", elsewhere" if now == "done" and not study.has(piece.name, piece.seed) else ""
        table.add_row(str(piece), now + where, took)
    table.add_section()
    table.add_row("left to do", "", f"about {left:.0f} ({left / 60:.1f} hours)")
    return table
