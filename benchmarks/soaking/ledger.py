"""The account of every frame by its id, a picture's name: what became of it, and whether that is once and once only.

    taken ──┬─ record: edge ────────────────────────────> answered by the server
            ├─ record: local ──┬────────────────────────> answered locally
            │                  └─ in the archive ───────> delivered
            ├─ record: none, with a reason ──┬──────────> refused
            │                                └─ archive > delivered
            └─ no record ───────────────────────────────> LOST

Beside that: a name with two records, or two rows of the archive, is there TWICE; so is one that the server answered and
that is in the archive all the same, unless the device was to keep everything. What a spool said that it had on disk and
the archive has not is lost as well. What is in the records or the archive and was never taken is a stranger.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

Fate = Literal["server", "local", "delivered", "refused"]


@dataclass(frozen=True)
class Entry:
    """A record, as far as it counts here."""

    name: str
    source: str
    status: str
    detail: str


@dataclass(frozen=True)
class Row:
    """A frame in the archive."""

    device: str
    id: str
    name: str
    status: str


@dataclass
class Account:
    """What became of every frame, and what is wrong with it."""

    fates: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    """In the archive without the server's answer."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Of the refused."""

    @property
    def frames(self) -> int:
        """That were taken."""
        return self.fates.total() + len(self.lost)

    @property
    def wrong(self) -> list[str]:
        """Everything that is not as it must be, in words."""
        found = {"lost": self.lost, "twice": self.twice, "unknown": self.strangers, "unanswered": self.unanswered}
        return [f"{what}: {name}" for what, names in found.items() for name in names]


def account(
    taken: Collection[str],
    records: Iterable[Entry],
    kept: Mapping[str, Collection[str]],
    rows: Iterable[Row],
    keeps_all: Collection[str],
) -> Account:
    """Account for every frame.

    Args:
        taken: names of all pictures that were given to a device.
        records: of all devices.
        kept: ids, in hex, that a spool had on disk, by the picture's name.
        rows: of the archive.
        keeps_all: names that are kept although they were answered.
    """
    result = Account()
    entries, archived = _once(records, result), _rows(rows, result)
    known = set(taken)
    result.strangers += sorted((entries.keys() | archived.keys()) - known)
    for name in sorted(known):
        _settle(name, entries.get(name), archived.get(name), name in keeps_all, result)
    ids = {row.id for row in archived.values()}
    for name, found in kept.items():
        result.twice += [f"{name} kept as {', '.join(found)}"] if len(found) > 1 else []
        result.lost += [f"{name} kept as {one}" for one in found if one not in ids]
    return result


def _once(records: Iterable[Entry], result: Account) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for entry in records:
        if entry.name in entries:
            result.twice.append(f"{entry.name} has two records")
        entries[entry.name] = entry
    return entries


def _rows(rows: Iterable[Row], result: Account) -> dict[str, Row]:
    archived: dict[str, Row] = {}
    for row in rows:
        if row.name in archived:
            result.twice.append(f"{row.name} is in the archive twice")
        if row.status != "ok":
            result.unanswered.append(f"{row.name}, {row.status}")
        archived[row.name] = row
    return archived


def _settle(name: str, entry: Entry | None, row: Row | None, all_kept: bool, result: Account) -> None:
    if entry is None:
        result.lost.append(f"{name} has no record" + (", but is in the archive" if row is not None else ""))
        return
    if entry.source == "edge":
        result.fates["server"] += 1
        if row is not None and not all_kept:
            result.twice.append(f"{name} was answered, and is in the archive")
    elif row is not None:
        result.fates["delivered"] += 1
    elif entry.source == "local":
        result.fates["local"] += 1
    else:
        result.fates["refused"] += 1
        result.reasons[f"{entry.status}: {entry.detail}"] += 1
        if not entry.detail:
            result.lost.append(f"{name} was refused without a reason")
