"""What a journal says about a run, added up: for the live view, the report, and whoever wants it as JSON.

It only reads, while rounds run or not, and needs neither Flower nor torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.compression.database import connect, explained
from headwater.compression.errors import LearningError
from headwater.server.federation.journal import FILE, KIND
from headwater.server.federation.versions import FOLDER

if TYPE_CHECKING:
    import sqlite3


@dataclass(frozen=True)
class RoundFacts:
    """One round."""

    round: int
    phase: str
    began: float
    ended: float | None
    states: Mapping[str, int]
    """How many of its train messages are in each state: believed, refused, late, sent, ..."""
    bytes_up: int
    bytes_down: int
    peak_bytes: float
    """The largest memory that a device took for training; 0 if none said."""
    facts: Mapping[str, Any]
    """loss, measured (by the server), evaluated (by devices), change_bytes, ..."""

    def figure(self, name: str) -> float | None:
        """Of the server's measurement, or else of the devices'."""
        for where in ("measured", "evaluated"):
            if name in self.facts.get(where, {}):
                return float(self.facts[where][name])
        return None


@dataclass
class DeviceFacts:
    """One device, over all rounds of a run."""

    device: str
    states: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    """By the word of each reason."""
    last_refusal: str = ""
    bytes_up: int = 0
    bytes_down: int = 0
    width: float | None = None
    part: str = ""
    seconds: list[float] = field(default_factory=list)
    """Of training, where the device says it."""
    losses: list[tuple[int, float]] = field(default_factory=list)
    """Round and loss."""
    peaks: list[tuple[int, float]] = field(default_factory=list)
    """Round and peak memory in bytes."""


@dataclass(frozen=True)
class Survey:
    """One run."""

    run: int
    status: str
    detail: str
    began: float
    ended: float | None
    bundle: str
    """First five bytes of its id, in hex."""
    settings: Mapping[str, Any]
    rounds: Sequence[RoundFacts]
    devices: Sequence[DeviceFacts]
    runs: Sequence[int]
    """All that are in the journal."""

    @property
    def bytes_up(self) -> int:
        """Of all replies."""
        return sum(each.bytes_up for each in self.rounds)

    @property
    def bytes_down(self) -> int:
        """Of all messages."""
        return sum(each.bytes_down for each in self.rounds)


def survey(state: Path, run: int | None = None, *, devices: bool = True) -> Survey:
    """Read a run, the last one if none is named; raises :class:`LearningError` if it is not there.

    Without `devices` it has none: those of a simulation are thousands.
    """
    path = state / FOLDER / FILE
    if not path.is_file():
        raise LearningError(f"there were no rounds in {state} yet; run headwater server federate --state {state}")
    db = connect(KIND, path, reading=True)
    try:
        with explained(KIND, path):
            db.execute("BEGIN")  # one moment of it
            return _survey(db, run, devices=devices)
    finally:
        db.close()


def _survey(db: sqlite3.Connection, run: int | None, *, devices: bool) -> Survey:
    runs = [number for (number,) in db.execute("SELECT run FROM runs ORDER BY run")]
    number = run if run is not None else (runs[-1] if runs else 0)
    if number not in runs:
        raise LearningError(f"there is no run {number}; there are {', '.join(map(str, runs)) or 'none'}")
    row = db.execute(
        "SELECT status, detail, began, ended, hex(substr(bundle, 1, 5)), settings FROM runs WHERE run = ?", (number,)
    ).fetchone()
    status, detail, began, ended, bundle, settings = row
    parts = _rounds(db, number), _devices(db, number) if devices else [], runs
    return Survey(number, status, detail, began, ended, bundle.lower(), json.loads(settings), *parts)


def _rounds(db: sqlite3.Connection, run: int) -> list[RoundFacts]:
    states: dict[int, dict[str, int]] = {}
    for number, state, count in db.execute(
        "SELECT round, state, count(*) FROM tasks WHERE run = ? AND kind = 'train' GROUP BY round, state", (run,)
    ):
        states.setdefault(number, {})[state] = count
    sums = {
        number: (up, down, peak or 0.0)
        for number, up, down, peak in db.execute(
            "SELECT round, sum(bytes_up), sum(bytes_down), max(json_extract(facts, '$.\"peak-bytes\"')) FROM tasks "
            "WHERE run = ? GROUP BY round",
            (run,),
        )
    }
    return [
        RoundFacts(
            number, phase, began, ended, states.get(number, {}), *sums.get(number, (0, 0, 0.0)), json.loads(facts)
        )
        for number, phase, began, ended, facts in db.execute(
            "SELECT round, phase, began, ended, facts FROM rounds WHERE run = ? ORDER BY round", (run,)
        )
    ]


def _devices(db: sqlite3.Connection, run: int) -> list[DeviceFacts]:
    found: dict[str, DeviceFacts] = {}
    for device, kind, number, state, detail, up, down, facts in db.execute(
        "SELECT device, kind, round, state, detail, bytes_up, bytes_down, facts FROM tasks WHERE run = ? "
        "ORDER BY round, device",
        (run,),
    ):
        one = found.setdefault(device, DeviceFacts(device))
        one.bytes_up += up
        one.bytes_down += down
        if kind == "train":
            _add(one, number, state, detail, json.loads(facts))
    return sorted(found.values(), key=lambda each: each.device)


def _add(one: DeviceFacts, number: int, state: str, detail: str, facts: Mapping[str, Any]) -> None:
    one.states[state] = one.states.get(state, 0) + 1
    if state == "refused":
        word = detail.partition(":")[0]
        one.refusals[word] = one.refusals.get(word, 0) + 1
        one.last_refusal = detail
    one.width, one.part = facts.get("width", one.width), facts.get("part", one.part)
    one.seconds += [facts["seconds"]] if "seconds" in facts else []
    one.losses += [(number, facts["loss"])] if "loss" in facts else []
    one.peaks += [(number, facts["peak-bytes"])] if facts.get("peak-bytes") else []
