"""What the device knows of the messages that it was offered, in one SQLite file and a folder of blobs.

    offered ──content is here──> fetched ──commit()──> answered ──the server has it──> delivered
       └──────────────┴──────────────┴── failed: never will be answered; the server is told why

    learning.db     table message    a row a message, from its offer until its lifetime is over
                    table context    a row a run: what Flower calls the node's context of it
    blobs/          contents, replies and contexts, named by their SHA-256

**Once.** :meth:`State.commit` makes a reply and the context that it leaves behind count in one transaction. Before it
nothing has happened, and the message is answered again from the same context; after it the app is not asked again,
however often the message is offered. So a kill at any moment changes nothing but the time that it takes.

**A power cut** takes no reply and no context: they are on the disk before they count. What the server would send again
is not waited for: contents are read through when the folder is opened, and those that were damaged are fetched again.

**A message** is known by its envelope and its content's hash: the number of an offer is the server's own affair, and
may differ when it offers the same again.

**One process** uses a folder: the file is locked for as long as it is open.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

from headwater.compression.database import Kind, connect, explained, lasting, transaction
from headwater.compression.errors import LearningError
from headwater.compression.transfer import BlobStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwater.device.federated.jobs import Answer, Config
    from headwater.protos import edge_pb2 as pb

Phase: TypeAlias = Literal["offered", "fetched", "answered", "delivered", "failed"]

LIMIT_BYTES = 4 << 30
"""Of all blobs; an offer that would go beyond is refused."""
KEPT_RUNS = 4
"""Contexts are kept of so many runs, the last ones used."""
KEPT_REPLIES = 4
"""Replies that the server has, the last ones, for when it asks again."""
LATE_S = 3600.0
"""For so long after its lifetime a message is remembered: clocks may differ."""
_STATE = Kind(
    name="learning state",
    application=0x48574C53,  # "HWLS"
    version=1,
    tables="""
        CREATE TABLE message (
            number INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL UNIQUE, offer TEXT NOT NULL,
            envelope BLOB NOT NULL, content TEXT NOT NULL, bytes INTEGER NOT NULL, expires_unix_s REAL NOT NULL,
            phase TEXT NOT NULL, config TEXT, deaths INTEGER NOT NULL DEFAULT 0, reply_envelope BLOB,
            reply_content TEXT, reason TEXT NOT NULL DEFAULT ''
        );
        CREATE TABLE context (run TEXT PRIMARY KEY, content TEXT NOT NULL, used INTEGER NOT NULL)
    """,
    way_out="messages that have no answer yet are offered again, and training begins anew",
)
_COLUMNS = (
    "number, offer, envelope, content, bytes, expires_unix_s, phase, config, deaths, reply_envelope, reply_content, "
    "reason"
)


@dataclass(frozen=True)
class Task:
    """A message on this device."""

    number: int
    """In the order of their first offers."""
    offer: int
    """By which the server offered it last."""
    envelope: bytes
    content: str
    """SHA-256, hex."""
    size: int
    """Bytes of the content."""
    expires_unix_s: float
    phase: Phase
    config: Config | None
    """What it was begun with; None before that."""
    deaths: int
    """Training processes that ended over it."""
    reply_envelope: bytes
    reply_content: str
    """SHA-256, hex; empty where there is none (any more)."""
    reason: str
    """Why it failed."""


class State:
    """The messages and contexts of one device; used by one thread at a time."""

    def __init__(self, folder: Path, *, limit_bytes: int = LIMIT_BYTES, clock: Callable[[], float] = time.time) -> None:
        """Open what a folder holds, or begin; raises :class:`StorageError`. ``clock`` gives Unix time."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / "learning.db"
        self._clock = clock
        self.blobs = BlobStore(folder / "blobs", limit_bytes)
        self._db = connect(_STATE, self._path, alone=True)
        try:
            with explained(_STATE, self._path):
                self.expire()
                self._sweep()
                self._read_through()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # ------------------------------------------------------------ looking

    def first(self, phase: Phase) -> Task | None:
        """The oldest message of a phase."""
        row = self._db.execute(
            f"SELECT {_COLUMNS} FROM message WHERE phase = ? ORDER BY number LIMIT 1",  # noqa: S608 - names of ours
            (phase,),
        ).fetchone()
        return None if row is None else _task(row)

    def get(self, number: int) -> Task | None:
        """One message, if it is still known."""
        row = self._db.execute(
            f"SELECT {_COLUMNS} FROM message WHERE number = ?",  # noqa: S608 - the same
            (number,),
        ).fetchone()
        return None if row is None else _task(row)

    def contexts(self) -> dict[str, str]:
        """The context of each run: SHA-256, hex, by the run's number."""
        return dict(self._db.execute("SELECT run, content FROM context").fetchall())

    # ------------------------------------------------------------ a message's way

    def offered(self, offer: pb.Offer) -> Task:
        """Take an offer, of a message that may be known; what it is now.

        Raises:
            TransferError: there is no room for it, or it has no SHA-256.
        """
        key = hashlib.sha256(offer.content_sha256 + offer.envelope).digest()
        expires_unix_s = self._clock() + offer.valid_for_ms / 1e3
        if (known := self._known(key)) is not None:
            again = known.phase == "delivered" and known.reply_content
            phase = "answered" if again else known.phase
            self._update(known.number, offer=str(offer.offer), expires_unix_s=expires_unix_s, phase=phase)
            return self._certainly(known.number)
        content = self.blobs.path(offer.content_sha256).name
        self.blobs.require_room(offer.content_bytes)
        with transaction(self._db):
            cursor = self._db.execute(
                "INSERT INTO message (key, offer, envelope, content, bytes, expires_unix_s, phase) "
                "VALUES (?, ?, ?, ?, ?, ?, 'offered')",
                (key, str(offer.offer), offer.envelope, content, offer.content_bytes, expires_unix_s),
            )
        assert cursor.lastrowid is not None
        return self._certainly(cursor.lastrowid)

    def fetched(self, number: int) -> None:
        """Its content is among the blobs."""
        self._update(number, phase="fetched")

    def begun(self, number: int, config: Config) -> None:
        """It is about to be answered, with this node config: with the same one if it has to be answered again."""
        self._update(number, config=json.dumps(dict(config)))

    def died(self, number: int) -> int:
        """A training process ended over it; how many have."""
        self._db.execute("UPDATE message SET deaths = deaths + 1 WHERE number = ?", (number,))
        return self._certainly(number).deaths

    def commit(self, number: int, answer: Answer) -> None:
        """Its reply and its run's context, both or neither; raises :class:`LearningError` if they are not there."""
        for name in filter(None, (answer.content, answer.context)):
            if not self.blobs.has(bytes.fromhex(name)):
                raise LearningError(f"the training process tells of {name}, but that is not in {self.blobs.folder}")
        old = [self.contexts().get(answer.run, ""), self._certainly(number).content]
        with lasting(self._db), transaction(self._db):
            self._update(
                number,
                phase="answered",
                reply_envelope=base64.b64decode(answer.envelope),
                reply_content=answer.content,
            )
            if answer.context is not None:
                self._db.execute(
                    "INSERT OR REPLACE INTO context (run, content, used) VALUES (?, ?, ?)",
                    (answer.run, answer.context, number),
                )
        old += [name for (name,) in self._drop_old_runs()]
        self._forget_unused(old)

    def failed(self, number: int, reason: str) -> Task:
        """It will not be answered."""
        with lasting(self._db):
            self._update(number, phase="failed", reason=reason)
        task = self._certainly(number)
        self._forget_unused([task.content])
        return task

    def delivered(self, number: int) -> None:
        """The server has the reply, or does not want it; it is kept for a while, in case that it asks again."""
        self._update(number, phase="delivered")
        rows = self._db.execute(
            "SELECT number, reply_content FROM message WHERE phase = 'delivered' AND reply_content != '' "
            "ORDER BY number DESC LIMIT -1 OFFSET ?",
            (KEPT_REPLIES,),
        ).fetchall()
        for each, _ in rows:
            self._update(each, reply_content="")
        self._forget_unused(name for _, name in rows)

    def expire(self) -> None:
        """Forget messages whose lifetime has long been over; to be called now and then."""
        rows = self._db.execute(
            "DELETE FROM message WHERE expires_unix_s < ? RETURNING content, reply_content", (self._clock() - LATE_S,)
        ).fetchall()
        self._forget_unused(name for row in rows for name in row if name)

    # ------------------------------------------------------------ rows and blobs

    def _known(self, key: bytes) -> Task | None:
        row = self._db.execute("SELECT number FROM message WHERE key = ?", (key,)).fetchone()
        return None if row is None else self.get(row[0])

    def _certainly(self, number: int) -> Task:
        task = self.get(number)
        if task is None:
            raise LearningError(f"message {number} is not known any more: its lifetime is over")
        return task

    def _update(self, number: int, **values: object) -> None:
        columns = ", ".join(f"{name} = ?" for name in values)
        self._db.execute(
            f"UPDATE message SET {columns} WHERE number = ?",  # noqa: S608 - names of ours
            (*values.values(), number),
        )

    def _drop_old_runs(self) -> list[tuple[str]]:
        return self._db.execute(
            "DELETE FROM context WHERE run IN (SELECT run FROM context ORDER BY used DESC LIMIT -1 OFFSET ?) "
            "RETURNING content",
            (KEPT_RUNS,),
        ).fetchall()

    def _used(self) -> set[str]:
        """Every blob that is, or will be, needed."""
        rows = self._db.execute(
            "SELECT content FROM message WHERE phase IN ('offered', 'fetched') "
            "UNION SELECT reply_content FROM message WHERE reply_content != '' UNION SELECT content FROM context"
        )
        return {name for (name,) in rows.fetchall()}

    def _forget_unused(self, names: Iterable[str]) -> None:
        for name in {*filter(None, names)} - self._used():
            self.blobs.forget(bytes.fromhex(name))

    def _sweep(self) -> None:
        """Delete what an agent or a training process that was killed left behind."""
        used = self._used()
        for path in self.blobs.folder.glob("*"):
            if path.stem not in used:
                path.unlink()

    def _read_through(self) -> None:
        """Have contents that a power cut damaged fetched again."""
        rows = self._db.execute("SELECT number, content FROM message WHERE phase IN ('offered', 'fetched')").fetchall()
        for number, content in rows:
            if not self.blobs.whole(bytes.fromhex(content)):
                self._update(number, phase="offered")


def _task(row: tuple[object, ...]) -> Task:
    number, offer, envelope, content, size, expires, phase, config, deaths, reply, reply_content, reason = row
    given = None if config is None else json.loads(str(config))
    return Task(
        *(number, int(str(offer)), envelope, content, size, expires, phase, given, deaths),  # type: ignore[arg-type]
        *(reply or b"", reply_content or "", reason),  # type: ignore[arg-type]
    )
