"""What the demo prints: at a terminal a live table and progress bars, elsewhere plain lines."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from headwater.simulations.demo.act_view import TITLE, act_table, facts, lost_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from headwater.simulations.demo.act import Act
    from headwater.simulations.demo.run import Run
    from headwater.simulations.demo.tally import Tally

PLAIN_PERIOD_S = 10.0


class Watch:
    """``with Watch(console) as watch: watch.show(run)``, as often as there is news."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._next_s = 0.0
        self._told = 0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, run: Run) -> None:
        """Show how far every link is; elsewhere than at a terminal, every ten seconds."""
        if self._live is not None:
            self._live.update(shown(run), refresh=True)
        elif run.act is not None and run.act.spans:
            self._tell(run.act)
        elif time.monotonic() >= self._next_s and any(tally.records for tally in run.tallies):
            self._next_s = time.monotonic() + PLAIN_PERIOD_S
            for tally in run.tallies:
                self._console.print(line(tally), markup=False, highlight=False, soft_wrap=True)

    def _tell(self, act: Act) -> None:
        """Say which part of the last act has begun, once."""
        for span in act.spans[self._told :]:
            self._console.print(f"{TITLE}: {span.name}", markup=False, highlight=False, soft_wrap=True)
        self._told = len(act.spans)

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar; gives the function that is told how many are done."""
        if self._live is None:
            self._console.print(f"{what} ({total})", markup=False, highlight=False, soft_wrap=True)
            yield lambda _: None
            return
        with Progress(console=self._console, transient=True) as progress:
            bar = progress.add_task(what, total=total)
            yield lambda done: progress.update(bar, completed=done)


def shown(run: Run) -> Group:
    """All that is known so far."""
    parts = [table(run)]
    if run.act is not None and run.act.records:
        parts.append(act_table(run.act))
    return Group(*parts)


def ending(run: Run) -> list[str]:
    """What is said of the last act when it is over."""
    if run.act is None:
        return [f"{TITLE}: left out; {run.no_act}"]
    return [lost_line(run.act), *facts(run.act)]


def table(run: Run) -> Table:
    """Every link's figures so far."""
    state = f"{run.seconds:.0f} s" if run.seconds else "starting the server and four devices"
    bundle = f"{run.bundle.manifest.name} {run.bundle.short_id}"
    grid = Table(title=f"headwater demo: bundle {bundle}, {state}", title_justify="left", title_style="bold")
    for heading in ("link", "frames", "accuracy", "bytes", "mode", "p50 ms", "p95 ms", "source"):
        grid.add_column(heading, justify="left" if heading in {"link", "source"} else "right", no_wrap=True)
    for tally in run.tallies:
        grid.add_row(*map(Text, cells(tally)))
    return grid


def line(tally: Tally) -> str:
    """A link's figures so far on one line."""
    title, frames, accuracy, size, mode, p50, p95, source = cells(tally)
    note = f"; {tally.note}" if tally.note else ""
    return (
        f"{title}: {frames} frames, accuracy {accuracy}, {size} bytes, mode {mode}, "
        f"latency p50 {p50} ms, p95 {p95} ms, answered by {source}{note}"
    )


def cells(tally: Tally) -> list[str]:
    """Link, frames, accuracy, mean bytes, most frequent mode, p50 and p95 latency in ms, who answered."""
    if not tally.records:
        return [tally.title, "0", *["-"] * 6]
    mode = next((f"{width:g}/{gain}" for (width, gain), _ in tally.modes.most_common(1)), "-")
    sources = ", ".join(f"{source} {count}" for source, count in tally.sources.most_common())
    accuracy = number(100 * tally.accuracy, "{:.1f}%")
    latencies = [number(tally.latency_ms(share), "{:.0f}") for share in (0.5, 0.95)]
    return [
        tally.title,
        str(len(tally.records)),
        accuracy,
        number(tally.mean_bytes, "{:.0f}"),
        mode,
        *latencies,
        sources,
    ]


def number(value: float, form: str) -> str:
    """A figure, or a dash where there is none yet."""
    return "-" if math.isnan(value) else form.format(value)
