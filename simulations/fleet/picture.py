"""The report's first page as one PNG: figures, latencies, who answered, the servers' day; drawn with Pillow alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from headwater.simulations.charts import duration, log_ticks
from headwater.simulations.fleet import report
from headwater.simulations.fleet.drawings import columns
from headwater.simulations.fleet.outcome import SOURCES, edge_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.simulations.fleet.outcome import ClassOutcome, Outcome

_SCALE = 2
"""Pixels of the file for each of the layout's."""
_WIDTH, _MARGIN, _LEFT = 1000, 40, 200
_LABEL = 90
"""What a deadline's takes, beside its line."""
_INK, _SOFT, _LINE, _PAPER, _CARD = "#1c2330", "#5b6575", "#d9dee6", "#ffffff", "#f6f8fa"
_COLOURS = ("#0b62c4", "#c2570c", "#0f7f5f", "#7b4bb7", "#a8790a", "#c23a75")
_COLUMNS = 5
"""Of :func:`headwater.simulations.fleet.drawings.columns`, bins of the outcome in one."""


def write(outcome: Outcome, path: Path) -> Path:
    """Draw it; always the same pixels for the same outcome."""
    shown = [each for each in outcome.classes if each.frames]
    heights = (230, 70 + 60 * len(shown), 90 + 40 * len(shown), 260)
    page = _Page(sum(heights))
    page.text(_MARGIN, 26, f"A fleet, simulated: {outcome.scenario.name}", size=26)
    page.text(_MARGIN, 64, _lead(outcome), kind=_SOFT)
    _cards(page, outcome)
    top = heights[0]
    for height, draw in zip(heights[1:], (_latencies, _sources, _load), strict=True):
        draw(page, outcome, shown, top)
        top += height
    path.parent.mkdir(parents=True, exist_ok=True)
    page.image.save(path, "PNG", optimize=True)
    return path


class _Page:
    """An image, drawn on in the layout's units."""

    def __init__(self, height: int) -> None:
        self.image = Image.new("RGB", (_WIDTH * _SCALE, height * _SCALE), _PAPER)
        self._draw = ImageDraw.Draw(self.image)

    def text(self, x: float, y: float, words: str, *, size: float = 14, kind: str = _INK, anchor: str = "la") -> None:
        font = ImageFont.load_default(size * _SCALE)
        self._draw.text((x * _SCALE, y * _SCALE), words, fill=kind, font=font, anchor=anchor)

    def box(self, left: float, top: float, right: float, bottom: float, kind: str) -> None:
        corners = (left * _SCALE, top * _SCALE, max(right, left + 0.5) * _SCALE, bottom * _SCALE)
        self._draw.rectangle(corners, fill=kind)

    def line(self, points: Sequence[tuple[float, float]], kind: str, width: float = 1) -> None:
        spots = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(spots, fill=kind, width=round(width * _SCALE), joint="curve")


def _lead(outcome: Outcome) -> str:
    total, scenario, servers = outcome.total, outcome.scenario, len(outcome.scenario.server_names)
    return (
        f"{total.frames:,} pictures of {total.devices:,} devices in {scenario.hours:g} h, {servers:,} server"
        f"{'s' if servers > 1 else ''}; bundle {outcome.bundle}, seed {scenario.seed}"
    )


def _cards(page: _Page, outcome: Outcome) -> None:
    figures = report.headlines(outcome)
    width = (_WIDTH - 2 * _MARGIN - 10 * (len(figures) - 1)) / len(figures)
    for at, (value, what) in enumerate(figures):
        left = _MARGIN + at * (width + 10)
        page.box(left, 98, left + width, 206, _CARD)
        page.text(left + 10, 108, value, size=20)
        for row, words in enumerate(_wrapped(what, int(width / 6.2))):
            page.text(left + 10, 140 + 15 * row, words, size=11, kind=_SOFT)


