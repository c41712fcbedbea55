"""What a running agent prints: at a terminal one live line, elsewhere a line a frame; a summary at the end.

cell0031.png  defect intact 93%  cell_type mono 99%     31 B  mode 0.25/0, 3 groups    9.6 ms
cell0032.png  defect intact 99%      0 B  exit 0.25/0    1.2 ms                        answered on the device
cell0033.png  defect intact 97%     31 B  exit 0.25/0  290.4 ms  (no answer before the deadline)       the same, instead
"""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.device.federated.learner import Counts
    from headwater.device.profile import Profile
    from headwater.device.record import FrameRecord
    from headwater.device.spool import SpoolStats
    from headwater.device.watch import View, Watch

RECENT = 2048
"""Frames that the summary's quantiles are of."""


def line(record: FrameRecord) -> str:
    """One frame on one line."""
    if record.status != "ok":
        return f"{record.name}  no answer ({record.status}): {record.detail}"
    answers = "  ".join(f"{task} {result.label} {result.score:.0%}" for task, result in record.results.items())
    answers += "".join(f"  {task} {file}" for task, file in record.images.items())
    why = f"  ({record.detail})" if record.stepped_in else ""
    return f"{record.name}  {answers}  {record.bytes:5d} B  {_way(record)}  {record.latency_ms:7.1f} ms{why}"


def _way(record: FrameRecord) -> str:
    if record.action == "whole":
        return "whole model"
    mode = f"{record.width:g}/{record.gain}"
    if record.source == "local":
        return f"exit {mode}"
    return f"mode {mode}, {record.groups} group{'' if record.groups == 1 else 's'}"


