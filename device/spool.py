"""The spool: frames that the device keeps until a server has stored them, in one SQLite file.

    keep() ──> the file, in order ──oldest()──> the link ──> a server's archive ──delivered()──> deleted
                   │
                   └── more bytes than allowed, or too old: the oldest are dropped, and counted

    table kept    number INTEGER PRIMARY KEY   the order of keeping; no number is used twice
                  kept_s REAL                  when, by the spool's clock
                  bytes INTEGER                what the frame counts for
                  message BLOB                 headwater.v1.KeptFrame
    table state   one row: where the spool's clock stood, and what has been counted in the file's life

**On disk.** When :meth:`Spool.keep` returns, the frame survives a kill and a power cut: the journal is a write-ahead
log and the transaction is synchronous (FULL). A deletion is not: if a power cut takes it back, the frame is delivered
once more, and the server knows it by its id.

**Age** is not taken from the wall clock, which jumps when a device without a battery-backed clock hears of the time.
The spool's clock runs while the device is up (CLOCK_BOOTTIME, carried on in the file from one boot to the next) and
never goes back. While the device is off it stands still: no clock could be trusted to say for how long that was.

**One process** uses a spool: it is locked for as long as it is open.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from headwater.compression.database import Kind, connect, explained, transaction
from headwater.compression.errors import StorageError
from headwater.device.disk import refuses
from headwater.device.kept import KeptFrame, parse
from headwater.protos import edge_pb2 as pb

if TYPE_CHECKING:
    from headwater.device.settings import DeviceSettings

MOST_BYTES = 1 << 20
"""Of one frame; a server reads no messages of more than twice that."""
OVERHEAD_BYTES = 64
"""What a frame costs in the file beside its message, on average."""
TELL_S = 60.0
"""Between two lines of the log about dropped frames."""
_SPOOL = Kind(
    name="spool",
    application=0x48575350,  # "HWSP"
    version=1,
    tables="""
        CREATE TABLE kept (
            number INTEGER PRIMARY KEY AUTOINCREMENT, kept_s REAL NOT NULL, bytes INTEGER NOT NULL,
            message BLOB NOT NULL
        );
        CREATE TABLE state (
            boot TEXT NOT NULL, boot_s REAL NOT NULL, spool_s REAL NOT NULL, kept INTEGER NOT NULL,
            delivered INTEGER NOT NULL, dropped_full INTEGER NOT NULL, dropped_old INTEGER NOT NULL
        );
        INSERT INTO state VALUES ('', 0, 0, 0, 0, 0, 0);
    """,
    way_out="the agent begins a new one",
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SpoolStats:
    """What is in a spool, and what happened in its file's life."""

    frames: int = 0
    """Kept now."""
    bytes: int = 0
    """That they count for."""
    kept: int = 0
    delivered: int = 0
    """Stored by a server, and deleted here."""
    dropped_full: int = 0
    """Lost because there were too many bytes."""
    dropped_old: int = 0
    """Lost because they had waited for too long."""
    failed: int = 0
    """Lost, since the spool was opened, because the disk did not take them or their row could not be read."""


