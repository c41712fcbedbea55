"""Charts as inline SVG and pages as one HTML file: no script, no request to anywhere, light and dark.

    chart = Chart("bytes a frame", "accuracy", log_x=True).line("width 1", xs, ys).line("width 0.25", ...)
    page("Title", [section("Rate and accuracy", chart.svg("what the chart shows, for a screen reader"))])

Colours are the eight of Okabe and Ito (2008), told apart by colour-blind readers, each with a marker of its own.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d00", "#7f7f7f")
_WIDTH, _HEIGHT = 640, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 30, 14, 46  # on the right there is half of a label like 100,000

_LEGEND_COLUMNS, _LEGEND_ROW = 3, 20
_FILE_STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1c2330 } .soft { fill: #5b6575 }
.grid { stroke: #d9dee6 } .paper { fill: #f6f8fa }
@media (prefers-color-scheme: dark) {
 text { fill: #e6eaf0 } .soft { fill: #9aa5b5 } .grid { stroke: #333c49 } .paper { fill: #1a2028 } }
"""

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5b6575; --line: #d9dee6; --paper: #fff; --card: #f6f8fa }
@media (prefers-color-scheme: dark) {
 :root { --ink: #e6eaf0; --soft: #9aa5b5; --line: #333c49; --paper: #12161c; --card: #1a2028 } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper) }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 4rem }
h1 { font-size: 1.7rem; margin: 0 0 .3rem } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem }
p, figcaption { color: var(--soft); max-width: 46rem } figure { margin: 0 } figcaption { font-size: .9rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
table { display: block; overflow-x: auto }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom }
svg { max-width: 100%; height: auto; background: var(--card); border-radius: 8px }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif } svg .soft { fill: var(--soft) }
svg.key { background: none; vertical-align: -2px }
.grid { stroke: var(--line) } .cards { display: flex; flex-wrap: wrap; gap: .8rem }
.card { background: var(--card); border-radius: 8px; padding: .7rem 1rem; min-width: 8rem }
.card b { display: block; font-size: 1.35rem } .card span { color: var(--soft); font-size: .85rem }
"""


def page(title: str, parts: Iterable[str], lead: str = "", style: str = "") -> str:
    """A complete HTML document; `style` is CSS that comes after the page's own."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}{style}</style></head>\n'
        f"<body><h1>{html.escape(title)}</h1>{f'<p>{html.escape(lead)}</p>' if lead else ''}\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def section(title: str, *parts: str, note: str = "") -> str:
    """A heading, an optional paragraph, and content that is HTML already."""
    paragraph = f"<p>{html.escape(note)}</p>" if note else ""
    return f"<section><h2>{html.escape(title)}</h2>{paragraph}{''.join(parts)}</section>"


def cards(figures: Sequence[tuple[str, str]]) -> str:
    """A row of (value, what it is)."""
    boxes = (f'<div class="card"><b>{html.escape(v)}</b><span>{html.escape(k)}</span></div>' for v, k in figures)
    return f'<div class="cards">{"".join(boxes)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; the first column names the row."""
    top = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True)
class _Series:
    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    joined: bool


