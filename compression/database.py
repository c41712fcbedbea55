"""How the device's spool and the server's archive open their SQLite files, and what SQLite's errors mean.

A file says in its header whose it is (application id) and in which format (user version), so that no other database is
taken for it. The journal is a write-ahead log: a process that is killed at any moment leaves whole transactions, and
the next one to open the file finds them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headwater.compression.errors import StorageError

LOCK_S = 5.0
"""How long another connection's lock is waited for: one who was killed may take a moment to end."""
CACHE_KIB = 64
"""Of pages that a connection keeps in memory. SQLite's own 2 MB fill over hours, which looks like a leak, and make
neither small rows nor megabytes any quicker: the system has the file in its memory as well."""
_LOG_PAGES = 256  # the log is written back to the file each MiB, so that it stays small beside it


@dataclass(frozen=True)
class Kind:
    """What a file is."""

    name: str
    """For people, such as ``spool``."""
    application: int
    """Four letters in the header."""
    version: int
    """Of the format; another one is refused."""
    tables: str
    """SQL that begins a new file."""
    way_out: str
    """What happens when a damaged one was moved away."""
    checked: bool = True
    """Read through it when it is opened, to notice damage at once; not for one that may have gigabytes."""


def connect(kind: Kind, path: Path, *, alone: bool = False, reading: bool = False) -> sqlite3.Connection:
    """Open a file, or begin one; for any thread, one at a time. Every statement is a transaction until BEGIN.

    Args:
        kind: what it has to be.
        path: of the file.
        alone: lock out every other connection for as long as this one is open.
        reading: change nothing; the file must be there.

    Raises:
        StorageError: it is damaged, is something else, is in use, or cannot be made.
    """
    if reading and not path.is_file():
        raise StorageError(f"there is no {kind.name} {path}")
    with explained(kind, path):
        address = f"{path.absolute().as_uri()}?mode={'ro' if reading else 'rwc'}"
        db = sqlite3.connect(address, uri=True, timeout=LOCK_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            if not reading:
                db.execute(f"PRAGMA locking_mode = {'EXCLUSIVE' if alone else 'NORMAL'}")
                db.execute("PRAGMA journal_mode = WAL")
                db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
                db.execute(f"PRAGMA journal_size_limit = {1 << 20}")
                _begin(kind, db)
            _check(kind, path, db)
        except BaseException:
            db.close()
            raise
        return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing of what is done inside."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def lasting(db: sqlite3.Connection) -> Iterator[None]:
    """Have what is committed inside survive a power cut, with all before it; what is committed outside survives a kill.

    Where a disk takes its time to say that something is safe, only what nobody could do again has to wait for it.
    """
    db.execute("PRAGMA synchronous = FULL")
    try:
        yield
    finally:
        db.execute("PRAGMA synchronous = NORMAL")


@contextmanager
def explained(kind: Kind, path: Path) -> Iterator[None]:
    """Turn SQLite's errors into a :class:`StorageError` that says what to do."""
    what = f"the {kind.name} {path}"
    try:
        yield
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise StorageError(f"{what} is used by another process; end it, or use another file") from error
        raise StorageError(f"{what} cannot be used: {error}; is its folder there, and writable?") from error
    except sqlite3.DatabaseError as error:
        raise StorageError(
            f"{what} is damaged, or is none ({error}); move it away, together with {path.name}-wal if that is there, "
            f"and start again: {kind.way_out}; `sqlite3 FILE .recover` may save what was in it"
        ) from error


def _begin(kind: Kind, db: sqlite3.Connection) -> None:
    """Give an empty file its tables."""
    with transaction(db):
        if not _header(db)[0] and not db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            for statement in filter(str.strip, kind.tables.split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {kind.application}")
            db.execute(f"PRAGMA user_version = {kind.version}")


def _check(kind: Kind, path: Path, db: sqlite3.Connection) -> None:
    application, version = _header(db)
    if application != kind.application:
        raise StorageError(f"{path} is an SQLite database, but no {kind.name}; give another path")
    if version != kind.version:
        raise StorageError(
            f"the {kind.name} {path} has format {version}; this headwater reads format {kind.version}: use the version "
            "of headwater that wrote it, or another file"
        )
    if kind.checked and (found := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(found)


def _header(db: sqlite3.Connection) -> tuple[int, int]:
    application, version = (db.execute(f"PRAGMA {key}").fetchone()[0] for key in ("application_id", "user_version"))
    return application, version
