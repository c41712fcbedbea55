"""What ``headwater device --watch`` shows: the last frames as small charts, one character a frame, the newest right.

    connected   deadline 300 ms   1 waiting
    cell0033.png  defect intact 97%

    bytes    ▅▅▅▅▆▅▂▂▂▁▁▁▁▁▂▂▅▅  58 B   412 B/s
    latency  ▂▂▂▂▂▂▅█▇▁▁▁▁▁▃▃▂▂  95 %: 262 ms
    width    ▆▆▆▆▆▆▂▂▂▆▆▆▆▆▂▂▆▆  0.75, gain 2
    source   ●●●●●●●△△○○○○○●●●●  server

    412 answered, 31 here, 2 of them in the server's place; 0 late, 0 without an answer

It is as wide as the terminal, down to :data:`LEAST_CHART` frames, and makes do without Unicode where there is none.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

    from headwater.device.record import FrameRecord
    from headwater.device.screen import State, Totals

KEPT = 400
"""Frames: more than fit into a wide terminal's line."""
LABEL, FIGURE, LEAST_CHART = 9, 18, 8
"""Columns of a row beside its chart, and of the chart at least."""
RATE_S = 10.0
"""That the rate is taken over."""
BLOCKS, PLAIN_BLOCKS = "▁▂▃▄▅▆▇█", ".:-=+*#@"
SIGNS, PLAIN_SIGNS = "●○△■✕", "so^wx"
"""Of the server's answer, the local exit's, the same in the server's place, the whole model's, none or a late one."""
NAMES = ("server", "here", "here, instead", "here, whole", "missed")
COLOURS = ("cyan", "green", "yellow", "green", "red")


class Watch:
    """Keeps the last frames; :meth:`view` draws them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` in seconds, for the rate."""
        self._clock = clock
        self._recent: deque[tuple[float, FrameRecord]] = deque(maxlen=KEPT)

    def add(self, record: FrameRecord) -> None:
        """Take a frame that is done with."""
        self._recent.append((self._clock(), record))

    def view(self, latest: str, totals: Totals, state: State) -> View:
        """What there is to see now; ``latest`` is the newest frame in a line."""
        return View(tuple(record for _, record in self._recent), self._bytes_per_s(), latest, totals, state)

    def _bytes_per_s(self) -> float:
        now_s = self._clock()
        since_s = max(now_s - RATE_S, self._recent[0][0]) if self._recent else now_s
        sent = sum(record.bytes for at_s, record in self._recent if at_s > since_s)
        return sent / max(now_s - since_s, 1.0)


@dataclass(frozen=True)
class View:
    """One moment, to be printed by a rich console."""

    records: tuple[FrameRecord, ...]
    bytes_per_s: float
    latest: str
    totals: Totals
    state: State

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> RenderResult:
        """Lines as wide as there is room."""
        lines = [self._link(), Text(self.latest, "dim"), Text()]
        chart = max(options.max_width - LABEL - FIGURE, LEAST_CHART)
        shown = self.records[-chart:]
        if shown:
            lines += [*self._rows(shown, plain=options.ascii_only), Text()]
        for line in lines:
            line.no_wrap, line.overflow = True, "crop" if options.ascii_only else "ellipsis"
            yield line
        yield self._counts()

    def _link(self) -> Text:
        state = self.state
        link = Text("connected", "green") if state.connected else Text(state.why_not or "connecting", "yellow")
        deadline_ms = self.records[-1].deadline_ms if self.records else None
        link.append("" if deadline_ms is None else f"   deadline {deadline_ms:g} ms", "default")
        return link.append(f"   {state.unanswered} waiting", "default")

    def _rows(self, shown: Sequence[FrameRecord], *, plain: bool) -> list[Text]:
        kinds = [kind(record) for record in shown]
        colours = [COLOURS[each] for each in kinds]
        signs, blocks = (PLAIN_SIGNS, PLAIN_BLOCKS) if plain else (SIGNS, BLOCKS)
        last, limit_ms = shown[-1], shown[-1].deadline_ms or 0.0
        widths = [one.width if one.action in {"send", "local"} else 0.0 for one in shown]
        mode = f"{last.width:g}, gain {last.gain}" if widths[-1] else "no head ran"
        latencies = [record.latency_ms for record in shown]
        p95 = self.totals.latency_ms(0.95)
        return [
            _row("bytes", bars([one.bytes for one in shown], blocks), colours, f"{last.bytes} B {self._rate()}"),
            _row("latency", bars(latencies, blocks, limit_ms), colours, f"95 %: {p95:.0f} ms"),
            _row("width", bars(widths, blocks, 1.0), colours, mode),
            _row("source", "".join(signs[each] for each in kinds), colours, NAMES[kinds[-1]]),
        ]

    def _rate(self) -> str:
        rate = self.bytes_per_s
        return f"{rate:.0f} B/s" if rate < 9999.5 else f"{rate / 1e3:.0f} kB/s"

    def _counts(self) -> Text:
        totals = self.totals
        instead = f", {totals.stepped_in} of them in the server's place" if totals.stepped_in else ""
        here = f", {totals.local} here{instead}" if totals.local else ""
        none = totals.statuses.total() - totals.answered
        text = Text(f"{totals.answered} answered{here}; ")
        text.append(f"{totals.late} late", "red" if totals.late else "default")
        return text.append(", ").append(f"{none} without an answer", "red" if none else "default")


def kind(record: FrameRecord) -> int:
    """How a frame was answered: its place in :data:`SIGNS`."""
    if not record.in_time:
        return 4
    if record.source == "edge":
        return 0
    return 3 if record.action == "whole" else 2 if record.stepped_in else 1


def bars(values: Sequence[float], blocks: str = BLOCKS, most: float = 0.0) -> str:
    """A character for each value, by its height between 0 and the greatest, or ``most`` if that is more."""
    top = max(*values, most, 1e-9)
    return "".join(blocks[min(int(value / top * len(blocks)), len(blocks) - 1)] for value in values)


def _row(label: str, chart: str, colours: Sequence[str], figure: str) -> Text:
    row = Text(f"{label:<{LABEL}}")
    for character, colour in zip(chart, colours, strict=True):
        row.append(character, colour)
    return row.append(f"  {figure}", "bold")
