"""What rounds have done so far, in SQLite: the one place that says where to go on after a kill.

    runs      one `headwater server federate`: what it was told, from which version, how it ended
    rounds    each round's phase: planned -> collected -> closed, and what was measured after it
    tasks     each message to a device: what became of it, and its reply until the round is closed
    devices   who they are, the version each one holds, how often it was believed and refused
    versions  the chain of versions: the update that leads to each one, and a companion's note

Every method that changes something is one transaction, so that a process that is killed between any two of them leaves
a state that the next one goes on from. `headwater server rounds` reads the same file while rounds run.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headwater.compression.database import Kind, connect, explained, transaction
from headwater.compression.learning.masks import ENDED
from headwater.server.federation.entries import Closing, Reply, Round, Run, Step, Task, Verdict

FILE = "rounds.sqlite"
KIND = Kind(
    name="journal of rounds",
    application=int.from_bytes(b"hwRj", "big"),
    version=1,
    tables="""
CREATE TABLE runs (
    run INTEGER PRIMARY KEY, began REAL NOT NULL, ended REAL, bundle BLOB NOT NULL, first TEXT NOT NULL,
    settings TEXT NOT NULL, secret BLOB NOT NULL, companion BLOB NOT NULL,
    status TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '');
CREATE TABLE rounds (
    run INTEGER NOT NULL, round INTEGER NOT NULL, phase TEXT NOT NULL, base TEXT NOT NULL, asked TEXT NOT NULL,
    began REAL NOT NULL, ended REAL, version TEXT, facts TEXT NOT NULL DEFAULT '{}', companion BLOB,
    PRIMARY KEY (run, round)) WITHOUT ROWID;
CREATE TABLE tasks (
    run INTEGER NOT NULL, round INTEGER NOT NULL, kind TEXT NOT NULL, node INTEGER NOT NULL, device TEXT NOT NULL,
    base TEXT NOT NULL, state TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '', sent REAL NOT NULL, answered REAL,
    bytes_down INTEGER NOT NULL, bytes_up INTEGER NOT NULL DEFAULT 0, facts TEXT NOT NULL DEFAULT '{}',
    envelope BLOB, content BLOB, PRIMARY KEY (run, round, kind, node)) WITHOUT ROWID;
CREATE TABLE devices (
    node INTEGER PRIMARY KEY, device TEXT NOT NULL, holds TEXT, seen REAL NOT NULL,
    believed INTEGER NOT NULL DEFAULT 0, refused INTEGER NOT NULL DEFAULT 0, work REAL NOT NULL DEFAULT 0);