class Chart:
    """Lines and points over two axes."""

    def __init__(self, x_label: str, y_label: str, *, log_x: bool = False, percent_y: bool = False) -> None:
        """Start an empty chart."""
        self.x_label, self.y_label, self.log_x, self.percent_y = x_label, y_label, log_x, percent_y
        self._series: list[_Series] = []

    def line(self, name: str, xs: Sequence[float], ys: Sequence[float]) -> Chart:
        """Add points joined by a line; points that are not finite, or not positive on a log axis, are left out."""
        return self._add(name, xs, ys, joined=True)

    def points(self, name: str, xs: Sequence[float], ys: Sequence[float]) -> Chart:
        """Add points that are not joined."""
        return self._add(name, xs, ys, joined=False)

    def _add(self, name: str, xs: Sequence[float], ys: Sequence[float], *, joined: bool) -> Chart:
        pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x + y) and (x > 0 or not self.log_x)]
        if pairs:
            left, right = zip(*pairs, strict=True)
            self._series.append(_Series(name, tuple(left), tuple(right), joined))
        return self

    def svg(self, description: str) -> str:
        """The chart as an SVG element in a figure, with its description as text for a screen reader."""
        if not self._series:
            return "<p>no data</p>"
        label = html.escape(description)
        opened = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{label}">'
        return f"<figure>{opened}{self._content()}</svg>{_legend(self._series)}</figure>"

    def file(self, title: str, description: str) -> str:
        """The chart as an SVG file of its own, legend inside, for a page that shows it as a picture."""
        rows = -(-len(self._series) // _LEGEND_COLUMNS)
        height = _HEIGHT + _LEGEND_ROW * rows + 8
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
            f'aria-labelledby="title text">\n<title id="title">{html.escape(title)}</title>\n'
            f'<desc id="text">{html.escape(description)}</desc>\n<style>{_FILE_STYLE}</style>\n'
            f'<rect class="paper" width="{_WIDTH}" height="{height}" rx="8"/>\n{self._content()}\n'
            + "\n".join(_entry(index, series.name) for index, series in enumerate(self._series))
            + "\n</svg>\n"
        )

    def _content(self) -> str:
        x_ticks = _ticks([x for s in self._series for x in s.xs], log=self.log_x)
        y_ticks = _ticks([y for s in self._series for y in s.ys], log=False)
        parts = [
            *(self._x_tick(tick, x_ticks) for tick in x_ticks),
            *(self._y_tick(tick, y_ticks) for tick in y_ticks),
            self._axis_labels(),
            *(self._draw(index, series, x_ticks, y_ticks) for index, series in enumerate(self._series)),
        ]
        return "".join(parts)

    def _axis_labels(self) -> str:
        x, y = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
        below = f'<text class="soft" x="{x}" y="{_HEIGHT - 8}" text-anchor="middle">{html.escape(self.x_label)}</text>'
        turned = f'transform="translate(14 {y}) rotate(-90)" text-anchor="middle"'
        return below + f'<text class="soft" {turned}>{html.escape(self.y_label)}</text>'

    def _x(self, value: float, ticks: Sequence[float]) -> float:
        low, high, at = (math.log(v) if self.log_x else v for v in (ticks[0], ticks[-1], value))
        return _LEFT + (at - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    @staticmethod
    def _y(value: float, ticks: Sequence[float]) -> float:
        return _HEIGHT - _BOTTOM - (value - ticks[0]) / (ticks[-1] - ticks[0]) * (_HEIGHT - _TOP - _BOTTOM)

    def _x_tick(self, tick: float, ticks: Sequence[float]) -> str:
        x = self._x(tick, ticks)
        return (
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
            f'<text class="soft" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{tick:,.6g}</text>'
        )

    def _y_tick(self, tick: float, ticks: Sequence[float]) -> str:
        y = self._y(tick, ticks)
        label = f"{tick:.4g}" if not self.percent_y else f"{100 * tick:.4g}&#8239;%"
        return (
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="soft" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        )

    def _draw(self, index: int, series: _Series, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
        colour = COLOURS[index % len(COLOURS)]
        spots = [(self._x(x, x_ticks), self._y(y, y_ticks)) for x, y in zip(series.xs, series.ys, strict=True)]
        line = ""
        if series.joined:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
            line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        # Many points need no markers; few want one each, with the value when hovered.
        marks = [
            f"{_marker(index, x, y, colour, f'{series.name}: {vx:,.4g}, {vy:.4g}')}"
            for (x, y), vx, vy in zip(spots, series.xs, series.ys, strict=True)
            if len(spots) <= 60
        ]
        return line + "".join(marks)


def _marker(index: int, x: float, y: float, colour: str, text: str) -> str:
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"',
        f'<rect x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"',
        f'<path d="M{x:.1f} {y - 5:.1f} l5 9 h-10 z"',
        f'<path d="M{x:.1f} {y - 5:.1f} l5 5 l-5 5 l-5 -5 z"',
    )
    return f'{shapes[index % len(shapes)]} fill="{colour}"><title>{html.escape(text)}</title>{_close(index)}'


def _close(index: int) -> str:
    return ("</circle>", "</rect>", "</path>", "</path>")[index % 4]


def _legend(series: Sequence[_Series]) -> str:
    keys = [
        f'<span><svg class="key" width="14" height="14" aria-hidden="true">'
        f"{_marker(index, 7, 7, COLOURS[index % len(COLOURS)], one.name)}</svg> {html.escape(one.name)}</span>"
        for index, one in enumerate(series)
    ]
    return f"<figcaption>{' &#8194; '.join(keys)}</figcaption>"


def _entry(index: int, name: str) -> str:
    """One line of the legend of a file, below the chart."""
    row, column = divmod(index, _LEGEND_COLUMNS)
    x, y = _LEFT + column * (_WIDTH - _LEFT) / _LEGEND_COLUMNS, _HEIGHT + _LEGEND_ROW * row + 6
    text = f'<text x="{x + 12:.0f}" y="{y + 4}">{html.escape(name)}</text>'
    return _marker(index, x, y, COLOURS[index % len(COLOURS)], name) + text


def _ticks(values: Sequence[float], *, log: bool) -> list[float]:
    """Round values that enclose the data: at least two."""
    low, high = min(values), max(values)
    if log:
        steps = [base * 10.0**power for power in range(-9, 13) for base in (1, 2, 5)]
        first = max(i for i, step in enumerate(steps) if step <= low * 1.0001)
        last = min(i for i, step in enumerate(steps) if step >= high * 0.9999)
        return steps[first : max(last, first + 1) + 1]
    span = (high - low) or abs(high) or 1.0
    raw = span / 5
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = magnitude * next(m for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(n * step, 12) for n in range(first, max(last, first + 1) + 1)]
