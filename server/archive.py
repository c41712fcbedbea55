"""The archive: kept frames that devices have delivered, in one SQLite file, each once.

    device ──KeptFrame──> store() ──committed──> KeptAck           once for each (device, id), however often it comes
                             │
                 status: waiting ──the tails, when the server is idle──> ok, or why there is no answer

    table frames  number            the order of arrival; no number is used twice
                  device, id        whose, and its 16 random bytes
                  session, sequence, captured_unix_ms, bundle_id, name, frame, local_answer     as in KeptFrame
                  stored_unix_ms    when it came, by this machine's clock
                  status            waiting, ok, unknown_bundle, invalid_frame, internal
                  detail            why it is not ok
                  answer            JSON, task -> label -> probability, as `local_answer` is

An acknowledged frame survives a kill and a power cut: it is stored by a synchronous transaction, many frames in one. An
answer that is lost in a power cut is made again.

The archive has no bound of its own: it is the place where frames were to arrive, so nothing in it is dropped. On a full
disk new frames are refused and stay where they are, on their devices, whose spools are bounded.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, get_args

from headwater.compression.database import Kind, connect, explained, transaction

if TYPE_CHECKING:
    from headwater.protos import edge_pb2 as pb

Status = Literal["waiting", "ok", "unknown_bundle", "invalid_frame", "internal"]
STATUSES: tuple[Status, ...] = get_args(Status)
PAGE = 256
"""Rows that are read at a time."""
_ARCHIVE = Kind(
    name="archive",
    application=0x48574152,  # "HWAR"
    version=1,
    tables="""
        CREATE TABLE frames (
            number INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL, id BLOB NOT NULL, session TEXT NOT NULL,
            sequence INTEGER NOT NULL, captured_unix_ms INTEGER NOT NULL, bundle_id BLOB NOT NULL, name TEXT NOT NULL,
            frame BLOB NOT NULL, local_answer TEXT NOT NULL, stored_unix_ms INTEGER NOT NULL,
            status TEXT NOT NULL DEFAULT 'waiting', detail TEXT NOT NULL DEFAULT '', answer TEXT NOT NULL DEFAULT '',
            UNIQUE (device, id)
        );
        CREATE INDEX frames_waiting ON frames (number) WHERE status = 'waiting';
    """,
    way_out="the server begins a new one",
    checked=False,
)


@dataclass(frozen=True)
class Waiting:
    """A frame without an answer."""

    number: int
    frame: bytes
    """Self-contained."""


@dataclass(frozen=True)
class Answered:
    """What became of it."""

    number: int
    status: Status
    detail: str = ""
    answer: str = ""
    """JSON; empty unless the status is ok."""


class Archive:
    """An archive that is written to. Any thread may call; each call is one transaction."""

    def __init__(self, path: Path) -> None:
        """Open an archive, or begin one; raises :class:`StorageError`."""
        self.path = path
        self._lock = threading.Lock()
        self._db = connect(_ARCHIVE, path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def store(self, frames: Iterable[tuple[str, pb.KeptFrame]]) -> int:
        """Put frames of devices on disk; how many of them were new. Raises :class:`StorageError`."""
        now_ms = int(time.time() * 1e3)
        rows = [
            (
                *(device, one.id, f"{one.session:016x}", one.sequence, one.captured_unix_ms, one.bundle_id, one.name),
                *(one.data, one.local_answer, now_ms),
            )
            for device, one in frames
        ]
        with self._lock, explained(_ARCHIVE, self.path):
            self._db.execute("PRAGMA synchronous = FULL")
            with transaction(self._db):
                return self._db.executemany(
                    "INSERT INTO frames (device, id, session, sequence, captured_unix_ms, bundle_id, name, frame, "
                    "local_answer, stored_unix_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT (device, id) DO NOTHING",
                    rows,
                ).rowcount

    def waiting(self, count: int) -> list[Waiting]:
        """The first frames that have no answer; raises :class:`StorageError`."""
        with self._lock, explained(_ARCHIVE, self.path):
            rows = self._db.execute(
                "SELECT number, frame FROM frames WHERE status = 'waiting' ORDER BY number LIMIT ?", (count,)
            )
            return [Waiting(*row) for row in rows.fetchall()]

    def answer(self, answers: Sequence[Answered]) -> None:
        """Note what became of frames; raises :class:`StorageError`."""
        rows = [(one.status, one.detail, one.answer, one.number) for one in answers]
        with self._lock, explained(_ARCHIVE, self.path):
            self._db.execute("PRAGMA synchronous = NORMAL")
            with transaction(self._db):
                self._db.executemany("UPDATE frames SET status = ?, detail = ?, answer = ? WHERE number = ?", rows)

    def answer_again(self, bundle_ids: Iterable[bytes]) -> None:
        """Let those wait again whose bundle was not served and is now, or on which the server failed."""
        with self._lock, explained(_ARCHIVE, self.path), transaction(self._db):
            self._db.execute("UPDATE frames SET status = 'waiting', detail = '' WHERE status = 'internal'")
            self._db.executemany(
                "UPDATE frames SET status = 'waiting', detail = '' WHERE status = 'unknown_bundle' AND bundle_id = ?",
                [(bundle_id,) for bundle_id in bundle_ids],
            )


@dataclass(frozen=True)
class Chosen:
    """Which rows to read."""

    device: str | None = None
    status: Status | None = None
    after: int = 0
    """Only numbers above this one: of a reader that comes again, the last that it has seen."""


def read(path: Path, chosen: Chosen) -> Iterator[tuple[dict[str, object], bytes]]:
    """Read an archive's frames in the order of arrival, while a server may be writing to it.

    Gives each frame's facts, ready for JSON, and its bytes. Raises :class:`StorageError`.
    """
    db = connect(_ARCHIVE, path, reading=True)
    try:
        db.row_factory = sqlite3.Row
        after = chosen.after
        while rows := _page(db, path, chosen, after):
            yield from map(_facts, rows)
            after = rows[-1]["number"]
    finally:
        db.close()


def _page(db: sqlite3.Connection, path: Path, chosen: Chosen, after: int) -> list[sqlite3.Row]:
    with explained(_ARCHIVE, path):
        return db.execute(
            "SELECT * FROM frames WHERE number > :after AND (:device IS NULL OR device = :device) "
            "AND (:status IS NULL OR status = :status) ORDER BY number LIMIT :page",
            {"after": after, "device": chosen.device, "status": chosen.status, "page": PAGE},
        ).fetchall()


def _facts(row: sqlite3.Row) -> tuple[dict[str, object], bytes]:
    facts = dict(row)
    frame = facts.pop("frame")
    facts["id"], facts["bundle_id"] = row["id"].hex(), row["bundle_id"].hex()
    for key in ("local_answer", "answer"):
        facts[key] = _parsed(row[key])
    return {**facts, "frame_bytes": len(frame)}, frame


def _parsed(text: str) -> object:
    """The JSON of an answer, None for none; a device's text that is no JSON stays text."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text
