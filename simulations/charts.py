"""The demo report's own charts, as inline SVG that follows the reader's light or dark theme.

Beside :mod:`headwater.server.charts`, whose page they stand in: points with error bars over a logarithmic axis, bars
of times, and bars of shares. Colours are custom properties (``--k0`` and on), so that each theme has its own with
enough contrast; shape, order and a table near by say the same without colour.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

STYLE = """
:root { --k0:#0b62c4; --k1:#c2570c; --k2:#0f7f5f; --k3:#7b4bb7; --k4:#a8790a; --k5:#c23a75; --k6:#3f8f9b; --k7:#6b7280;
 --on:#fff }
@media (prefers-color-scheme: dark) {
 :root { --k0:#6cb1ff; --k1:#ff9d57; --k2:#4fd0a5; --k3:#c3a1ff; --k4:#e6bd4f; --k5:#ff8fbd; --k6:#7fd3df; --k7:#9aa5b5;
 --on:#10151c } }
figure > svg { width: 100% } @media (max-width: 44rem) { figure { overflow-x: auto }
 figure > svg { width: 44rem; max-width: none } }
svg .axis { stroke: var(--soft) }
svg text.strong { font-weight: 650 } svg text.small { font-size: 11px }
svg .seg { stroke: var(--paper); stroke-width: 1 } svg .on { fill: var(--on); font-weight: 600; font-size: 11px }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; margin: .5rem 0 0; padding: 0; list-style: none;
 color: var(--soft); font-size: .9rem } .legend svg { background: none; border-radius: 0; vertical-align: -2px }
"""

WIDTH = 920
"""Of every drawing, in its own units."""
_SHAPES = ("circle", "triangle", "square")
DEPTH = 0.2
"""How far below the level to compare with the drawing of accuracies goes."""


@dataclass(frozen=True)
class Dot:
    """One point: where, how it is named beside the mark, what a hover says, half the length of its error bar."""

    x: float
    y: float
    label: str = ""
    title: str = ""
    error: float = 0.0


@dataclass(frozen=True)
class Cloud:
    """Points of one kind; `line` joins the best of them from left to right."""

    name: str
    dots: tuple[Dot, ...]
    line: bool = False


def rate_accuracy(clouds: Sequence[Cloud], level: float, level_name: str, description: str) -> str:
    """Accuracy (shares, 0 to 1) over bytes on a logarithmic axis, with a level to compare with.

    Points more than :data:`DEPTH` below the level would press all others together: they are counted, not drawn.
    """
    height, left, right, top, bottom = 400, 58, 18, 16, 46
    floor = level - DEPTH
    drawn = [Cloud(c.name, tuple(dot for dot in c.dots if dot.y >= floor or not c.line), c.line) for c in clouds]
    hidden = sum(len(cloud.dots) for cloud in clouds) - sum(len(cloud.dots) for cloud in drawn)
    dots = [dot for cloud in drawn for dot in cloud.dots]
    x_ticks = log_ticks([dot.x for dot in dots])
    y_ticks = _percent_ticks([*(dot.y - dot.error for dot in dots), *(dot.y + dot.error for dot in dots), level])
    low, high = math.log(x_ticks[0]), math.log(x_ticks[-1])

    def x(value: float) -> float:
        return left + (math.log(value) - low) / (high - low) * (WIDTH - left - right)

    def y(value: float) -> float:
        return height - bottom - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (height - top - bottom)

    parts = [
        *(vertical(x(tick), top, height - bottom, f"{tick:,g}") for tick in x_ticks),
        *(horizontal(y(tick), left, WIDTH - right, f"{100 * tick:.0f} %") for tick in y_ticks),
        text((left + WIDTH - right) / 2, height - 10, "bytes a picture (logarithmic)", anchor="middle", kind="soft"),
        _dashed(y(level), left, WIDTH - right),
    ]
    places = _Places(left, WIDTH - right)
    for at, cloud in reversed(list(enumerate(drawn))):
        spots = [(x(dot.x), y(dot.y), dot) for dot in cloud.dots]
        parts += [_frontier(spots, at)] if cloud.line else []
        for spot_x, spot_y, dot in spots:
            reach = max(abs(y(dot.y + dot.error) - spot_y), 5)
            places.keep_free(spot_x - 6, spot_x + 6, spot_y - reach, spot_y + reach)
            parts += [_error_bar(spot_x, spot_y + reach, spot_y - reach, at)] if dot.error else []
            parts.append(_mark(spot_x, spot_y, at, dot.title, large=not cloud.line))
    parts += [places.label(x(dot.x), y(dot.y), dot.label) for dot in dots if dot.label]
    notes = [f"{hidden} settings below {floor:.0%} are in the table only"] if hidden else []
    legend = [(cloud.name, at) for at, cloud in enumerate(drawn)]
    return figure(parts, height, description, legend, notes=[f"- - {level_name}", *notes])


def time_bars(rows: Sequence[tuple[str, Mapping[str, float]]], names: Sequence[str], description: str) -> str:
    """Seconds of each name for each row, all on one scale from 0; a name that a row lacks has no bar."""
    bar, gap, left, right, top = 19, 16, 190, 90, 12
    group = bar * len(names) + gap
    height = top + group * len(rows)
    longest = max(value for _, values in rows for value in values.values())
    parts = []
    for at, (row, values) in enumerate(rows):
        y = top + group * at
        parts.append(text(left - 14, y + bar * len(names) / 2 + 4, row, anchor="end", kind="strong"))
        for kind, name in enumerate(names):
            if name not in values:
                continue
            width = max(values[name] / longest * (WIDTH - left - right), 1.0)
            title = html.escape(f"{row}, {name}: {duration(values[name])}")
            parts.append(
                f'<rect x="{left}" y="{y + bar * kind + 1}" width="{width:.1f}" height="{bar - 3}" rx="2" '
                f'fill="var(--k{kind})"><title>{title}</title></rect>'
            )
            parts.append(text(left + width + 8, y + bar * kind + 13, duration(values[name]), kind="soft"))
    return figure(parts, height, description, [(name, at) for at, name in enumerate(names)], square=True)


def _milliseconds(ms: float) -> str:
    return duration(ms / 1e3)


def share_bars(
    rows: Sequence[tuple[str, Mapping[str, float]]],
    names: Sequence[str],
    description: str,
    told: Callable[[float], str] = _milliseconds,
) -> str:
    """A bar a row, of full length whatever its total, parted by what each name takes of it; `told` writes an amount."""
    row_height, left, right, top = 48, 190, 84, 10
    height = top + row_height * len(rows)
    parts = []
    for at, (row, values) in enumerate(rows):
        y, total = top + row_height * at, sum(values.values())
        parts.append(text(left - 14, y + 23, row, anchor="end", kind="strong"))
        parts.append(text(WIDTH - right + 12, y + 23, told(total), kind="strong"))
        begin = float(left)
        for kind, name in enumerate(names):
            width = values[name] / total * (WIDTH - left - right)
            title = html.escape(f"{row}, {name}: {told(values[name])}, {values[name] / total:.1%}")
            parts.append(
                f'<rect class="seg" x="{begin:.2f}" y="{y + 2}" width="{width:.2f}" height="{row_height - 14}" '
                f'fill="var(--k{kind})"><title>{title}</title></rect>'
            )
            if width > 44:
                parts.append(text(begin + width / 2, y + 25, f"{values[name] / total:.0%}", anchor="middle", kind="on"))
            begin += width
    return figure(parts, height, description, [(name, at) for at, name in enumerate(names)], square=True)


def figure(
    parts: Iterable[str],
    height: float,
    description: str,
    legend: Sequence[tuple[str, int]],
    *,
    square: bool = False,
    notes: Sequence[str] = (),
) -> str:
    """Wrap a chart's parts, with its description for a screen reader, a legend and notes below."""
    keys = "".join(
        f'<li><svg width="14" height="14" aria-hidden="true">'
        f"{_square(7, 7, at) if square else _mark(7, 7, at, '', large=True)}</svg> {html.escape(name)}</li>"
        for name, at in legend
    )
    keys += "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{html.escape(description)}">{"".join(parts)}</svg><ul class="legend">{keys}</ul></figure>'
    )


def duration(seconds: float) -> str:
    """Two or three digits and a unit: ``0.42 ms``, ``2.0 ms``, ``214 ms``, ``2.1 s``."""
    amount, unit = (seconds, "s") if seconds >= 0.9995 else (seconds * 1e3, "ms")
    digits = 0 if amount >= 9.95 else 1 if amount >= 0.995 else 2
    return f"{amount:.{digits}f} {unit}"


def log_ticks(values: Sequence[float], steps: Sequence[int] = (1, 2, 5)) -> list[float]:
    """Round numbers from at most the least value to at least the greatest."""
    low, high = min(values), max(values)
    marks = [step * 10.0**power for power in range(-9, 13) for step in steps]
    first = max(at for at, mark in enumerate(marks) if mark <= low * 1.0001)
    last = min(at for at, mark in enumerate(marks) if mark >= high * 0.9999)
    return marks[first : max(last, first + 1) + 1]


def _percent_ticks(values: Sequence[float]) -> list[float]:
    """Shares in even steps around the values; what is above 100 % by an error bar alone gets no tick."""
    low, high = max(min(values), 0.0), min(max(values), 1.0)
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 8)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


