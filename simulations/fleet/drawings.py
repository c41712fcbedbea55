"""Drawings that only the fleet's report has: how latencies are spread, beside each class's deadline."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.simulations.charts import WIDTH, duration, figure, log_ticks, text, vertical
from headwater.simulations.fleet.outcome import edge_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater.simulations.fleet.outcome import Histogram

_COARSE = 5
"""Bins of the outcome that one column of the drawing holds: 20 columns a decade."""
_LEFT, _RIGHT, _TOP, _ROW, _BOTTOM = 190, 22, 22, 66, 40


@dataclass(frozen=True)
class Spread:
    """A class's latencies."""

    name: str
    latency: Histogram
    deadline_ms: float | None
    note: str
    """Written at the row's right end."""


def latencies(rows: Sequence[Spread], description: str) -> str:
    """A hill a class over one logarithmic axis; a line where its deadline is. A class without answers has no hill."""
    ends = [edge_ms(at) for row in rows for at in row.latency.counts] + [row.deadline_ms or 0.0 for row in rows]
    ends = [end for end in ends if end > 0]
    if not any(row.latency.counts for row in rows):
        return "<p>No picture was answered.</p>"
    ticks = log_ticks(ends)
    height = _TOP + _ROW * len(rows) + _BOTTOM
    low, high = math.log(ticks[0]), math.log(ticks[-1])

    def x(ms: float) -> float:
        inside = min(max(math.log(ms), low), high)
        return _LEFT + (inside - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    parts = [vertical(x(tick), _TOP - 8, height - _BOTTOM, _milliseconds(tick)) for tick in ticks]
    for at, row in enumerate(rows):
        base = _TOP + _ROW * (at + 1) - 8
        parts += [_hill(row, base, at, x), _deadline(row, base, x)]
        parts.append(text(_LEFT - 14, base - 14, row.name, anchor="end", kind="strong"))
        parts.append(text(_LEFT - 14, base + 1, row.note, anchor="end", kind="soft small"))
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(text(middle, height - 6, "from picture to answer (logarithmic)", anchor="middle", kind="soft"))
    return figure(parts, height, description, [], notes=["a dashed line: the class's deadline"])


def columns(latency: Histogram) -> dict[int, int]:
    """Counts in coarser bins, by the number of the bin."""
    found: dict[int, int] = {}
    for at, count in latency.counts.items():
        found[at // _COARSE] = found.get(at // _COARSE, 0) + count
    return found


def _hill(row: Spread, base: float, kind: int, x: Callable[[float], float]) -> str:
    counts = columns(row.latency)
    if not counts:
        return ""
    most, steps = max(counts.values()), []
    for at in range(min(counts), max(counts) + 1):
        top = base - (_ROW - 20) * counts.get(at, 0) / most
        left, right = x(edge_ms(at * _COARSE)), x(edge_ms((at + 1) * _COARSE))
        steps.append(f"L{left:.1f} {top:.1f} L{right:.1f} {top:.1f}")
    first, last = x(edge_ms(min(counts) * _COARSE)), x(edge_ms((max(counts) + 1) * _COARSE))
    path = f"M{first:.1f} {base} {' '.join(steps)} L{last:.1f} {base} Z"
    title = html.escape(f"{row.name}: {row.latency.total:,} answers; {row.note}")
    return f'<path d="{path}" fill="var(--k{kind % 8})" fill-opacity="0.8"><title>{title}</title></path>'


def _deadline(row: Spread, base: float, x: Callable[[float], float]) -> str:
    if row.deadline_ms is None:
        return ""
    at = x(row.deadline_ms)
    beside, anchor = (at + 5, "start") if at < WIDTH - 3 * _RIGHT else (at - 5, "end")
    label = text(beside, base - _ROW + 25, _milliseconds(row.deadline_ms), anchor=anchor, kind="soft small")
    return (
        f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{base - _ROW + 16}" y2="{base + 3}" stroke-width="1.6" '
        'stroke-dasharray="5 4"/>' + label
    )


def _milliseconds(ms: float) -> str:
    return duration(ms / 1e3)
