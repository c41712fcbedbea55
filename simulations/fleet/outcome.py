"""What a simulated fleet did, as numbers that add up: of each class of devices, of each server, hour by hour.

Everything here is a count or a sum, so that the parts of a fleet that were simulated apart are merged by adding, in an
order that is always the same: floats are added one by one, never by ``sum``, which rounds otherwise since Python 3.12.
``to_json`` gives the same bytes for the same outcome on any Python.

Times are seconds in sums, milliseconds in latencies. Of every picture one thing becomes, so that

    frames = server + exit + whole + unanswered + skipped + dropped
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from headwater.compression.errors import DataError
from headwater.simulations.fleet.scenario import Scenario

SCHEMA = 1
BINS_PER_DECADE = 100
"""Of latencies: a bin is 2.3 % wide."""
LEAST_MS = 0.1
DAYS_A_MONTH = 30.0
SOURCES = ("server", "exit", "whole", "unanswered", "skipped", "dropped")
STAGES = ("wait", "prepare", "head", "exit", "code", "up", "queue", "run", "down")
"""Of a picture that the server answered: waiting for the device, the work there, the way up with all its delays, the
server's queue, its batch, the way back."""
BUSY = ("prepare", "head", "exit", "code", "whole", "train", "send", "receive", "tail")
"""What devices spend time on: the processor; the radio's sending, receiving, and being awake beside that until it
sleeps (none of a radio that never does)."""


@dataclass
class Histogram:
    """Latencies in bins of equal ratio, ms; bin 0 holds all up to :data:`LEAST_MS`."""

    counts: dict[int, int] = field(default_factory=dict)

    def add(self, ms: float, times: int = 1) -> None:
        """Count a latency."""
        at = bin_of(ms)
        self.counts[at] = self.counts.get(at, 0) + times

    def merge(self, other: Histogram) -> None:
        """Add another's."""
        for at, count in other.counts.items():
            self.counts[at] = self.counts.get(at, 0) + count

    @property
    def total(self) -> int:
        """How many were counted."""
        return sum(self.counts.values())

    def quantile(self, share: float) -> float | None:
        """The latency that this share does not exceed, ms; None where nothing was counted."""
        wanted, passed = share * self.total, 0
        for at in sorted(self.counts):
            count = self.counts[at]
            if passed + count >= wanted and count:
                within = min(max((wanted - passed) / count, 0.0), 1.0)
                return edge_ms(at - 1 + within) if at else LEAST_MS
            passed += count
        return None

    def share_above(self, ms: float) -> float:
        """Share of the latencies beyond this one, by whole bins; 0 where nothing was counted."""
        at, total = bin_of(ms), self.total
        return sum(count for bin_, count in self.counts.items() if bin_ > at) / total if total else 0.0


def bin_of(ms: float) -> int:
    """The bin of a latency."""
    return max(math.ceil(BINS_PER_DECADE * math.log10(ms / LEAST_MS) - 1e-9), 0) if ms > LEAST_MS else 0


def edge_ms(position: float) -> float:
    """The upper end of a bin; of a fraction, within it."""
    return float(LEAST_MS * 10.0 ** (position / BINS_PER_DECADE))


def _zeros(names: tuple[str, ...]) -> dict[str, float]:
    return dict.fromkeys(names, 0.0)


@dataclass
class Hour:
    """Of one hour since the start: of a class of devices."""

    frames: int = 0
    missed: int = 0
    sent: int = 0
    frame_bytes: float = 0.0
    """Of the frames sent, without headers."""
    server: int = 0
    latency_ms: float = 0.0
    """Summed over the pictures that have an answer."""


