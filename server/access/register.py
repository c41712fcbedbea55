"""The register: which devices there are, and which of their certificates are in force, in one SQLite file.

    table devices        name                  what it is called now
                         enrolled, seen        unix seconds: when it came first, and when it was heard of last
    table certificates   serial, device        its number, and whose it is
                         name                  what it says that the device is called: the name when it was signed
                         pem, fingerprint, issued, expires
                         used                  when a call first came with it
                         ended, why            when and why it stopped being in force: revoked, renewed, replaced
    table tokens         hash                  SHA-256 of the secret; the secret itself is nowhere
                         name, expires, used   for which device; when it was spent, and on which certificate

A certificate is in force from its being signed until it expires or is ended. A renewed one ends when its successor is
first used, so that a device whose answer was lost on the way can ask again with the old one.

Commands write while the server runs. It looks a caller up for every call, and is rung for (doorbell.py) when a
certificate was ended, so that calls that are open end too.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

from headwater.compression import keyfiles
from headwater.compression.database import LOCK_S, Kind, connect, explained, transaction
from headwater.compression.enrolment import check_name
from headwater.compression.errors import IdentityError
from headwater.server.access.authority import FOLDER

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from headwater.server.access.authority import Issued
    from headwater.server.access.caller import Caller

_REGISTER = Kind(
    name="register of devices",
    application=0x48574456,  # "HWDV"
    version=1,
    tables="""
        CREATE TABLE devices (
            number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, enrolled REAL NOT NULL, seen REAL
        );
        CREATE TABLE certificates (
            serial TEXT PRIMARY KEY, device INTEGER NOT NULL REFERENCES devices, name TEXT NOT NULL, pem BLOB NOT NULL,
            fingerprint TEXT NOT NULL, issued REAL NOT NULL, expires REAL NOT NULL, used REAL, ended REAL, why TEXT
        ) WITHOUT ROWID;
        CREATE INDEX certificates_device ON certificates (device);
        CREATE TABLE tokens (
            hash BLOB PRIMARY KEY, name TEXT, expires REAL NOT NULL, used REAL, serial TEXT
        ) WITHOUT ROWID;
        CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    """,
    way_out="every device has to enrol again, unless you restore a backup",
)


class Standing(Enum):
    """What a certificate is worth now; the value is what its holder is told."""

    IN_FORCE = "it is in force"
    UNKNOWN = "this server's register does not have it; enrol the device here"
    EXPIRED = "it has expired; enrol the device again"
    REVOKED = "it was revoked; ask the operator for a token, and enrol the device again"
    RENEWED = "the device has a newer one; if this is the device, its identity was restored from an old copy or stolen"
    REPLACED = "the device was enrolled again since, elsewhere; a name is one device's"


KEPT_S = 365 * 86400.0
"""So long an expired certificate is remembered, to say why it is refused."""
_ENDED = {"revoked": Standing.REVOKED, "renewed": Standing.RENEWED, "replaced": Standing.REPLACED}


@dataclass(frozen=True)
class Member:
    """What the register says of a caller."""

    standing: Standing
    name: str
    """What the device is called now; for one that is not known, what its certificate says."""


@dataclass(frozen=True)
class Entry:
    """A device, for people; all times are unix seconds."""

    name: str
    enrolled: float
    seen: float | None
    serial: str
    """Of its newest certificate that was used, or else of its newest; so is what follows."""
    fingerprint: str
    issued: float
    expires: float
    standing: Standing


class Register:
    """The register of one server's state; used by one thread at a time."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._heard: dict[str, float] = {}

    @classmethod
    def open(cls, state: Path, patience_s: float = LOCK_S) -> Self:
        """Open it, or begin one; raises :class:`StorageError` and :class:`IdentityError`.

        ``patience_s``: how long another process's lock is waited for.
        """
        path = state / FOLDER / "devices.db"
        keyfiles.make_folder(path.parent)
        db = connect(_REGISTER, path)
        db.execute(f"PRAGMA busy_timeout = {round(patience_s * 1e3)}")
        return cls(db, path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is done inside; raises :class:`StorageError`."""
        with explained(_REGISTER, self._path), transaction(self._db):
            yield self._db

    @property
    def version(self) -> int:
        """Another number whenever another process has written; raises :class:`StorageError`."""
        with explained(_REGISTER, self._path):
            found = self._db.execute("PRAGMA data_version").fetchone()
        return int(found[0])

    # ------------------------------------------------------------ callers

    def look_up(self, caller: Caller, now: float | None = None) -> Member:
        """What a caller's certificate is worth at this moment; raises :class:`StorageError`."""
        return self._look_up(caller, time.time() if now is None else now)[0]

    def admit(self, caller: Caller, now: float | None = None) -> Member:
        """The same for one who begins to use it: the certificates that this one renews end with that."""
        now = time.time() if now is None else now
        member, used = self._look_up(caller, now)
        if member.standing is Standing.IN_FORCE:
            self._heard[member.name] = now
            if not used:
                self._use(caller.serial, now)
        return member

    def flush(self, present: Iterable[str] = ()) -> None:
        """Write down when devices were heard of last; of those present, that is now. Raises :class:`StorageError`."""
        heard = self._heard | dict.fromkeys(present, time.time())
        if heard:
            with self.change() as db:
                db.executemany("UPDATE devices SET seen = ? WHERE name = ?", [(at, name) for name, at in heard.items()])
        self._heard.clear()

    def _look_up(self, caller: Caller, now: float) -> tuple[Member, bool]:
        """What it is worth, and whether a call came with it before."""
        with explained(_REGISTER, self._path):
            row = self._db.execute(
                "SELECT d.name, c.expires, c.why, c.used FROM certificates c JOIN devices d ON d.number = c.device "
                "WHERE c.serial = ? AND c.name = ?",
                (caller.serial, caller.device),
            ).fetchone()
        if row is None:
            return Member(Standing.UNKNOWN, caller.device), False
        name, expires, why, used = row
        return Member(_standing(expires, why, now), name), used is not None

    def _use(self, serial: str, now: float) -> None:
        with self.change() as db:
            db.execute("UPDATE certificates SET used = ? WHERE serial = ?", (now, serial))
            db.execute(
                "UPDATE devices SET seen = ? WHERE number = (SELECT device FROM certificates WHERE serial = ?)",
                (now, serial),
            )
            db.execute(
                "UPDATE certificates AS old SET ended = ?, why = 'renewed' FROM certificates new "
                "WHERE new.serial = ? AND old.device = new.device AND old.serial != new.serial "
                "AND old.issued <= new.issued AND old.ended IS NULL",
                (now, serial),
            )

    # ------------------------------------------------------------ devices

    def add(self, issued: Issued) -> None:
        """Take in a certificate of a device that is there, in place of one that it has not used; in :meth:`change`."""
        self._db.execute(
            "UPDATE certificates SET ended = ?, why = 'renewed' WHERE used IS NULL AND ended IS NULL "
            "AND device = (SELECT number FROM devices WHERE name = ?)",
            (issued.issued.timestamp(), issued.device),
        )
        long_ago = issued.issued.timestamp() - KEPT_S
        self._db.execute("DELETE FROM certificates WHERE why = 'renewed' AND expires < ?", (long_ago,))
        self._db.execute(
            "INSERT INTO certificates (serial, device, name, pem, fingerprint, issued, expires) "
            "SELECT ?, number, name, ?, ?, ?, ? FROM devices WHERE name = ?",
            (
                issued.serial,
                issued.pem,
                issued.fingerprint,
                issued.issued.timestamp(),
                issued.expires.timestamp(),
                issued.device,
            ),
        )

    def enter(self, name: str, now: float) -> None:
        """Have a device of this name, whose certificates so far end; inside :meth:`change`."""
        self._db.execute("INSERT OR IGNORE INTO devices (name, enrolled) VALUES (?, ?)", (name, now))
        self._end(name, "replaced", now)

    def has(self, name: str) -> bool:
        """Whether there is a device of this name, revoked or not."""
        return self._db.execute("SELECT 1 FROM devices WHERE name = ?", (name,)).fetchone() is not None

    def revoke(self, name: str, now: float | None = None) -> int:
        """End all certificates of a device; how many were in force. Raises :class:`IdentityError` if there is none."""
        now = time.time() if now is None else now
        with self.change() as db:
            self._check_there(name)
            ended = self._end(name, "revoked", now)
            db.execute("DELETE FROM tokens WHERE name = ? AND used IS NULL", (name,))
        return ended

    def rename(self, old: str, new: str) -> None:
        """Call a device something else, at once; raises :class:`IdentityError`."""
        check_name(new)
        with self.change() as db:
            self._check_there(old)
            if self.has(new):
                raise IdentityError(f"there is a device {new} already; choose another name")
            db.execute("UPDATE devices SET name = ? WHERE name = ?", (new, old))
            db.execute("UPDATE tokens SET name = ? WHERE name = ? AND used IS NULL", (new, old))

    def entries(self, now: float | None = None) -> list[Entry]:
        """Every device, by its name."""
        now = time.time() if now is None else now
        with explained(_REGISTER, self._path):
            rows = self._db.execute(
                "SELECT d.name, enrolled, seen, serial, fingerprint, issued, expires, why FROM devices d "
                "JOIN certificates ON serial = (SELECT serial FROM certificates WHERE device = d.number "
                "ORDER BY used IS NOT NULL DESC, issued DESC LIMIT 1) ORDER BY d.name"
            ).fetchall()
        return [_entry(row, now) for row in rows]

    def _end(self, name: str, why: str, now: float) -> int:
        """End what is in force, whether anybody has used it or not."""
        return self._db.execute(
            "UPDATE certificates SET ended = ?, why = ? WHERE ended IS NULL "
            "AND device = (SELECT number FROM devices WHERE name = ?)",
            (now, why, name),
        ).rowcount

    def _check_there(self, name: str) -> None:
        if not self.has(name):
            raise IdentityError(f"there is no device {name}; `headwater server devices ls` lists them")

    # ------------------------------------------------------------ facts about the server

    def note(self, key: str, value: str) -> None:
        """Leave a fact for other processes."""
        with self.change() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (key, value))

    def fact(self, key: str) -> str | None:
        """Read a fact that another process left."""
        with explained(_REGISTER, self._path):
            found = self._db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found[0])


def _entry(row: Sequence[Any], now: float) -> Entry:
    name, enrolled, seen, serial, fingerprint, issued, expires, why = row
    return Entry(name, enrolled, seen, serial, fingerprint, issued, expires, _standing(expires, why, now))


def _standing(expires: float, why: str | None, now: float) -> Standing:
    if why is not None:
        return _ENDED[why]
    return Standing.EXPIRED if now >= expires else Standing.IN_FORCE
