"""What became of the frames of a run, beside what could have been: sums over runs, and the table's rows.

A frame is *missed* when it has no answer by its deadline: none at all, or a late one. Misses are counted among those
frames that the oracle has an answer to; where not even the oracle has one, there was nothing to be had.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.deadlines.oracle import Chosen
    from benchmarks.deadlines.pictures import Pictures
    from benchmarks.deadlines.rig import Job, Ran
    from headwater.device.record import FrameRecord


@dataclass(frozen=True)
class Fate:
    """One frame of a run."""

    due_s: float
    """When its picture was taken, by the link's time."""
    latency_ms: float | None
    """Until its record; None where there is none."""
    answered: bool
    in_time: bool
    source: str
    """edge, local or none."""
    action: str
    mode: int
    size: int
    right: bool
    oracle_action: str | None
    """None: the oracle has no answer by the deadline either."""
    oracle_mode: int
    oracle_size: int
    oracle_right: bool

    @property
    def missed(self) -> bool:
        """Without an answer by the deadline where the oracle has one."""
        return self.oracle_action is not None and not self.in_time


@dataclass(frozen=True)
class Outcome:
    """A run, frame by frame."""

    contender: str
    link: str
    seed: int
    deadline_ms: int
    fates: tuple[Fate, ...]

    def to_json(self) -> dict[str, Any]:
        """For the full results."""
        return asdict(self)


def fates(job: Job, ran: Ran, chosen: Sequence[Chosen], numbers: Sequence[int], pictures: Pictures) -> tuple[Fate, ...]:
    """Put each frame's record beside what the oracle chose; `numbers` says which picture each frame is of."""
    return tuple(
        _fate(job.due_s(at), ran.records.get(at), one, number, pictures)
        for at, (one, number) in enumerate(zip(chosen, numbers, strict=True))
    )


def _fate(due_s: float, record: FrameRecord | None, chosen: Chosen, number: int, pictures: Pictures) -> Fate:
    answered = record is not None and record.status == "ok"
    return Fate(
        due_s,
        None if record is None else record.latency_ms,
        answered,
        record is not None and record.in_time,
        "none" if record is None else record.source,
        "" if record is None else record.action,
        -1 if record is None else record.mode,
        0 if record is None else record.bytes,
        answered and record is not None and record.correct.get(pictures.task.name, False),
        *_foreseen(chosen, number, pictures),
    )


def reckoned(
    due_s: Sequence[float],
    did: Sequence[Chosen],
    chosen: Sequence[Chosen],
    numbers: Sequence[int],
    pictures: Pictures,
    deadline_s: float,
) -> tuple[Fate, ...]:
    """Fates of what was not run but reckoned: what a controller did, beside what the oracle chose."""
    return tuple(_reckoned(*each, pictures, deadline_s) for each in zip(due_s, did, chosen, numbers, strict=True))


def _reckoned(due_s: float, did: Chosen, chosen: Chosen, number: int, pictures: Pictures, deadline_s: float) -> Fate:
    option = did.option
    in_time = option is not None and did.latency_s <= deadline_s
    return Fate(
        due_s,
        did.latency_s * 1e3 if in_time else None,
        in_time,
        in_time,
        "edge" if in_time else "none",
        "skip" if option is None else option.action,
        -1 if option is None else option.mode,
        did.size,
        in_time and option is not None and pictures.right(option, number),
        *_foreseen(chosen, number, pictures),
    )


def _foreseen(chosen: Chosen, number: int, pictures: Pictures) -> tuple[str | None, int, int, bool]:
    """Of the oracle: what it did, in which mode, the bytes it sent, and whether it is right."""
    option = chosen.option
    if option is None:
        return None, -1, chosen.size, False
    return option.action, option.mode, chosen.size, pictures.right(option, number)


@dataclass(frozen=True)
class Row:
    """A contender over several runs; shares in %."""

    name: str
    frames: int
    missed: float
    """Of the frames that the oracle has an answer to."""
    late: float
    """Answered after the deadline."""
    unanswered: float
    edge: float
    """Answered by the server."""
    local: float
    """Answered on the device."""
    vain: float
    """Sent, and not answered by the server in time."""
    oracle_edge: float
    """What the oracle has the server answer."""
    right: float
    """Of the answered frames."""
    useful: float
    """Right and in time, of all frames."""
    oracle: float
    """Of all frames, what the oracle is right about."""
    size: float
    """Bytes a frame, without the headers of gRPC and TCP."""
    switches: float
    """Changes of mode or action from one frame to the next, of 100."""


def row(name: str, outcomes: Iterable[Outcome]) -> Row:
    """Sum up runs."""
    runs = list(outcomes)
    every = [fate for outcome in runs for fate in outcome.fates]
    answered = [fate for fate in every if fate.answered]
    return Row(
        name,
        len(every),
        _share([fate.missed for fate in every if fate.oracle_action is not None]),
        _share([fate.answered and not fate.in_time for fate in every]),
        _share([not fate.answered for fate in every]),
        _share([fate.source == "edge" for fate in every]),
        _share([fate.source == "local" for fate in every]),
        _share([fate.size > 0 and not (fate.source == "edge" and fate.in_time) for fate in every]),
        _share([fate.oracle_action == "send" for fate in every]),
        _share([fate.right for fate in answered]),
        _share([fate.right and fate.in_time for fate in every]),
        _share([fate.oracle_right for fate in every]),
        sum(fate.size for fate in every) / max(len(every), 1),
        _share([one for outcome in runs for one in _switched(outcome)]),
    )


def _switched(outcome: Outcome) -> list[bool]:
    did = [(fate.action, fate.mode) for fate in outcome.fates if fate.latency_ms is not None]
    return [before != after for before, after in pairwise(did)]


def _share(which: Sequence[bool]) -> float:
    return 100 * sum(which) / max(len(which), 1)


def grouped(outcomes: Iterable[Outcome], *keys: str) -> dict[tuple[Any, ...], list[Outcome]]:
    """Runs that are alike in these, in the order of their first."""
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(tuple(getattr(outcome, key) for key in keys), []).append(outcome)
    return groups


COLUMNS = (
    "missed",
    "late",
    "none",
    "edge",
    "oracle's",
    "local",
    "vain",
    "right",
    "in time",
    "oracle's",
    "bytes",
    "switches",
)


def table(title: str, rows: Iterable[Row]) -> Table:
    """For the terminal; shares in %."""
    made = Table(title=title, title_justify="left")
    made.add_column("")
    for column in ("frames", *COLUMNS):
        made.add_column(column, justify="right")
    for one in rows:
        made.add_row(one.name, f"{one.frames:,}", *cells(one))
    return made


def markdown(rows: Iterable[tuple[str, int, Row]]) -> str:
    """Rows of (link, deadline in ms, row) as one Markdown table; shares in %."""
    head = ("link", "ms", "", "frames", *COLUMNS)
    lines = [f"| {' | '.join(head)} |", "|---|---:|---|" + "---:|" * (len(head) - 3)]
    lines += [f"| {' | '.join((link, str(ms), one.name, str(one.frames), *cells(one)))} |" for link, ms, one in rows]
    return "\n".join(lines) + "\n"


def cells(one: Row) -> tuple[str, ...]:
    """The row's figures as text, one for each of :data:`COLUMNS`."""
    shares = (
        *(one.missed, one.late, one.unanswered, one.edge, one.oracle_edge, one.local, one.vain),
        *(one.right, one.useful, one.oracle),
    )
    return (*(f"{share:.1f}" for share in shares), f"{one.size:.0f}", f"{one.switches:.0f}")