@dataclass
class ClassOutcome:
    """What the devices of a class did, or of all."""

    name: str
    devices: int = 0
    frames: int = 0
    server: int = 0
    """Pictures that the server answered, in time or, without a deadline, whenever."""
    exit: int = 0
    """That the local exit answered."""
    whole: int = 0
    """That the whole model on the device answered."""
    unanswered: int = 0
    """That were sent, and had no answer by the deadline, nor an exit to step in."""
    skipped: int = 0
    """That the controller did not try."""
    dropped: int = 0
    """That were overwritten by a newer one while the device was busy, as a live source does."""
    sure: int = 0
    """Of `exit`: it was sure, so that nothing was sent."""
    stepped_in: int = 0
    """Of `exit`: the picture was sent, and the server's answer not there in time."""
    missed: int = 0
    """Pictures without an answer by the deadline, where there is one: all of the last three, and late ones."""
    sent: int = 0
    refused: int = 0
    """Of `sent`: by a full server, or one that is down."""
    lost: int = 0
    """Of `sent`: on the way."""
    right: float = 0.0
    """Expected right answers, of all pictures; one without an answer in time counts as wrong."""
    up_bytes: float = 0.0
    """On the wire with all headers, frames, heartbeats and what rounds and roll-outs take."""
    down_bytes: float = 0.0
    frame_bytes: float = 0.0
    """Of `up_bytes`: the frames alone, without headers."""
    bulk_up_bytes: float = 0.0
    """Of `up_bytes`: rounds."""
    bulk_down_bytes: float = 0.0
    """Of `down_bytes`: rounds and roll-outs."""
    wakes: int = 0
    """Times that a radio had to wake up."""
    device_s: float = 0.0
    """Time simulated, times devices."""
    busy_s: dict[str, float] = field(default_factory=lambda: _zeros(BUSY))
    """Device seconds by what they were spent on; see :data:`BUSY`."""
    stage_s: dict[str, float] = field(default_factory=lambda: _zeros(STAGES))
    """Of the pictures that the server answered, where their time went; see :data:`STAGES`."""
    joules: dict[str, float] = field(default_factory=dict)
    """By part, as energy.py reckons them from the sums above."""
    modes: dict[int, int] = field(default_factory=dict)
    """Frames sent, by the index of the mode that they were coded in."""
    latency: Histogram = field(default_factory=Histogram)
    """From taking the picture to its answer, whoever gave it; of those without one nothing."""
    server_latency: Histogram = field(default_factory=Histogram)
    """The same, of the server's answers, late ones included."""
    hours: dict[int, Hour] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """Expected share of right answers of all pictures."""
        return self.right / self.frames if self.frames else 0.0

    @property
    def miss_share(self) -> float:
        """Share of pictures without an answer by the deadline."""
        return self.missed / self.frames if self.frames else 0.0

    @property
    def month_gigabytes(self) -> float:
        """That one device sends and gets in 30 days at this pace, 10^9 bytes."""
        total = self.up_bytes + self.down_bytes
        return total / self.device_s * 86_400 * DAYS_A_MONTH / 1e9 if self.device_s else 0.0

    @property
    def watts(self) -> float:
        """Mean power of a device; 0 where no energy was reckoned."""
        return math.fsum(self.joules.values()) / self.device_s if self.device_s else 0.0

    def share(self, source: str) -> float:
        """Share of the pictures that ended so; one of :data:`SOURCES`."""
        count: int = getattr(self, source)
        return count / self.frames if self.frames else 0.0

    def merge(self, other: ClassOutcome) -> None:
        """Add another's numbers."""
        _add(self, other)


@dataclass
class ServerHour:
    """Of one hour of a server since the start."""

    frames: int = 0
    """That were run."""
    batches: int = 0
    busy_s: float = 0.0
    """Worker seconds."""
    wait_s: float = 0.0
    """Summed over the frames: how long they waited for their batch."""
    most_waiting: int = 0
    refused: int = 0
    expired: int = 0
    """Frames whose deadline passed in the queue."""


@dataclass
class ServerOutcome:
    """What a server did."""

    name: str
    workers: int = 1
    devices: int = 0
    """Whose first choice it is."""
    hours: dict[int, ServerHour] = field(default_factory=dict)

    @property
    def total(self) -> ServerHour:
        """Of all hours."""
        total = ServerHour()
        for at in sorted(self.hours):
            _add(total, self.hours[at])
        return total

    def busy_share(self, hours: float) -> float:
        """Share of its workers' time that batches took."""
        return self.total.busy_s / (hours * 3600 * self.workers)