def _wrapped(words: str, most: int) -> list[str]:
    lines = [""]
    for word in words.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _latencies(page: _Page, outcome: Outcome, shown: Sequence[ClassOutcome], top: float) -> None:
    deadlines = [report.device_class(outcome, of.name).settings.deadline_ms for of in shown]
    ends = [edge_ms(at) for of in shown for at in of.latency.counts] + [float(ms) for ms in deadlines if ms]
    page.text(_MARGIN, top, "From picture to answer", size=17)
    if not ends:
        return
    ticks = log_ticks(ends)
    low, high = math.log(ticks[0]), math.log(ticks[-1])

    def x(ms: float) -> float:
        return _LEFT + (min(max(math.log(ms), low), high) - low) / (high - low) * (_WIDTH - _LEFT - _MARGIN)

    bottom = top + 38 + 60 * len(shown)
    for tick in ticks:
        page.line([(x(tick), top + 34), (x(tick), bottom)], _LINE)
        page.text(x(tick), bottom + 4, duration(tick / 1e3), size=11, kind=_SOFT, anchor="ma")
    for at, (of, deadline) in enumerate(zip(shown, deadlines, strict=True)):
        base = top + 92 + 60 * at
        page.text(_LEFT - 12, base - 26, of.name, anchor="ra")
        page.text(_LEFT - 12, base - 10, f"{of.miss_share:.1%} missed", size=11, kind=_SOFT, anchor="ra")
        counts = columns(of.latency)
        for column, count in counts.items():
            left, right = x(edge_ms(column * _COLUMNS)), x(edge_ms((column + 1) * _COLUMNS))
            page.box(left, base - 46 * count / max(counts.values()), right, base, _COLOURS[at % len(_COLOURS)])
        if deadline is not None:
            page.line([(x(deadline), base - 50), (x(deadline), base + 4)], _INK, 1.5)
            side, anchor = (5, "la") if x(deadline) < _WIDTH - _MARGIN - _LABEL else (-5, "ra")
            words = f"deadline {duration(deadline / 1e3)}"
            page.text(x(deadline) + side, base - 52, words, size=11, kind=_SOFT, anchor=anchor)


def _sources(page: _Page, outcome: Outcome, shown: Sequence[ClassOutcome], top: float) -> None:
    named = [source for source in SOURCES if getattr(outcome.total, source)]
    page.text(_MARGIN, top, "Who answered", size=17)
    for at, of in enumerate(shown):
        y, begin = top + 36 + 40 * at, float(_LEFT)
        page.text(_LEFT - 12, y + 5, of.name, anchor="ra")
        for kind, source in enumerate(named):
            width = of.share(source) * (_WIDTH - _LEFT - _MARGIN)
            if width:
                page.box(begin, y, begin + width, y + 26, _COLOURS[kind])
            if width > 44:
                page.text(begin + width / 2, y + 6, f"{of.share(source):.0%}", kind=_PAPER, size=12, anchor="ma")
            begin += width
    left, y = float(_LEFT), top + 44 + 40 * len(shown)
    for kind, source in enumerate(named):
        page.box(left, y + 2, left + 10, y + 12, _COLOURS[kind])
        page.text(left + 15, y, source, size=12, kind=_SOFT)
        left += 34 + 7 * len(source)


def _load(page: _Page, outcome: Outcome, shown: Sequence[ClassOutcome], top: float) -> None:
    _ = shown
    page.text(_MARGIN, top, "Servers: share of the workers' time", size=17)
    hours = range(math.ceil(outcome.scenario.hours))
    servers = sorted(outcome.servers, key=lambda server: server.name)
    loads = [[report.load(outcome, server, at) for at in hours] for server in servers]
    most = max((max(load) for load in loads), default=0.0) or 1.0
    bottom, height = top + 200, 150

    def spot(at: float, load: float) -> tuple[float, float]:
        return _LEFT + at / len(hours) * (_WIDTH - _LEFT - _MARGIN), bottom - load / most * height

    for share in (0.0, 0.5, 1.0):
        page.line([spot(0, share * most), spot(len(hours), share * most)], _LINE)
        page.text(_LEFT - 12, spot(0, share * most)[1] - 7, f"{100 * share * most:.3g} %", kind=_SOFT, anchor="ra")
    for kind, load in enumerate(loads):
        steps = [spot(at + side, value) for at, value in enumerate(load) for side in (0, 1)]
        page.line(steps, _COLOURS[kind % len(_COLOURS)], 2)
    start = outcome.scenario.start_h
    for at in range(0, len(hours) + 1, max(len(hours) // 6, 1)):
        page.text(spot(at, 0)[0], bottom + 8, f"{(start + at) % 24:g} h", size=12, kind=_SOFT, anchor="ma")
