"""What has to outlive the driver: what each device knows, replies that were worked out, and the simulated moment.

    devices    what a device knows: its Flower context, and the name of what it shares with others
    shared     records that many devices have alike, by their SHA-256
    messages   each message that is out: when its reply comes, and the reply once it is worked out
    moment     the simulated time

A device knows what it has learnt in a round from the moment at which its reply is delivered: reply and context are
worked out early, in whatever order actors have time, and count in the order of simulated time. So a driver that is
killed at any moment goes on with the same result, and whoever is late has not learnt.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.compression.database import Kind, connect, explained, transaction

if TYPE_CHECKING:
    from headwater.simulations.learning.answering import Outcome

FILE = "devices.sqlite"
KIND = Kind(
    name="shelf of simulated devices",
    application=int.from_bytes(b"hwSd", "big"),
    version=1,
    tables="""
CREATE TABLE devices (node INTEGER PRIMARY KEY, context BLOB NOT NULL, shared TEXT NOT NULL);
CREATE TABLE shared (name TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE messages (
    key TEXT PRIMARY KEY, grp TEXT NOT NULL, node INTEGER NOT NULL, pushed REAL NOT NULL, due REAL NOT NULL,
    state TEXT NOT NULL, envelope BLOB, content BLOB, context BLOB, shared TEXT) WITHOUT ROWID;
CREATE INDEX messages_by_group ON messages (grp);
CREATE INDEX messages_by_node ON messages (node);
CREATE TABLE moment (only INTEGER PRIMARY KEY CHECK (only = 1), seconds REAL NOT NULL)
""",
    way_out="the simulation begins anew with --anew",
    checked=False,
)


@dataclass(frozen=True)
class Posted:
    """A message that is out."""

    key: str
    node: int
    pushed: float
    due: float
    """When its reply comes, simulated seconds; infinite if it never does."""
    state: str
    """out, ready (worked out), or delivered."""


@dataclass(frozen=True)
class Known:
    """What a device knows."""

    context: bytes | None = field(default=None, repr=False)
    shared: str = ""


class Shelf:
    """One simulation's file."""

    def __init__(self, folder: Path) -> None:
        """Open or begin it; raises :class:`StorageError`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        self._db = connect(KIND, self._path, alone=True)
        self._db.execute(
            "PRAGMA synchronous = OFF"
        )  # a process that is killed loses nothing; after a power cut, --anew

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with explained(KIND, self._path), transaction(self._db):
            yield self._db

    def _rows(self, query: str, *values: object) -> list[Any]:
        with explained(KIND, self._path):
            return self._db.execute(query, values).fetchall()

    # ------------------------------------------------------------ time

    def moment(self) -> float:
        """The simulated time, seconds from the beginning."""
        rows = self._rows("SELECT seconds FROM moment")
        return float(rows[0][0]) if rows else 0.0

    def pass_to(self, moment: float) -> None:
        """Time passes."""
        with self._changing() as db:
            db.execute("INSERT OR REPLACE INTO moment VALUES (1, ?)", (moment,))

    # ------------------------------------------------------------ messages

    def posted(self, key: str) -> Posted | None:
        """A message, if it is known."""
        rows = self._rows("SELECT key, node, pushed, due, state FROM messages WHERE key = ?", key)
        return Posted(*rows[0]) if rows else None

    def post(self, group: str, messages: Sequence[Posted]) -> None:
        """Messages go out; who gets one has been heard in the rounds before."""
        with self._changing() as db:
            db.executemany(
                "DELETE FROM messages WHERE node = ? AND grp <> ? AND state = 'delivered'",
                [(each.node, group) for each in messages],
            )
            self._sweep(db)
            db.executemany(
                "INSERT INTO messages (key, grp, node, pushed, due, state) VALUES (?, ?, ?, ?, ?, 'out')",
                [(each.key, group, each.node, each.pushed, each.due) for each in messages],
            )

    def ready(self, outcome: Outcome) -> None:
        """Replies are worked out; they do not count yet."""
        with self._changing() as db:
            db.executemany("INSERT OR IGNORE INTO shared VALUES (?, ?)", outcome.shared.items())
            db.executemany(
                "UPDATE messages SET state = 'ready', envelope = ?, content = ?, context = ?, shared = ? "
                "WHERE key = ? AND state = 'out'",
                [(each.envelope, each.content, each.context, each.shared, each.key) for each in outcome.done],
            )

    def deliver(self, keys: Iterable[str]) -> Iterator[tuple[bytes, bytes]]:
        """The replies to some messages, envelope and content, in this order; from now on their devices know."""
        keys = list(keys)
        with self._changing() as db:
            db.executemany(
                "INSERT OR REPLACE INTO devices SELECT node, context, shared FROM messages "
                "WHERE key = ? AND state = 'ready'",
                [(key,) for key in keys],
            )
            db.executemany(
                "UPDATE messages SET state = 'delivered', context = NULL WHERE key = ?", [(key,) for key in keys]
            )
        for key in keys:
            yield self._rows("SELECT envelope, content FROM messages WHERE key = ?", key)[0]

    def forget(self, group: str) -> None:
        """Nobody asks for a group's replies again; nor for what no device knows any more."""
        with self._changing() as db:
            db.execute("DELETE FROM messages WHERE grp = ?", (group,))
            self._sweep(db)

    @staticmethod
    def _sweep(db: sqlite3.Connection) -> None:
        """Let go of what no device knows, nor will."""
        db.execute(
            "DELETE FROM shared WHERE name NOT IN (SELECT shared FROM devices UNION "
            "SELECT shared FROM messages WHERE shared IS NOT NULL)"
        )

    # ------------------------------------------------------------ devices

    def known(self, node: int) -> Known:
        """What a device knows."""
        rows = self._rows("SELECT context, shared FROM devices WHERE node = ?", node)
        return Known(*rows[0]) if rows else Known()

    def shared(self, name: str) -> bytes:
        """What many devices have alike."""
        return bytes(self._rows("SELECT data FROM shared WHERE name = ?", name)[0][0])

    def sizes(self) -> Mapping[str, int]:
        """Rows of each table."""
        return {
            table: int(self._rows(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - of three words
            for table in ("devices", "shared", "messages")
        }