class Spool:
    """Kept frames, bounded by bytes and by age. Any thread may call; each call is one transaction."""

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        max_age_s: float,
        *,
        clock: Callable[[], float] | None = None,
        boot: str | None = None,
    ) -> None:
        """Open a spool, or begin one.

        Args:
            path: of the file.
            max_bytes: that the frames may count for together.
            max_age_s: how long a frame may wait.
            clock: seconds of this boot; CLOCK_BOOTTIME if not given.
            boot: names this boot; the kernel's id if not given.

        Raises:
            StorageError: the file is damaged, is no spool, is in use, or cannot be made.
        """
        self.path = path
        self.on_kept: Callable[[], object] = lambda: None
        """Called after each frame that was kept, in the thread that kept it."""
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._clock = clock or _boot_clock
        self._boot = boot if boot is not None else _boot_id()
        self._lock = threading.RLock()
        self._taken: dict[bytes, int] = {}
        self._undeleted: set[bytes] = set()
        self._complained = ""
        self._tell_s = -math.inf
        self._db = connect(_SPOOL, path, alone=True)
        try:
            with explained(_SPOOL, path):
                self._start_s, self._opened_s = self._carried_on(), self._clock()
                self._told = self._stats = self._counted()
                self.expire()
        except BaseException:
            self._db.close()
            raise

    @classmethod
    def open(cls, settings: DeviceSettings) -> Self | None:
        """The spool of the settings; None where nothing is to be kept, or the disk takes nothing now.

        Raises :class:`StorageError`.
        """
        if settings.spool is None:
            return None
        try:
            return cls(settings.spool, settings.spool_max_mib << 20, settings.spool_max_hours * 3600)
        except StorageError as error:
            if not refuses(settings.spool):
                raise
            _log.error("%s; no frames are kept until the agent is started again", error)
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what is kept stays in it."""
        with self._lock:
            self._db.close()

    @property
    def stats(self) -> SpoolStats:
        """What is in it, and what happened."""
        return self._stats

    # ------------------------------------------------------------ in

    def keep(self, frame: KeptFrame) -> None:
        """Put a frame on disk. The oldest are dropped if it does not fit.

        A frame that the disk does not take is lost: it is counted as failed, and the log says why.
        """
        message = frame.message().SerializeToString()
        try:
            with self._transaction(full=True) as after:
                self._insert(message, after)
        except sqlite3.Error as error:
            self._lost(1, f"the spool {self.path} did not take a frame: {error}")
            return
        self.on_kept()

    def _insert(self, message: bytes, after: _Changes) -> None:
        now_s, size = self._now_s(), len(message) + OVERHEAD_BYTES
        after.add(kept=1)
        if size > min(self._max_bytes, MOST_BYTES):
            after.add(dropped_full=1)
            return
        self._drop_old(now_s, after)
        self._db.execute("INSERT INTO kept (kept_s, bytes, message) VALUES (?, ?, ?)", (now_s, size, message))
        after.add(frames=1, bytes=size)
        self._drop_most(after)

    def expire(self) -> None:
        """Drop what is too old, and note how far the spool's clock has run; to be called now and then."""
        try:
            with self._transaction() as after:
                self._drop_old(self._now_s(), after)
        except sqlite3.Error as error:
            self._lost(0, f"the spool {self.path} cannot be written: {error}")

    def _drop_old(self, now_s: float, after: _Changes) -> None:
        """Numbers and ages go together, so the first that is young enough ends the search."""
        born_s = now_s - self._max_age_s
        old = takewhile(lambda row: row[2] < born_s, self._free())
        after.add(dropped_old=self._drop([(number, size) for number, size, _ in old], after))

    def _drop_most(self, after: _Changes) -> None:
        over = after.stats.bytes - self._max_bytes
        rows = []
        for number, size, _ in self._free() if over > 0 else ():
            rows.append((number, size))
            over -= size
            if over <= 0:
                break
        after.add(dropped_full=self._drop(rows, after))

    def _free(self) -> Iterator[tuple[int, int, float]]:
        """Number, bytes and age of those, the oldest first, that may be dropped.

        Not of those that the link has taken: they may be at the server already.
        """
        taken = set(self._taken.values())
        rows = self._db.execute("SELECT number, bytes, kept_s FROM kept ORDER BY number")
        return (row for row in rows if row[0] not in taken)

    def _drop(self, rows: Sequence[tuple[int, int]], after: _Changes) -> int:
        self._db.executemany("DELETE FROM kept WHERE number = ?", [(number,) for number, _ in rows])
        after.add(frames=-len(rows), bytes=-sum(size for _, size in rows))
        return len(rows)

    # ------------------------------------------------------------ out

    def oldest(self, count: int) -> list[pb.KeptFrame]:
        """Take up to so many frames that nobody has taken, the oldest first; they stay on disk.

        Each is to be reported :meth:`delivered` or given back by :meth:`release`.
        """
        with self._lock:
            try:
                return self._take(count)
            except sqlite3.Error as error:
                self._lost(0, f"the spool {self.path} cannot be read: {error}")
                return []

    def _take(self, count: int) -> list[pb.KeptFrame]:
        taken = set(self._taken.values())
        found: list[pb.KeptFrame] = []
        rows = self._db.execute("SELECT number, message FROM kept ORDER BY number LIMIT ?", (len(taken) + count,))
        for number, message in rows.fetchall():
            if number in taken or len(found) == count:
                continue
            if (frame := parse(message)) is None:  # SQLite does not notice a damaged value
                self._discard(number)
                continue
            self._taken[frame.id] = number
            found.append(frame)
        return found

    def _discard(self, number: int) -> None:
        with self._transaction() as after:
            rows = self._db.execute("SELECT number, bytes FROM kept WHERE number = ?", (number,)).fetchall()
            self._drop(rows, after)
        self._lost(1, f"the spool {self.path} is damaged: the frame {number} is none any more")

    def delivered(self, ids: Collection[bytes]) -> None:
        """Delete frames that a server has stored; ids that were not taken are left alone.

        Where the disk does not take that they are gone, they are left for the next call (see :attr:`undeleted`): they
        stay taken, so that they are not delivered again and again meanwhile.
        """
        self._undeleted |= set(ids)
        try:
            with self._transaction() as after:
                numbers = [number for number in map(self._taken.get, self._undeleted) if number is not None]
                after.add(delivered=self._erase(numbers, after))
        except sqlite3.Error as error:
            self._lost(0, f"the spool {self.path} does not delete what was delivered: {error}")
            return
        self.release(self._undeleted)
        self._undeleted = set()

    @property
    def undeleted(self) -> bool:
        """Whether frames are still here that were delivered, because the disk did not take that they are gone."""
        return bool(self._undeleted)

    def _erase(self, numbers: list[int], after: _Changes) -> int:
        gone = 0
        for number in numbers:
            for (size,) in self._db.execute("DELETE FROM kept WHERE number = ? RETURNING bytes", (number,)).fetchall():
                after.add(frames=-1, bytes=-size)
                gone += 1
        return gone

    def release(self, ids: Collection[bytes] | None = None) -> None:
        """Give back what was taken (all, if not said otherwise): it is to be delivered later."""
        with self._lock:
            for each in list(self._taken) if ids is None else ids:
                self._taken.pop(each, None)

    # ------------------------------------------------------------ book-keeping

    @contextmanager
    def _transaction(self, *, full: bool = False) -> Iterator[_Changes]:
        with self._lock:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            with transaction(self._db):
                after = _Changes(self._stats)
                yield after
                self._note(after.stats)
            self._report(after.stats)
            self._stats = after.stats

    def _note(self, stats: SpoolStats) -> None:
        self._db.execute(
            "UPDATE state SET boot = ?, boot_s = ?, spool_s = ?, kept = ?, delivered = ?, dropped_full = ?, "
            "dropped_old = ?",
            (
                *(self._boot, self._clock(), self._now_s()),
                *(stats.kept, stats.delivered, stats.dropped_full, stats.dropped_old),
            ),
        )

    def _report(self, stats: SpoolStats) -> None:
        """Log what was dropped, at once and then once in a while."""
        full, old = stats.dropped_full - self._told.dropped_full, stats.dropped_old - self._told.dropped_old
        if (full or old) and self._clock() >= self._tell_s:
            _log.warning("the spool %s dropped its oldest frames: %d for room, %d for age", self.path, full, old)
            self._told, self._tell_s = stats, self._clock() + TELL_S

    def _lost(self, frames: int, why: str) -> None:
        with self._lock:
            self._stats = replace(self._stats, failed=self._stats.failed + frames)
            if why != self._complained:  # once, not for each frame
                _log.error("%s", why)
                self._complained = why

    def _now_s(self) -> float:
        """By the spool's clock."""
        return self._start_s + self._clock() - self._opened_s

    def _carried_on(self) -> float:
        boot, boot_s, spool_s = self._db.execute("SELECT boot, boot_s, spool_s FROM state").fetchone()
        return float(spool_s + max(self._clock() - boot_s, 0.0) if boot == self._boot else spool_s)

    def _counted(self) -> SpoolStats:
        frames, size = self._db.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM kept").fetchone()
        state = self._db.execute("SELECT kept, delivered, dropped_full, dropped_old FROM state").fetchone()
        return SpoolStats(frames, size, *state)


class _Changes:
    """What the stats will be if the transaction succeeds."""

    def __init__(self, stats: SpoolStats) -> None:
        self.stats = stats

    def add(self, **amounts: int) -> None:
        self.stats = replace(self.stats, **{name: getattr(self.stats, name) + n for name, n in amounts.items()})


def _boot_clock() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
