"""Which bundles there are, which was released when, and how it went: on disk, for every process that asks.

    STATE/rollout/rollout.db    bundles, releases, members, uses
    STATE/rollout/bundles/<id>  the bundles themselves, each whole or not there

A *release* says that a bundle is to be used. It begins with a share of the devices (*canary*), widens to all, or is
gone back from; then another release, signed together with it, says that the bundle before is to be used again. That one
was signed when the first was, so that the serving process, which may have to go back in the middle of the night, needs
no key. The newest release is the one in force.

    canary ──> everyone
       └────────┴──> left, and a release back is in force
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from headwater.compression import keyfiles
from headwater.compression.bundle import SIGNATURE, Bundle
from headwater.compression.database import Kind, connect, explained, transaction
from headwater.compression.errors import RolloutError, StorageError
from headwater.compression.release import Release
from headwater.server.rollout.canary import Figures, Rules

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from headwater.protos import edge_pb2 as pb

FOLDER = "rollout"
MOST_SESSIONS = 100_000
"""Runs of agents whose figures are kept."""
Stage = Literal["canary", "everyone", "left"]
Standing = Literal["chosen", "in use", "refused", "left"]
_KIND = Kind(
    name="rollout",
    application=0x4857524F,  # "HWRO"
    version=1,
    tables="""
        CREATE TABLE bundles (
            id BLOB PRIMARY KEY, name TEXT NOT NULL, created TEXT NOT NULL, parent TEXT, added_unix_ms INTEGER NOT NULL
        );
        CREATE TABLE releases (
            serial INTEGER PRIMARY KEY, name TEXT NOT NULL, bundle BLOB NOT NULL, previous BLOB, back INTEGER NOT NULL,
            statement BLOB NOT NULL, undo_serial INTEGER, undo BLOB, stage TEXT NOT NULL, share REAL NOT NULL,
            from_frames INTEGER NOT NULL DEFAULT 0, rules TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
            began_unix_ms INTEGER NOT NULL
        );
        CREATE TABLE members (
            serial INTEGER NOT NULL, device TEXT NOT NULL, standing TEXT NOT NULL, detail TEXT NOT NULL DEFAULT '',
            PRIMARY KEY (serial, device)
        );
        CREATE TABLE uses (
            device TEXT NOT NULL, session INTEGER NOT NULL, bundle BLOB NOT NULL, answered INTEGER NOT NULL,
            failed INTEGER NOT NULL, judged INTEGER NOT NULL, agreed INTEGER NOT NULL, confidence REAL NOT NULL,
            PRIMARY KEY (device, session, bundle)
        );
        CREATE TABLE seen (what TEXT PRIMARY KEY, number INTEGER NOT NULL)
    """,
    way_out="releases begin anew; devices keep what they have until the next one",
)


@dataclass(frozen=True)
class Version:
    """A bundle that was published, or was in use before the first one that was."""

    id: bytes
    name: str
    created: str
    parent: str | None
    added_unix_ms: int


@dataclass(frozen=True)
class Wish:
    """A release to be made, signed."""

    serial: int
    bundle: Bundle
    previous: bytes | None
    """The bundle in use before; None where nobody knows of one."""
    statement: bytes
    undo: bytes | None
    """Says that the bundle before is to be used again; its serial is the next one."""
    rules: Rules
    back: bool = False


@dataclass(frozen=True)
class Released:
    """A release as it stands."""

    serial: int
    name: str
    bundle: bytes
    previous: bytes | None
    back: bool
    statement: bytes
    undo_serial: int | None
    undo: bytes | None
    stage: Stage
    share: float
    """Of the devices."""
    from_frames: int
    """Frames that the bundle had answered when the share was set."""
    rules: Rules
    reason: str
    """Why it widened last, or was left."""
    began_unix_ms: int

    @property
    def expires(self) -> int:
        """Unix seconds after which devices that have not followed it do not any more."""
        return Release.unverified(self.statement).expires


class Versions:
    """The folder, opened. Any thread may call, any number of processes may have it open."""

    def __init__(self, state: Path) -> None:
        """Open it, or begin one; raises :class:`StorageError`."""
        self.folder = state / FOLDER
        self._path = self.folder / "rollout.db"
        self._lock = threading.Lock()
        try:
            (self.folder / "bundles").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be made: {error.strerror}; give another --state") from error
        self._db = connect(_KIND, self._path)
        self._db.execute("PRAGMA synchronous = FULL")

    @classmethod
    def existing(cls, state: Path) -> Self:
        """Open what is there; raises :class:`RolloutError` where nothing was ever published."""
        if not (state / FOLDER / "rollout.db").is_file():
            raise RolloutError(f"nothing was published in {state} yet; `headwater server publish` does")
        return cls(state)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ bundles

    def add(self, bundle: Bundle, *, anew: bool = False) -> None:
        """Store a bundle; ``anew``: its signature takes the place of one that is there."""
        path = self.path(bundle.id)
        if not path.is_dir():
            bundle.save_whole(path)
        elif anew and bundle.signature is not None and bundle.signature != self.signature(bundle.id):
            keyfiles.write(path / SIGNATURE, bundle.signature, keyfiles.PUBLIC_MODE)
        made = bundle.manifest
        with self._changing() as db:
            db.execute(
                "INSERT OR IGNORE INTO bundles VALUES (?, ?, ?, ?, ?)",
                (bundle.id, made.name, made.created, made.parent, _now_ms()),
            )

    def path(self, bundle_id: bytes) -> Path:
        """Where a bundle is."""
        return self.folder / "bundles" / bundle_id.hex()

    def load(self, bundle_id: bytes) -> Bundle:
        """A bundle, checked; raises :class:`BundleError`."""
        return Bundle.load(self.path(bundle_id))

    def signature(self, bundle_id: bytes) -> bytes:
        """Of a bundle; empty if it has none."""
        path = self.path(bundle_id) / SIGNATURE
        return path.read_bytes() if path.is_file() else b""

    def has(self, bundle_id: bytes) -> bool:
        """Whether a bundle was stored."""
        return self.path(bundle_id).is_dir()

    def all(self) -> list[Version]:
        """The bundles, the newest first."""
        rows = self._rows("SELECT id, name, created, parent, added_unix_ms FROM bundles ORDER BY added_unix_ms DESC")
        return [Version(*row) for row in rows]

    def find(self, start: str) -> Version:
        """The bundle whose id in hex starts so; raises :class:`RolloutError`."""
        found = [version for version in self.all() if version.id.hex().startswith(start.lower())]
        if len(found) != 1:
            have = ", ".join(version.id[:5].hex() for version in self.all()) or "none"
            raise RolloutError(f"{len(found)} bundles have an id that starts with {start!r}; there are {have}")
        return found[0]

    # ------------------------------------------------------------ releases

    def release(self, wish: Wish) -> None:
        """Begin a release; it is in force from now on. Raises :class:`RolloutError` if a later one is."""
        manifest, rules = wish.bundle.manifest, wish.rules
        stage, share = ("everyone", 1.0) if wish.back or rules.share >= 1 else ("canary", rules.share)
        with self._changing() as db:
            (last,) = db.execute("SELECT max(serial) FROM releases").fetchone()
            if last is not None and last >= wish.serial:
                raise RolloutError(f"release {last} was made meanwhile; try again")
            db.execute(
                "INSERT INTO releases (serial, name, bundle, previous, back, statement, undo_serial, undo, stage, "
                "share, rules, began_unix_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(wish.serial, manifest.name, wish.bundle.id, wish.previous, wish.back, wish.statement),
                    *(None if wish.undo is None else wish.serial + 1, wish.undo, stage, share),
                    *(json.dumps(asdict(rules)), _now_ms()),
                ),
            )

    def next_serial(self) -> int:
        """A serial above all that were given: of the time of day, so that a server that lost its state is believed."""
        (last,) = self._rows("SELECT max(max(serial), max(coalesce(undo_serial, 0))) FROM releases")[0]
        return max(_now_ms(), (last or 0) + 1)

    def releases(self, name: str | None = None) -> list[Released]:
        """All releases, or those of a name, the newest first."""
        rows = self._rows(
            "SELECT serial, name, bundle, previous, back, statement, undo_serial, undo, stage, share, from_frames, "
            "rules, reason, began_unix_ms FROM releases WHERE name = coalesce(?, name) ORDER BY serial DESC",
            (name,),
        )
        return [_released(row) for row in rows]

    def in_force(self, name: str) -> Released | None:
        """The newest release of a name."""
        return next(iter(self.releases(name)), None)

    def in_use(self, name: str) -> Bundle | None:
        """What devices use: the bundle released last, else the newest of this name that a server has served."""
        if (release := self.in_force(name)) is not None:
            return self.load(release.bundle)
        served = max((one for one in self.all() if one.name == name), key=lambda one: one.created, default=None)
        return None if served is None else self.load(served.id)

    def names(self) -> list[str]:
        """Of what was released."""
        return [name for (name,) in self._rows("SELECT DISTINCT name FROM releases ORDER BY name")]

    def widen(self, serial: int, share: float, frames: int, reason: str) -> None:
        """Let a release reach more devices."""
        stage = "everyone" if share >= 1 else "canary"
        with self._changing() as db:
            db.execute(
                "UPDATE releases SET stage = ?, share = ?, from_frames = ?, reason = ? "
                "WHERE serial = ? AND stage = 'canary'",
                (stage, min(share, 1.0), frames, reason, serial),
            )

    def explain(self, serial: int, reason: str) -> None:
        """Say why a release was made."""
        with self._changing() as db:
            db.execute("UPDATE releases SET reason = ? WHERE serial = ?", (reason, serial))

    def leave(self, serial: int, reason: str) -> Released:
        """Go back from a release to the bundle before; the release that does. Raises :class:`RolloutError`."""
        release = next((one for one in self.releases() if one.serial == serial), None)
        if release is None or release.stage == "left":
            raise RolloutError(f"there is no release {serial} to go back from")
        if release.undo is None or release.previous is None:
            raise RolloutError(f"release {serial} knows of no bundle before; release another one")
        if Release.unverified(release.undo).expires <= time.time():
            raise RolloutError(f"the way back from release {serial} ended; `headwater server refresh` signs it anew")
        with self._changing() as db:
            (last,) = db.execute("SELECT max(serial) FROM releases WHERE name = ?", (release.name,)).fetchone()
            if last != serial:
                raise RolloutError(f"release {last} came after {serial}; go back from that one")
            db.execute("UPDATE releases SET stage = 'left', reason = ? WHERE serial = ?", (reason, serial))
            db.execute(
                "INSERT INTO releases (serial, name, bundle, previous, back, statement, stage, share, rules, reason, "
                "began_unix_ms) SELECT undo_serial, name, previous, bundle, 1, undo, 'everyone', 1.0, rules, ?, ? "
                "FROM releases WHERE serial = ?",
                (reason, _now_ms(), serial),
            )
        return self.releases(release.name)[0]

    # ------------------------------------------------------------ devices

    def members(self, serial: int) -> dict[str, tuple[Standing, str]]:
        """The devices that a release has reached: how each stands, and why."""
        rows = self._rows("SELECT device, standing, detail FROM members WHERE serial = ?", (serial,))
        return {device: (standing, detail) for device, standing, detail in rows}

    def stand(self, serial: int, device: str, standing: Standing, detail: str = "") -> None:
        """Note how a device stands to a release."""
        with self._changing() as db:
            db.execute("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)", (serial, device, standing, detail))

    def take_report(self, device: str, session: int, uses: Sequence[pb.BundleUse]) -> None:
        """Note what a device reports; its figures count up in a session, so the last report says all."""
        rows = [
            (device, session, use.bundle_id, use.answered, use.failed, use.judged, use.agreed, use.confidence)
            for use in uses
            if len(use.bundle_id) == 32 and max(use.answered, use.failed, use.judged) < 1 << 62
        ]
        with self._changing() as db:
            db.executemany("INSERT OR REPLACE INTO uses VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            db.execute(
                "DELETE FROM uses WHERE rowid <= (SELECT max(rowid) FROM uses) - ?",
                (MOST_SESSIONS,),
            )

    def figures(self, bundle_id: bytes, devices: Sequence[str] | None = None) -> Figures:
        """How a bundle did at these devices, or at all."""
        rows = self._rows(
            "SELECT device, sum(answered), sum(failed), sum(judged), sum(agreed), sum(confidence) FROM uses "
            "WHERE bundle = ? GROUP BY device",
            (bundle_id,),
        )
        return Figures.total(row[1:] for row in rows if devices is None or row[0] in devices)

    def seen(self, what: str) -> int:
        """The number up to which something was looked through."""
        rows = self._rows("SELECT number FROM seen WHERE what = ?", (what,))
        return int(rows[0][0]) if rows else 0

    def saw(self, what: str, number: int) -> None:
        """Note it."""
        with self._changing() as db:
            db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?)", (what, number))

    # ------------------------------------------------------------ SQL

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, explained(_KIND, self._path), transaction(self._db):
            yield self._db

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock, explained(_KIND, self._path):
            return self._db.execute(query, values).fetchall()


def _released(row: tuple[Any, ...]) -> Released:
    serial, name, bundle, previous, back, *facts, rules, reason, began_unix_ms = row
    statement, undo_serial, undo, stage, share, from_frames = facts
    return Released(
        *(serial, name, bundle, previous, bool(back), statement, undo_serial, undo, stage, share, from_frames),
        Rules(**json.loads(rules)),
        reason,
        began_unix_ms,
    )


def _now_ms() -> int:
    return int(time.time() * 1e3)