CREATE TABLE nonces (nonce TEXT PRIMARY KEY, node INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE versions (
    number INTEGER PRIMARY KEY, version TEXT NOT NULL UNIQUE, parent TEXT, run INTEGER NOT NULL,
    round INTEGER NOT NULL, change BLOB NOT NULL, note BLOB NOT NULL)
""",
    way_out="rounds begin anew from the bundle; devices are told the whole change once",
)


def _stored(node: int) -> int:
    """A node's id in SQLite, whose integers have a sign; those that Flower's own SuperLink draws have 64 bits."""
    return node - (node >> 63 << 64)


def _node(stored: int) -> int:
    return stored % (1 << 64)


class Journal:
    """The journal of a state folder, for the process that runs the rounds.

    `at` is called with the name of each transaction before and after it: tests stop the process there.
    """

    def __init__(self, folder: Path, clock: Callable[[], float], at: Callable[[str], None] = lambda _: None) -> None:
        """Open or begin it; raises :class:`StorageError`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._clock, self._at = folder / FILE, clock, at
        self._db = connect(KIND, self._path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _changing(self, what: str) -> Iterator[sqlite3.Connection]:
        self._at(f"before {what}")
        with explained(KIND, self._path), transaction(self._db):
            yield self._db
        self._at(f"after {what}")

    def _rows(self, query: str, *values: object) -> list[Any]:
        with explained(KIND, self._path):
            return self._db.execute(query, values).fetchall()

    # ------------------------------------------------------------ runs

    def unfinished(self) -> Run | None:
        """The run that was not ended, if there is one."""
        rows = self._rows("SELECT run, bundle, first, settings, secret, status FROM runs WHERE status = 'running'")
        if not rows:
            return None
        number, bundle, first, settings, secret, status = rows[0]
        return Run(number, bundle, first, json.loads(settings), secret, status)

    def next_run(self) -> int:
        """The number that the next run will have."""
        return int(self._rows("SELECT coalesce(max(run), 0) + 1 FROM runs")[0][0])

    def begin(self, run: Run, companion: bytes) -> None:
        """Begin a run; its first version starts a chain if it is not in one."""
        with self._changing("run") as db:
            db.execute(
                "INSERT INTO runs (run, began, bundle, first, settings, secret, companion, status) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, 'running')",
                (run.number, self._clock(), run.bundle, run.first, json.dumps(run.settings), run.secret, companion),
            )
            db.execute("INSERT OR IGNORE INTO versions VALUES (NULL, ?, NULL, ?, 0, x'', x'')", (run.first, run.number))

    def end(self, run: int, status: str, detail: str = "") -> None:
        """Say how a run ended: done, or stopped."""
        with self._changing("ending") as db:
            db.execute(
                "UPDATE runs SET status = ?, detail = ?, ended = ? WHERE run = ?", (status, detail, self._clock(), run)
            )

    # ------------------------------------------------------------ rounds

    def round(self, run: int, number: int) -> Round | None:
        """A round, if it was planned."""
        rows = self._rows(
            "SELECT round, phase, base, asked, began, ended, version, facts FROM rounds WHERE run = ? AND round = ?",
            run,
            number,
        )
        if not rows:
            return None
        number, phase, base, asked, began, ended, version, facts = rows[0]
        return Round(number, phase, base, json.loads(asked), began, ended, version, json.loads(facts))

    def last(self, run: int) -> int:
        """The number of the last round that was planned; 0 if none was."""
        return int(self._rows("SELECT coalesce(max(round), 0) FROM rounds WHERE run = ?", run)[0][0])

    def companion(self, run: int) -> bytes:
        """What the companion dumped with the last version of this run, or at its beginning."""
        rows = self._rows(
            "SELECT companion FROM (SELECT round, companion FROM rounds WHERE run = ?1 AND phase = 'closed' "
            "UNION ALL SELECT 0, companion FROM runs WHERE run = ?1) ORDER BY round DESC LIMIT 1",
            run,
        )
        return bytes(rows[0][0])

    def learnt(self, bundle: bytes) -> tuple[int, int] | None:
        """The last round that was closed of all runs from this bundle."""
        rows = self._rows(
            "SELECT run, round FROM rounds JOIN runs USING (run) WHERE phase = 'closed' AND bundle = ? "
            "ORDER BY run DESC, round DESC LIMIT 1",
            bundle,
        )
        return (int(rows[0][0]), int(rows[0][1])) if rows else None

    def plan(self, run: int, number: int, base: str, asked: Mapping[str, Any]) -> Round:
        """A round begins: what is asked, and (in `asked`) of whom."""
        with self._changing(f"plan of round {number}") as db:
            db.execute(
                "INSERT INTO rounds (run, round, phase, base, asked, began) VALUES (?, ?, 'planned', ?, ?, ?)",
                (run, number, base, json.dumps(asked, sort_keys=True), self._clock()),
            )
        planned = self.round(run, number)
        assert planned is not None
        return planned

    def collected(self, run: int, number: int) -> None:
        """No further reply counts: those that are not there are late."""
        with self._changing(f"collection of round {number}") as db:
            db.execute("UPDATE rounds SET phase = 'collected' WHERE run = ? AND round = ?", (run, number))
            db.execute(
                "UPDATE tasks SET state = 'late' WHERE run = ? AND round = ? AND kind = 'train' AND state = 'sent'",
                (run, number),
            )

    def closed(self, run: int, number: int, closing: Closing) -> None:
        """A round's version is there, and all that comes with it."""
        with self._changing(f"version of round {number}") as db:
            for verdict in closing.verdicts:
                self._judge(db, run, number, verdict)
            db.execute(
                "INSERT OR IGNORE INTO versions VALUES (NULL, ?, ?, ?, ?, ?, ?)",
                (closing.step.version, closing.parent, run, number, closing.step.change, closing.step.note),
            )
            db.execute(
                "UPDATE rounds SET phase = 'closed', version = ?, companion = ?, facts = ?, ended = ? "
                "WHERE run = ? AND round = ?",
                (closing.step.version, closing.companion, json.dumps(closing.facts), self._clock(), run, number),
            )

    @staticmethod
    def _judge(db: sqlite3.Connection, run: int, number: int, verdict: Verdict) -> None:
        """Write down whether a reply was believed, and drop its bytes."""
        state = "refused" if verdict.refused else "believed"
        node = _stored(verdict.node)
        db.execute(
            "UPDATE tasks SET state = ?, detail = ?, facts = ?, content = NULL, envelope = NULL "
            "WHERE run = ? AND round = ? AND kind = ? AND node = ?",
            (state, verdict.refused, json.dumps(verdict.facts), run, verdict.round or number, verdict.kind, node),
        )
        if verdict.holds or verdict.forget:
            db.execute("UPDATE devices SET holds = ? WHERE node = ?", (verdict.holds or None, node))
        if verdict.kind == "train":
            db.execute(
                f"UPDATE devices SET {state} = {state} + 1, work = work + ? WHERE node = ?",  # noqa: S608 - of two words
                (verdict.facts.get("steps", 0.0), node),
            )
        if verdict.nonce:
            db.execute("INSERT OR IGNORE INTO nonces VALUES (?, ?)", (verdict.nonce, node))

    def measured(self, run: int, number: int, facts: Mapping[str, Any], verdicts: Sequence[Verdict] = ()) -> None:
        """Add what was found out about a round after it was closed."""
        with self._changing(f"measurement of round {number}") as db:
            for verdict in verdicts:
                self._judge(db, run, number, verdict)
            db.execute(
                "UPDATE rounds SET facts = json_patch(facts, ?) WHERE run = ? AND round = ?",
                (json.dumps(facts), run, number),
            )

    # ------------------------------------------------------------ tasks

    def sent(self, run: int, tasks: Sequence[Task], sizes: Sequence[int]) -> None:
        """Messages are about to be pushed, of so many bytes; those that are there already stay as they are."""
        with self._changing(f"messages of round {tasks[0].round}") as db:
            now = self._clock()
            db.executemany(
                "INSERT INTO devices (node, device, seen) VALUES (?, ?, ?) "
                "ON CONFLICT (node) DO UPDATE SET device = excluded.device, seen = excluded.seen",
                [(_stored(task.node), task.device, now) for task in tasks],
            )
            db.executemany(
                "INSERT OR IGNORE INTO tasks (run, round, kind, node, device, base, state, sent, bytes_down) "
                "VALUES (?, ?, ?, ?, ?, ?, 'sent', ?, ?)",
                [
                    (run, t.round, t.kind, _stored(t.node), t.device, t.base, t.sent, size)
                    for t, size in zip(tasks, sizes, strict=True)
                ],
            )

    def answered(self, run: int, replies: Sequence[Reply]) -> None:
        """Replies are here."""
        with self._changing(f"replies of round {replies[0].task.round}") as db:
            now = self._clock()
            db.executemany(
                "UPDATE tasks SET state = 'answered', envelope = ?, content = ?, bytes_up = ?, answered = ? "
                "WHERE run = ? AND round = ? AND kind = ? AND node = ? AND state = 'sent'",
                [
                    (each.envelope, each.content, len(each.content), now, run, t.round, t.kind, _stored(t.node))
                    for each in replies
                    for t in (each.task,)
                ],
            )

    def lost(self, run: int, before: float) -> None:
        """No reply will come to what was sent before a moment."""
        with self._changing("loss") as db:
            db.execute("UPDATE tasks SET state = 'lost' WHERE run = ? AND state = 'sent' AND sent < ?", (run, before))

    def tasks(self, run: int, number: int | None = None, kind: str = "train", state: str | None = None) -> list[Task]:
        """The messages of a round, or of all, by node."""
        return [
            Task(number, kind, _node(node), *rest)
            for number, kind, node, *rest in self._rows(
                "SELECT round, kind, node, device, base, state, sent, envelope, content FROM tasks WHERE run = ? "
                "AND (?2 IS NULL OR round = ?2) AND kind = ?3 AND (?4 IS NULL OR state = ?4) ORDER BY round, node",
                run,
                number,
                kind,
                state,
            )
        ]

    def line(self, run: int, start: str) -> str:
        """Names the line of learning that a run is on: it began with a run from `start`, the bundle's own version.

        Runs that go on are on the line of the one before; one that is begun anew begins another.
        """
        rows = self._rows(
            "SELECT secret FROM runs WHERE run <= ?1 AND bundle = (SELECT bundle FROM runs WHERE run = ?1) "
            "ORDER BY first = ?2 DESC, run DESC LIMIT 1",
            run,
            start,
        )
        return hashlib.sha256(b"line" + rows[0][0]).hexdigest()[:16]

    # ------------------------------------------------------------ devices and versions

    def holds(self, node: int) -> str | None:
        """The version that a device held when it answered last."""
        rows = self._rows("SELECT holds FROM devices WHERE node = ?", _stored(node))
        return rows[0][0] if rows else None

    def work(self) -> dict[int, float]:
        """Steps that each device has contributed, in all rounds that closed."""
        return {_node(node): work for node, work in self._rows("SELECT node, work FROM devices") if work > 0}

    def seen(self, nonce: str) -> bool:
        """Whether an update with this nonce was taken before."""
        return bool(self._rows("SELECT 1 FROM nonces WHERE nonce = ?", nonce))

    def masked(self, version: str) -> bool:
        """Whether a version has masks: what the last note on the way to it says."""
        notes = [step.note for step in self.chain(None, version) if step.note]
        return bool(notes) and notes[-1] != ENDED

    def chain(self, held: str | None, base: str) -> list[Step]:
        """The steps from the version that a device holds to `base`; from the very first if that leads nowhere."""
        rows = self._rows(
            "WITH RECURSIVE back(version, parent, change, note, depth) AS ("
            "SELECT version, parent, change, note, 0 FROM versions WHERE version = ?1 AND version IS NOT ?2 UNION ALL "
            "SELECT v.version, v.parent, v.change, v.note, depth + 1 FROM versions v JOIN back b "
            "ON v.version = b.parent WHERE v.version IS NOT ?2) "
            "SELECT version, change, note FROM back WHERE parent IS NOT NULL ORDER BY depth DESC",
            base,
            held,
        )
        return [Step(*row) for row in rows]