@dataclass
class RoundOutcome:
    """A federated round on one server."""

    server: str
    at_h: float
    asked: int = 0
    finished: int = 0
    """Whose update arrived before the end of the simulation."""
    first_s: float = 0.0
    """From the round's start to the first update; median_s and last_s likewise."""
    median_s: float = 0.0
    last_s: float = 0.0


@dataclass
class RolloutOutcome:
    """A roll-out on one server."""

    server: str
    at_h: float
    devices: int = 0
    reached: int = 0
    """That use the new bundle in the end."""
    ended: str = "canary"
    """canary, all, or back."""
    steps: list[tuple[float, str, str]] = field(default_factory=list)
    """Seconds since its start, what was done (widen, back), and why."""


@dataclass
class Outcome:
    """What a scenario gave."""

    scenario: Scenario
    bundle: str
    """Its name and short id."""
    classes: list[ClassOutcome]
    servers: list[ServerOutcome]
    rounds: list[RoundOutcome] = field(default_factory=list)
    rollouts: list[RolloutOutcome] = field(default_factory=list)

    @property
    def total(self) -> ClassOutcome:
        """Of all classes."""
        total = ClassOutcome("all")
        for each in self.classes:
            total.merge(each)
        return total

    def to_json(self) -> bytes:
        """Always the same bytes for the same outcome."""
        tables = {
            "schema": SCHEMA,
            "scenario": self.scenario.plain(),
            "bundle": self.bundle,
            **{name: [asdict(each) for each in getattr(self, name)] for name in _LISTS},
        }
        return json.dumps(tables, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read what :meth:`to_json` wrote; raises :class:`DataError`."""
        try:
            tables = json.loads(data)
            if tables["schema"] != SCHEMA:
                raise DataError(f"the outcome is of schema {tables['schema']}; want {SCHEMA}: simulate again")
            lists = {name: [_LISTS[name](row) for row in tables[name]] for name in _LISTS}
            return cls(Scenario.of(tables["scenario"], "outcome"), str(tables["bundle"]), **lists)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"this is no outcome of `headwater simulate fleet --json`: {error!r}") from error


def _add(into: Any, other: Any) -> None:  # noqa: ANN401 - two of the same dataclass
    """Add every number of one to the other; what is called ``most_`` is a maximum."""
    for each in fields(into):
        mine, more = getattr(into, each.name), getattr(other, each.name)
        if isinstance(mine, str):
            continue
        if isinstance(mine, Histogram):
            mine.merge(more)
        elif isinstance(mine, dict):
            _add_table(mine, more)
        else:
            setattr(into, each.name, max(mine, more) if each.name.startswith("most_") else mine + more)


def _add_table(mine: dict[Any, Any], more: Mapping[Any, Any]) -> None:
    for key in sorted(more):
        if isinstance(more[key], int | float):
            mine[key] = mine.get(key, 0) + more[key]
        else:
            _add(mine.setdefault(key, type(more[key])()), more[key])


def _class(row: dict[str, Any]) -> ClassOutcome:
    made: dict[str, Any] = {**row, "modes": _by_int(row["modes"])}
    for name in ("latency", "server_latency"):
        made[name] = Histogram(_by_int(row[name]["counts"]))
    made["hours"] = {at: Hour(**hour) for at, hour in _by_int(row["hours"]).items()}
    return ClassOutcome(**made)


def _server(row: dict[str, Any]) -> ServerOutcome:
    return ServerOutcome(**{**row, "hours": {at: ServerHour(**hour) for at, hour in _by_int(row["hours"]).items()}})


def _rollout(row: dict[str, Any]) -> RolloutOutcome:
    return RolloutOutcome(**{**row, "steps": [(at, what, why) for at, what, why in row["steps"]]})


def _by_int(table: Mapping[str, Any]) -> dict[int, Any]:
    return {int(key): value for key, value in table.items()}


_LISTS: dict[str, Any] = {
    "classes": _class,
    "servers": _server,
    "rounds": lambda row: RoundOutcome(**row),
    "rollouts": _rollout,
}