# ---------------------------------------------------------------- pieces


def text(x: float, y: float, words: str, *, anchor: str = "start", kind: str = "") -> str:
    """Words at a place; `kind` is one or more of the style's classes: strong, soft, small, on."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(words)}</text>'


def vertical(x: float, top: float, bottom: float, label: str) -> str:
    """A line of the grid with its number below."""
    line = f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
    return line + text(x, bottom + 17, label, anchor="middle", kind="soft")


def horizontal(y: float, left: float, right: float, label: str) -> str:
    """A line of the grid with its number at the left."""
    line = f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + text(left - 8, y + 4, label, anchor="end", kind="soft")


def _dashed(y: float, left: float, right: float) -> str:
    return f'<line class="axis" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke-dasharray="5 4"/>'


def _mark(x: float, y: float, kind: int, title: str, *, large: bool) -> str:
    r = 6.5 if large else 3.6
    shape = {
        "circle": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"',
        "square": f'<rect x="{x - r * 0.9:.1f}" y="{y - r * 0.9:.1f}" width="{r * 1.8:.1f}" height="{r * 1.8:.1f}"',
        "triangle": f'<path d="M{x:.1f} {y - r * 1.1:.1f} l{r * 1.1:.1f} {r * 1.9:.1f} h{-r * 2.2:.1f} z"',
    }[_SHAPES[kind % len(_SHAPES)]]
    name = {"circle": "circle", "square": "rect", "triangle": "path"}[_SHAPES[kind % len(_SHAPES)]]
    return f'{shape} fill="var(--k{kind})" stroke="var(--card)"><title>{html.escape(title)}</title></{name}>'


def _square(x: float, y: float, kind: int) -> str:
    return f'<rect x="{x - 6}" y="{y - 6}" width="12" height="12" rx="2" fill="var(--k{kind})"/>'


def _error_bar(x: float, low: float, high: float, kind: int) -> str:
    return (
        f'<path d="M{x:.1f} {low:.1f} V{high:.1f} M{x - 5:.1f} {low:.1f} h10 M{x - 5:.1f} {high:.1f} h10" '
        f'stroke="var(--k{kind})" stroke-width="1.6" fill="none"/>'
    )


def _frontier(spots: Sequence[tuple[float, float, Dot]], kind: int) -> str:
    """The line along what no other point beats in both bytes and accuracy."""
    best: list[tuple[float, float]] = []
    for x, y, _ in sorted(spots, key=lambda spot: (spot[0], spot[1])):
        if not best or y < best[-1][1]:
            best.append((x, y))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in best)
    return f'<polyline points="{path}" fill="none" stroke="var(--k{kind})" stroke-width="1.8" opacity="0.75"/>'


class _Places:
    """Puts labels beside points, where neither another label nor a mark is."""

    _CHARACTER, _LINE = 7.0, 15.0

    def __init__(self, left: float, right: float) -> None:
        self._bounds = (left, right)
        self._taken: list[tuple[float, float, float, float]] = []  # left, right, top, bottom

    def keep_free(self, left: float, right: float, top: float, bottom: float) -> None:
        """Let no label touch this box."""
        self._taken.append((left, right, top, bottom))

    def label(self, x: float, y: float, words: str) -> str:
        """The label of a point, as near as there is room; a line leads to one that is farther away."""
        width = len(words) * self._CHARACTER
        boxes = [self._box(x, y, width, row, left) for row in range(12) for left in (False, True)]
        left, right, top, bottom = next(filter(self._free, boxes), boxes[0])
        self.keep_free(left, right, top, bottom)
        near = right if right < x else left
        leader = "" if abs((top + bottom) / 2 - y) < self._LINE else _leader(x, y, near, (top + bottom) / 2)
        return leader + text(left, bottom - 4, words, kind="strong")

    def _box(self, x: float, y: float, width: float, row: int, left: bool) -> tuple[float, float, float, float]:  # noqa: FBT001 - a side
        """The box of a label `row` places from its point: 0, 1 above, 1 below, 2 above, ..."""
        away = (row + 1) // 2 * (1 if row % 2 == 0 else -1) * self._LINE
        begin = x - 12 - row * 3 - width if left else x + 12 + row * 3
        return begin, begin + width, y - 7 + away, y + 8 + away

    def _free(self, box: tuple[float, float, float, float]) -> bool:
        left, right, top, bottom = box
        inside = left >= self._bounds[0] and right <= self._bounds[1]
        return inside and all(right < l or left > r or bottom < t or top > b for l, r, t, b in self._taken)  # noqa: E741


def _leader(x: float, y: float, to_x: float, to_y: float) -> str:
    return f'<line class="axis" x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke-width="0.8"/>'
