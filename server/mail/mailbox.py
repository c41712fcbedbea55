"""What goes between the devices and who speaks to them through the server: on disk, so that anybody may be killed.

    headwater server federate ──offer──┐                         ┌──Offer──> device
    headwater server publish  ──offer──┤   offers    blobs/      │  serving  │
                                       ├──> mailbox.db  ──ring──>│  process  │<──OfferReply, BundleNotice, reply
    pull, notices  <──────────ring─────┘                         └───────────┘

An *offer* is one thing for one device: a message of a federated round, or a bundle. Its content is a blob
(compression/transfer.py), so that what goes to a hundred devices is there once. It has a number for life, and a key
that says what it is: who offers the same key again after a kill finds the offer as it stands, with its reply.

    offered ──> accepted ──> fetched ──> replied          a message: the reply's content is a blob too
       │            └───────────┴──────> (notices)        a bundle: what became of it is told by notices
       ├──> refused      the device will not have it
       └──> withdrawn    nobody wants it any more, or its time has passed

    folder    mailbox.db     offers, devices, notices
              blobs/         contents and replies, named by their SHA-256
              incoming/      what devices are sending, a folder each
              bells/         see doorbell.py
              serving        locked by the serving process

Every change is one transaction, and rings the bells. Offers, replies and notices survive a power cut; how far an offer
has got, and who is connected, need not: devices are told of what is open again, and say again how far they are.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from headwater.compression.database import Kind, connect, explained, lasting, transaction
from headwater.compression.errors import NoRoomError, StorageError
from headwater.compression.transfer import BlobStore
from headwater.server.mail.doorbell import ring
from headwater.server.mail.records import Device, Notice, Offered, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.server.mail.doorbell import Doorbell
    from headwater.server.mail.records import State, Subject

DEFAULT_LIMIT_BYTES = 16 << 30
SWEEP_S = 3600.0
"""What nobody refers to is deleted after so long: who has put a blob there is about to refer to it."""
_DAY_MS = 24 * 3600 * 1000
_IDS_AT_A_TIME = 500  # SQLite takes a bounded number of parameters
_COLUMNS = (
    "number, key, node, subject, sha256, bytes, bundle_id, run, group_id, envelope, expires_unix_ms, state, detail, "
    "reply_envelope, reply_sha256"
)
_MAILBOX = Kind(
    name="mailbox",
    application=0x48574D42,  # "HWMB"
    version=1,
    tables="""
        CREATE TABLE offers (
            number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, node INTEGER NOT NULL,
            subject TEXT NOT NULL, sha256 BLOB NOT NULL, bytes INTEGER NOT NULL, bundle_id BLOB NOT NULL,
            run INTEGER NOT NULL, group_id TEXT NOT NULL, envelope BLOB NOT NULL, expires_unix_ms INTEGER NOT NULL,
            state TEXT NOT NULL DEFAULT 'offered', detail TEXT NOT NULL DEFAULT '',
            reply_envelope BLOB NOT NULL DEFAULT x'', reply_sha256 BLOB NOT NULL DEFAULT x'',
            taken INTEGER NOT NULL DEFAULT 0, is_open INTEGER AS (state IN ('offered', 'accepted', 'fetched'))
        );
        CREATE INDEX offers_open ON offers (is_open, node, number);
        CREATE INDEX offers_new ON offers (is_open, number);
        CREATE INDEX offers_content ON offers (sha256);
        CREATE INDEX offers_reply ON offers (reply_sha256);
        CREATE INDEX offers_run ON offers (run, group_id);
        CREATE TABLE devices (
            node INTEGER PRIMARY KEY, name TEXT NOT NULL, connected INTEGER NOT NULL, capabilities TEXT NOT NULL,
            bundle_id BLOB NOT NULL, agent_version TEXT NOT NULL, seen_unix_ms INTEGER NOT NULL
        );
        CREATE TABLE notices (
            number INTEGER PRIMARY KEY AUTOINCREMENT, node INTEGER NOT NULL, bundle_id BLOB NOT NULL,
            state INTEGER NOT NULL, detail TEXT NOT NULL, unix_ms INTEGER NOT NULL
        );
    """,
    way_out="rounds begin anew, and bundles are offered again",
    checked=False,
)


class Mailbox:
    """The folder, opened. Any thread may call, any number of processes may have it open."""

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        """Open a mailbox, or begin one, whose blobs may take so many bytes; raises :class:`StorageError`."""
        self.folder = folder
        self._path = folder / "mailbox.db"
        self.own_bell: Doorbell | None = None
        """Not rung by what this process changes."""
        self._lock = threading.Lock()
        try:
            (folder / "blobs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"the folder {folder} cannot be made: {error.strerror}; give another --state") from error
        self.blobs = BlobStore(folder / "blobs", limit_bytes)
        self._db = connect(_MAILBOX, self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    # ------------------------------------------------------------ for who offers

    def put(self, data: bytes) -> bytes:
        """Store a content, at the cost of the oldest offers that are done with; its SHA-256.

        Raises:
            NoRoomError: nothing is left to delete, and there is still no room.
        """
        self.make_room(len(data))
        return self.blobs.put(data)

    def offer(self, wanted: Iterable[Wanted]) -> list[Offered]:
        """Offer things whose contents are in the store; those that were offered before, as they stand now."""
        wanted = list(wanted)
        now_ms = _now_ms()
        rows = [
            (
                *(one.key, one.device, one.subject, one.sha256, self.blobs.size(one.sha256), one.bundle_id, one.run),
                *(one.group, one.envelope, now_ms + int(one.valid_for_s * 1e3)),
            )
            for one in wanted
        ]
        with self._changing() as db:
            db.executemany(
                "INSERT INTO offers (key, node, subject, sha256, bytes, bundle_id, run, group_id, envelope, "
                "expires_unix_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO NOTHING",
                rows,
            )
        return self.find([one.key for one in wanted])

    def find(self, keys: Sequence[str], *, settled: bool = False) -> list[Offered]:
        """The offers of these keys that there are (or that are settled), in the order of the keys.

        Those whose time has passed are withdrawn by that.
        """
        self.expire()
        among = "is_open = 0 AND " if settled else ""
        found: dict[str, Offered] = {}
        for start in range(0, len(keys), _IDS_AT_A_TIME):
            some = keys[start : start + _IDS_AT_A_TIME]
            for one in self._offers(f"{among}key IN ({', '.join('?' * len(some))})", some):
                found[one.key] = one
        return [found[key] for key in keys if key in found]

    def taken(self, offers: Iterable[Offered]) -> None:
        """What came of them has been read: they may go when there is no room."""
        with self._changing(quietly=True, lastingly=False) as db:
            db.executemany("UPDATE offers SET taken = 1 WHERE number = ?", [(one.number,) for one in offers])

    def withdraw(self, keys: Iterable[str], why: str) -> None:
        """Want things no more: devices that have not answered yet need not."""
        with self._changing() as db:
            db.executemany(
                "UPDATE offers SET state = 'withdrawn', detail = ? WHERE is_open = 1 AND key = ?",
                [(why, key) for key in keys],
            )

    def forget(self, run: int, group: str | None = None) -> None:
        """Delete the messages of a run, or of one of its rounds, with their replies: all has been taken from them."""
        among = "subject = 'message' AND run = ?" + ("" if group is None else " AND group_id = ?")
        self._delete(self._offers(among, (run,) if group is None else (run, group)))

    def notices(self, after: int = 0) -> list[Notice]:
        """What devices said of bundles, from the notice of that number on."""
        rows = self._rows(
            "SELECT number, node, bundle_id, state, detail, unix_ms FROM notices WHERE number > ?", (after,)
        )
        return [Notice(*row) for row in rows]

    def devices(self) -> list[Device]:
        """All that were ever connected, by name."""
        rows = self._rows(
            "SELECT node, name, connected, capabilities, bundle_id, agent_version, seen_unix_ms FROM devices "
            "ORDER BY name"
        )
        return [
            Device(node, name, bool(connected), tuple(json.loads(capabilities)), *rest)
            for node, name, connected, capabilities, *rest in rows
        ]

    # ------------------------------------------------------------ for the serving process

    def open_offers(self, node: int, subject: Subject, limit: int) -> list[Offered]:
        """The first offers to a device that something may come of."""
        return self._offers("is_open = 1 AND node = ? AND subject = ? ORDER BY number LIMIT ?", (node, subject, limit))

    def nodes_with_offers(self, after: int) -> tuple[int, set[int]]:
        """The highest number of an offer there is, and the devices that have open ones beyond a number."""
        rows = self._rows("SELECT number, node FROM offers WHERE is_open = 1 AND number > ?", (after,))
        return max((number for number, _ in rows), default=after), {node for _, node in rows}

    def offered(self, number: int) -> Offered | None:
        """The offer of a number."""
        return next(iter(self._offers("number = ?", (number,))), None)

    def accepted(self, number: int, node: int) -> None:
        """A device will fetch it."""
        self._note("accepted", "state = 'offered'", number, node)

    def fetched(self, number: int, node: int) -> None:
        """A device has its content."""
        self._note("fetched", "state IN ('offered', 'accepted')", number, node)

    def refused(self, number: int, node: int, why: str) -> None:
        """A device will not have it."""
        with self._changing() as db:
            db.execute(
                "UPDATE offers SET state = 'refused', detail = ? WHERE number = ? AND node = ? AND is_open = 1",
                (why, number, node),
            )

    def replied(self, number: int, node: int, envelope: bytes, sha256: bytes) -> bool:
        """Commit a device's reply, whose content is in the store; False if the offer was settled before."""
        with self._changing() as db:
            changed = db.execute(
                "UPDATE offers SET state = 'replied', reply_envelope = ?, reply_sha256 = ? "
                "WHERE number = ? AND node = ? AND subject = 'message' AND is_open = 1",
                (envelope, sha256, number, node),
            ).rowcount
        return changed > 0

    def expire(self) -> int:
        """Withdraw what nobody answered in its time; how many."""
        late = self._rows("SELECT number FROM offers WHERE is_open = 1 AND expires_unix_ms <= ?", (_now_ms(),))
        if late:
            with self._changing() as db:
                db.executemany(
                    "UPDATE offers SET state = 'withdrawn', detail = ? WHERE is_open = 1 AND number = ?",
                    [("no answer came in its time", *row) for row in late],
                )
        return len(late)

    def connected(self, device: Device) -> None:
        """A device came, or went."""
        facts = (device.node, device.name, device.connected, json.dumps(device.capabilities), device.bundle_id)
        with self._changing(lastingly=False) as db:
            db.execute(
                "INSERT OR REPLACE INTO devices (node, name, connected, capabilities, bundle_id, agent_version, "
                "seen_unix_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*facts, device.agent_version, _now_ms()),
            )

    def nobody_is_connected(self) -> None:
        """A serving process begins: what the one before knew of connections is over."""
        with self._changing() as db:
            db.execute("UPDATE devices SET connected = 0")

    def notice(self, node: int, bundle_id: bytes, state: int, detail: str) -> None:
        """A device said what became of a bundle; once for each thing that it says in a row."""
        with self._changing() as db:
            last = db.execute(
                "SELECT bundle_id, state, detail FROM notices WHERE node = ? ORDER BY number DESC LIMIT 1", (node,)
            ).fetchone()
            if last != (bundle_id, state, detail):
                db.execute(
                    "INSERT INTO notices (node, bundle_id, state, detail, unix_ms) VALUES (?, ?, ?, ?, ?)",
                    (node, bundle_id, state, detail, _now_ms()),
                )

    # ------------------------------------------------------------ room

    def make_room(self, size: int) -> None:
        """Delete the oldest offers that are done with until there is room; raises :class:`NoRoomError` if there is not.

        Replies that nobody has read stay.
        """
        while True:
            try:
                self.blobs.require_room(size)
            except NoRoomError:
                settled = self._offers("is_open = 0 AND (taken OR state != 'replied') ORDER BY number LIMIT 64", ())
                if not settled:
                    raise
                self._delete(settled)
            else:
                return

    def sweep(self) -> None:
        """Delete what was settled a day ago, and blobs that nobody refers to."""
        self.expire()
        self._delete(self._offers("is_open = 0 AND expires_unix_ms <= ?", (_now_ms() - _DAY_MS,)))
        known = {sha256 for row in self._rows("SELECT sha256, reply_sha256 FROM offers") for sha256 in row}
        for sha256 in self.blobs.older_than(SWEEP_S):
            if sha256 not in known:
                self.blobs.forget(sha256)

    def _delete(self, offers: Sequence[Offered]) -> None:
        with self._changing() as db:
            db.executemany("DELETE FROM offers WHERE number = ?", [(one.number,) for one in offers])
        for sha256 in {sha256 for one in offers for sha256 in (one.sha256, one.reply_sha256) if sha256}:
            if not self._rows("SELECT 1 FROM offers WHERE sha256 = ? OR reply_sha256 = ? LIMIT 1", (sha256, sha256)):
                self.blobs.forget(sha256)

    # ------------------------------------------------------------ SQL

    def _note(self, state: State, before: str, number: int, node: int) -> None:
        """How far an open offer is, for people: nobody waits for that."""
        with self._changing(quietly=True, lastingly=False) as db:
            db.execute(
                f"UPDATE offers SET state = ? WHERE number = ? AND node = ? AND {before}",  # noqa: S608 - own clauses
                (state, number, node),
            )

    def _offers(self, where: str, values: Sequence[Any]) -> list[Offered]:
        rows = self._rows(f"SELECT {_COLUMNS} FROM offers WHERE {where}", values)  # noqa: S608 - own clauses
        return [Offered(*row) for row in rows]

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, explained(_MAILBOX, self._path):
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _changing(self, *, quietly: bool = False, lastingly: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction; the bells ring when it is done."""
        kept = lasting(self._db) if lastingly else nullcontext()
        with self._lock, explained(_MAILBOX, self._path), kept, transaction(self._db):
            yield self._db
        if not quietly:
            ring(self.folder, but=self.own_bell)


def _now_ms() -> int:
    return int(time.time() * 1e3)