class Totals:
    """Running totals of a run; memory does not grow with it."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.local = 0
        """Frames that the device answered itself."""
        self.stepped_in = 0
        """Of these, those that it answered because the server did not, or not in time."""
        self.late = 0
        """Frames that were answered after their deadline."""
        self._bytes = 0
        self._right: Counter[str] = Counter()
        self._known: Counter[str] = Counter()
        self._latencies_ms: deque[float] = deque(maxlen=RECENT)

    def add(self, record: FrameRecord) -> None:
        """Count one frame."""
        self.statuses[record.status] += 1
        if record.status == "ok":
            self.local += record.source == "local"
            self.stepped_in += record.stepped_in
            self.late += not record.in_time
            self._bytes += record.bytes
            self._latencies_ms.append(record.latency_ms)
            for task, right in record.correct.items():
                self._known[task] += 1
                self._right[task] += right

    @property
    def answered(self) -> int:
        """Frames with an answer."""
        return self.statuses["ok"]

    @property
    def accuracy(self) -> dict[str, float]:
        """Share of right answers of each task whose truth was known."""
        return {task: self._right[task] / count for task, count in self._known.items()}

    @property
    def mean_bytes(self) -> float:
        """Of the answered frames; those that the device answered itself have none, unless it had sent them."""
        return self._bytes / max(self.answered, 1)

    def latency_ms(self, share: float) -> float:
        """Quantile of the latest latencies, by rank; 0 before the first."""
        ordered = sorted(self._latencies_ms)
        return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else 0.0


@dataclass(frozen=True)
class State:
    """What the screen shows beside the frames."""

    connected: bool
    why_not: str
    unanswered: int
    """Pictures that were taken and wait for an answer."""
    dropped: int
    skipped: int
    spool: SpoolStats | None = None
    """Of the frames that are kept, where there is a file for them."""
    learning: Counts | None = None
    """Of the federated messages, where the device takes part in rounds."""


class Screen:
    """``with Screen(...) as screen: screen.show(record, state)``."""

    def __init__(self, console: Console, *, as_json: bool = False, watch: Watch | None = None) -> None:
        """``as_json`` prints the record of each frame, one a line, and nothing else; ``watch`` draws the last ones."""
        self.totals = Totals()
        self._console = console
        self._as_json = as_json
        self._watch = watch
        self._latest = ""
        self._live = Live(console=console, refresh_per_second=8) if console.is_terminal and not as_json else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, record: FrameRecord, state: State) -> None:
        """Count and show a frame."""
        self.totals.add(record)
        if self._watch is not None:
            self._watch.add(record)
        if self._as_json:
            self._print(record.to_json())
        elif self._live is None:
            self._print(line(record))
        else:
            self._latest = line(record)
            self._live.update(self._status(self._latest, state))

    def wait(self, state: State) -> None:
        """Show how the link is while nothing comes."""
        if self._live is not None:
            self._live.update(self._status(self._latest, state))

    def summary(self, state: State) -> None:
        """Print the totals of the run."""
        if not self._as_json:
            self._print(summary(self.totals, state))

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _status(self, latest: str, state: State) -> Text | View:
        if self._watch is not None:
            return self._watch.view(latest, self.totals, state)
        link = Text("connected", "green") if state.connected else Text(state.why_not or "connecting", "yellow")
        totals = self.totals
        local = f" ({totals.local} here)" if totals.local else ""
        figures = (
            f"  {totals.answered} answered{local}  {totals.mean_bytes:.0f} B  p95 {totals.latency_ms(0.95):.1f} ms  "
        )
        return Text.assemble(link, figures, _percent(totals.accuracy), "\n", latest)


def summary(totals: Totals, state: State) -> str:
    """The totals as one paragraph."""
    parts = [f"{totals.answered} of {totals.statuses.total() + state.unanswered} frames answered"]
    instead = f" ({totals.stepped_in} in the server's place)" if totals.stepped_in else ""
    parts += [f"{totals.local} of them on the device{instead}"] if totals.local else []
    parts += [f"{totals.late} late"] if totals.late else []
    parts += [f"{count} {status}" for status, count in totals.statuses.items() if status != "ok"]
    parts += [f"{state.dropped} dropped"] if state.dropped else []
    parts += [f"{state.skipped} unreadable pictures skipped"] if state.skipped else []
    if totals.answered:
        parts.append(f"{totals.mean_bytes:.0f} bytes a frame")
        parts.append(f"latency p50 {totals.latency_ms(0.5):.1f} ms, p95 {totals.latency_ms(0.95):.1f} ms")
    if accuracy := _percent(totals.accuracy):
        parts.append(f"right: {accuracy}")
    if state.spool is not None:
        parts.append(_spool(state.spool))
    if state.learning is not None and state.learning.offered:
        parts.append(_learning(state.learning))
    return "; ".join(parts)


def _spool(stats: SpoolStats) -> str:
    """Counts are of the file's life, for what is in it may be of an earlier run."""
    counts = {"delivered": stats.delivered, "dropped": stats.dropped_full + stats.dropped_old, "lost": stats.failed}
    told = [f"{count} {what}" for what, count in counts.items() if count]
    return f"spool: {', '.join([f'{stats.frames} frames wait', *told])}"


def _learning(counts: Counts) -> str:
    refused = f", {counts.failed} refused" if counts.failed else ""
    return f"learning: {counts.delivered} of {counts.offered} messages answered{refused}"


def _percent(accuracy: dict[str, float]) -> str:
    return ", ".join(f"{task} {share:.1%}" for task, share in accuracy.items())


def profile_table(rows: Sequence[Profile], title: str, whole_ms: float | None) -> Table:
    """The table of `headwater device profile`."""
    table = Table(title=title, title_justify="left")
    for column in ("width", "head ms", "p95", "of whole", "prepare ms", "code ms", "MMAC", "parameters"):
        table.add_column(column, justify="right")
    for row in rows:
        share = "-" if whole_ms is None else f"{row.head_ms / whole_ms:.0%}"
        times = (f"{time_ms:.3f}" for time_ms in (row.head_ms, row.head_p95_ms))
        rest = (f"{row.prepare_ms:.3f}", f"{row.code_ms:.3f}", f"{row.macs / 1e6:.1f}", f"{row.parameters:,}")
        table.add_row(f"{row.width:g}", *times, share, *rest)
    return table
