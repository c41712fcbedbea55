"""A picture of each run of ours: the link's rate, what was done with each frame and what the oracle did, and latency.

An SVG file a link and deadline, in the reader's light or dark theme. Three panels over the same time:

    rate     what the way up carries, kbit/s, means of 0.1 s, logarithmic
    bytes    of each frame, logarithmic, ours as a mark whose shape and colour say how it was answered, the oracle's as
             a short line; what was answered on the device has none and stands below
    latency  from the picture to its answer, with the deadline
"""

from __future__ import annotations

import html
import math
from itertools import pairwise
from typing import TYPE_CHECKING

from benchmarks.deadlines.plan import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.deadlines.links import BenchLink
    from benchmarks.deadlines.tally import Fate, Outcome
    from headwater.simulations.trace import Trace

WIDTH, LEFT, RIGHT = 960, 66, 14
TOPS = {"rate": (46, 126), "bytes": (172, 330), "latency": (360, 470)}
"""Of each panel, top and bottom."""
HEIGHT = 536
LEAST_KBIT = 1.0
LEAST_MEAN_S = 0.1
_STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1c2330 } .soft { fill: #5b6575 }
.title { font-weight: 650; font-size: 14px } .grid { stroke: #d9dee6 } .paper { fill: #f6f8fa }
.rate { fill: #0072b2; fill-opacity: .22; stroke: #0072b2 } .oracle { stroke: #5b6575; stroke-width: 1.6 }
.edge { fill: #0072b2 } .here { fill: #009e73 } .stepped { fill: #d98a00 } .missed { fill: #d1242f }
.deadline { stroke: #d1242f; stroke-dasharray: 5 4 }
@media (prefers-color-scheme: dark) {
 text { fill: #e6eaf0 } .soft { fill: #9aa5b5 } .grid { stroke: #333c49 } .paper { fill: #1a2028 }
 .rate { fill: #56b4e9; stroke: #56b4e9 } .edge { fill: #56b4e9 } .oracle { stroke: #9aa5b5 } .here { fill: #4fd0a5 }
 .stepped { fill: #e6bd4f } .missed { fill: #ff7b72 } .deadline { stroke: #ff7b72 } }
"""
KINDS = {
    "edge": "the server, in time",
    "here": "the device, nothing was sent",
    "stepped": "the device, as the server was late",
    "missed": "missed",
}


def write(outcomes: Sequence[Outcome], links: Sequence[BenchLink], folder: Path) -> Path:
    """Draw every run of ours into a folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    by_name = {link.name: link for link in links}
    for one in outcomes:
        if one.contender == OURS:
            name = "".join(letter if letter.isalnum() else "-" for letter in one.link)
            path = folder / f"{name}-{one.deadline_ms}ms-{one.seed}.svg"
            path.write_text(draw(one, by_name[one.link].make(one.seed).up), encoding="utf-8")
    return folder


def draw(outcome: Outcome, rate: Trace) -> str:
    """The picture of one run, as an SVG file."""
    fates = outcome.fates
    end_s = max(fate.due_s for fate in fates) + outcome.deadline_ms / 1e3
    title = f"{outcome.link}, deadline {outcome.deadline_ms} ms"
    parts = [
        *_grid(end_s),
        *_rate(rate, end_s),
        *_bytes(fates, end_s),
        *_latency(fates, end_s, outcome.deadline_ms),
        *_legend(),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title">\n'
        f'<title id="title">{html.escape(title)}: rate, modes and latency over time</title>\n<style>{_STYLE}</style>\n'
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="8"/>\n'
        f"{_text(LEFT, 20, title, 'title')}\n" + "\n".join(parts) + "\n</svg>\n"
    )


def kind(fate: Fate) -> str:
    """How a frame was answered: a key of :data:`KINDS`."""
    if not fate.in_time:
        return "missed"
    if fate.source == "edge":
        return "edge"
    return "stepped" if fate.action == "send" else "here"


# ---------------------------------------------------------------- panels


def _rate(trace: Trace, end_s: float) -> Iterator[str]:
    """Means of a moment each: a recorded rate is none at all between two packets."""
    steps = max(min(round(end_s / LEAST_MEAN_S), 300), 1)
    carried = [trace.capacity(end_s * at / steps) for at in range(steps + 1)]
    rates = [(after - before) * 8e-3 * steps / end_s for before, after in pairwise(carried)]
    most = max(*rates, 10 * LEAST_KBIT)
    yield from _log_ticks("rate", LEAST_KBIT, most, "kbit/s up")
    spots = [
        f"{_x(end_s * edge / steps, end_s):.1f},{_log_y('rate', max(rate, LEAST_KBIT), LEAST_KBIT, most):.1f}"
        for at, rate in enumerate(rates)
        for edge in (at, at + 1)
    ]
    bottom = TOPS["rate"][1]
    yield f'<polygon class="rate" points="{LEFT},{bottom} {" ".join(spots)} {WIDTH - RIGHT},{bottom}"/>'


def _bytes(fates: Sequence[Fate], end_s: float) -> Iterator[str]:
    most = max(10.0, *(max(fate.size, fate.oracle_size) * 1.15 for fate in fates))
    least = 5.0
    yield from _log_ticks("bytes", 10.0, most, "bytes", least)
    yield _text(LEFT - 8, TOPS["bytes"][1] + 3, "none", "soft", "end")
    for fate in fates:
        x = _x(fate.due_s, end_s)
        if fate.oracle_action is not None:
            y = _log_y("bytes", max(fate.oracle_size, least), least, most)
            yield f'<line class="oracle" x1="{x - 5:.1f}" x2="{x + 5:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        size = fate.size if fate.action == "send" else 0
        yield _mark(x, _log_y("bytes", max(size, least), least, most), kind(fate), f"mode {fate.mode}, {size} bytes")


def _latency(fates: Sequence[Fate], end_s: float, deadline_ms: int) -> Iterator[str]:
    top, bottom = TOPS["latency"]
    most = deadline_ms * 1.25

    def y(ms: float) -> float:
        return bottom - min(ms, most) / most * (bottom - top)

    for tick in (0, deadline_ms / 2, deadline_ms):
        yield _text(LEFT - 8, y(tick) + 4, f"{tick:g} ms", "soft", "end")
    limit = y(deadline_ms)
    yield f'<line class="deadline" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{limit:.1f}" y2="{limit:.1f}"/>'
    yield _text(LEFT, top - 8, "latency", "soft")
    for fate in fates:
        ms = most if fate.latency_ms is None else fate.latency_ms
        yield _mark(_x(fate.due_s, end_s), y(ms), kind(fate), f"{ms:.0f} ms")


def _grid(end_s: float) -> Iterator[str]:
    step = next(step for step in (1, 2, 5, 10, 30, 60, 300, 900) if end_s / step <= 12)
    for at in range(0, int(end_s) + 1, step):
        x = _x(at, end_s)
        for top, bottom in TOPS.values():
            yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
        yield _text(x, TOPS["latency"][1] + 17, f"{at} s", "soft", "middle")


def _log_ticks(panel: str, first: float, most: float, label: str, least: float | None = None) -> Iterator[str]:
    yield _text(LEFT, TOPS[panel][0] - 5, label, "soft")
    for power in range(math.floor(math.log10(first)), math.floor(math.log10(most)) + 1):
        y = _log_y(panel, 10.0**power, first if least is None else least, most)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield _text(LEFT - 8, y + 4, f"{10**power:,}", "soft", "end")


def _legend() -> Iterator[str]:
    x = LEFT
    for name, words in KINDS.items():
        yield _mark(x, HEIGHT - 20, name, words)
        yield _text(x + 10, HEIGHT - 16, words)
        x += 30 + 6.6 * len(words)
    yield f'<line class="oracle" x1="{x}" x2="{x + 10}" y1="{HEIGHT - 20}" y2="{HEIGHT - 20}"/>'
    yield _text(x + 16, HEIGHT - 16, "the oracle")


# ---------------------------------------------------------------- pieces


def _x(time_s: float, end_s: float) -> float:
    return LEFT + time_s / end_s * (WIDTH - LEFT - RIGHT)


def _log_y(panel: str, value: float, least: float, most: float) -> float:
    top, bottom = TOPS[panel]
    return bottom - math.log(value / least) / math.log(most / least) * (bottom - top)


def _mark(x: float, y: float, name: str, words: str) -> str:
    shape = {
        "edge": f'<circle class="edge" cx="{x:.1f}" cy="{y:.1f}" r="3.2">',
        "here": f'<rect class="here" x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6">',
        "stepped": f'<path class="stepped" d="M{x:.1f} {y - 4.4:.1f} l4.4 7.6 h-8.8 z">',
        "missed": f'<path class="missed" d="M{x:.1f} {y - 5:.1f} l5 5 l-5 5 l-5 -5 z">',
    }[name]
    return f"{shape}<title>{html.escape(words)}</title></{shape[1:].split()[0]}>"


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
