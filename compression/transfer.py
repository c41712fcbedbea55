"""Large things on a line that frames share: cut, checked, paced, received across interruptions, and stored.

    BlobStore ──Outgoing──chunk, its SHA-256──> Incoming ──whole SHA-256──> BlobStore
                   ▲                               │
                   └─── Pace <── how long it took ─┘     one chunk is in flight at a time

A *blob* is bytes named by their SHA-256. One that is being received is two files:

    <hex>.part    the bytes so far
    <hex>.log     a record a chunk that was written: size (4 bytes, little-endian), SHA-256 (32 bytes)

A process that is killed, or a machine whose power is cut, leaves any prefix of either, or rubbish at their ends. What
is opened again is read against its log, and goes on after the last chunk that is whole: what was lost is sent again,
what was not is not, and nothing damaged is taken for received.

Neither gRPC nor a clock is in here: both ends use the same code, and tests bring their own times.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from headwater.compression.errors import NoRoomError, TransferError
from headwater.compression.writing import NEW, begin_to_sync, sync_folder, write_at, write_whole

LEAST_BYTES, MOST_BYTES = 4096, 1 << 20
"""Of a chunk. Fewer would be mostly header; more would hold up a fast line for a disk's sake."""
FIRST_BYTES = 1024
"""Of the chunk that finds out how long the way is."""
CHUNK_S = 0.2
"""How long a chunk may hold the line."""
SYNC_BYTES = 4 << 20
"""What a power cut may cost at most, beside what the file system has written by itself."""
SPARE_BYTES = 16 << 20
"""Of the disk's free space, what is left for others."""
HASH_BYTES = 32

_GROWTH = 4.0
_STALE_S = 3600.0
_RECORD = struct.Struct("<I32s")


class Pace:
    """The size of the next chunk, so that it holds the line for :data:`CHUNK_S` at most.

    A chunk takes the way there and back, whatever its size, and its own bytes at the line's rate. What the way takes is
    told (where a transfer opens with a greeting), or found with a first small chunk, and never more than the quickest
    chunk took. The rate is believed at once when it falls, and in steps when it rises: a single lucky chunk does not
    make a huge one.
    """

    def __init__(self, way_s: float | None = None, rate: float | None = None) -> None:
        """Begin with what is known: the time of the way there and back, and bytes a second of a transfer before."""
        self.way_s = way_s
        self.rate = LEAST_BYTES / CHUNK_S if rate is None else rate

    def chunk_bytes(self, longest_s: float = CHUNK_S) -> int:
        """The size of the next chunk; shorter than :data:`CHUNK_S` where a busy line spares less."""
        share = longest_s / CHUNK_S
        size = int(min(max(self.rate * longest_s, LEAST_BYTES * share), MOST_BYTES * share))
        return size if self.way_s is not None else min(size, FIRST_BYTES)

    def acknowledged(self, size: int, took_s: float) -> None:
        """Learn from a chunk: its bytes, and the time from writing it to its acknowledgement."""
        if self.way_s is None:
            self.way_s = took_s
            return
        self.way_s = min(self.way_s, took_s)
        moving_s = max(took_s - self.way_s, size / (self.rate * _GROWTH))
        self.rate = size / moving_s


class Incoming:
    """A blob that is being received; made by :meth:`open`, alone on its files until :meth:`finish` or :meth:`close`."""

    def __init__(self, path: Path, size: int, part: BinaryIO, log: BinaryIO, *, lasting: bool) -> None:
        self.path = path
        """Where the whole blob will be."""
        self.size = size
        self.have = 0
        """Bytes from the start that are there, each chunk checked."""
        self._part, self._log, self._lasting = part, log, lasting
        self._hash = hashlib.sha256()
        self._records = 0
        self._unsynced = 0

    @classmethod
    def open(cls, folder: Path, sha256: bytes, size: int, *, lasting: bool = True) -> Self:
        """Begin a blob, or go on with one; raises :class:`TransferError`.

        Args:
            folder: for the files; it is made.
            sha256: of the whole, 32 bytes.
            size: of the whole, in bytes; has the disk no room for what is missing, this raises.
            lasting: the whole survives a power cut. Without, such a cut may leave anything under its name, which is for
                what is checked before it is used and can be had again, since a disk takes its time to say that it is
                safe.
        """
        path = folder / blob_name(sha256)
        with _explained(path), contextlib.ExitStack() as opened:
            folder.mkdir(parents=True, exist_ok=True)
            part = opened.enter_context(_open_locked(path.with_suffix(".part")))
            log = opened.enter_context(_open_or_create(path.with_suffix(".log")))
            incoming = cls(path, size, part, log, lasting=lasting)
            incoming._resume()
            _check_room(folder, size - incoming.have)
            opened.pop_all()
        return incoming

    def take(self, offset: int, data: bytes, sha256: bytes) -> int:
        """Write the next chunk; the bytes that are there now. Raises :class:`TransferError`, and is unchanged then."""
        if offset != self.have or not data or offset + len(data) > self.size:
            raise TransferError(
                f"a chunk of {len(data)} bytes at {offset}; wanted one at {self.have} of 1 to {self.size - self.have}"
            )
        if hashlib.sha256(data).digest() != sha256:
            raise TransferError(f"the chunk at {offset} does not have its hash; it is to be sent again")
        with _explained(self.path):
            self._write(data, sha256)
        return self.have

    def finish(self, folder: Path | None = None) -> Path:
        """Check the whole and give it its name, in its own folder or another one of the same disk.

        Args:
            folder: where it is to stay; the one where it came if not given.

        Raises:
            TransferError: not all has come, or it is not what was announced; of that nothing is kept.
        """
        if self.have != self.size:
            raise TransferError(f"{self.path.name}: {self.have} of {self.size} bytes have come")
        if self._hash.hexdigest() != self.path.name:
            self.discard()
            raise TransferError(
                f"what came is no {self.path.name}, but {self._hash.hexdigest()}; it was thrown away, send it again"
            )
        with _explained(self.path):
            if self._lasting:
                os.fsync(self._part.fileno())
            whole = (folder or self.path.parent) / self.path.name
            self._name("part").rename(whole)
            self._name("log").unlink()
            if self._lasting:
                sync_folder(whole.parent)
        self.close()
        return whole

    def discard(self) -> None:
        """Keep nothing of it."""
        for suffix in ("part", "log"):
            self._name(suffix).unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Leave it as it is, for another time; more than once is as good as once."""
        self._log.close()
        self._part.close()

    def _name(self, suffix: str) -> Path:
        return self.path.with_suffix(f".{suffix}")

    def _write(self, data: bytes, sha256: bytes) -> None:
        # Each at its place: after a write that failed half-way the next one begins where this one did.
        write_at(self._part, self.have, data)
        if self._lasting:
            begin_to_sync(self._part, self.have, len(data))
        write_at(self._log, self._records * _RECORD.size, _RECORD.pack(len(data), sha256))
        self._hash.update(data)
        self._records += 1
        self.have += len(data)
        self._unsynced += len(data)
        if self._unsynced >= SYNC_BYTES:
            os.fdatasync(self._part.fileno())
            os.fdatasync(self._log.fileno())
            self._unsynced = 0

    def _resume(self) -> None:
        """Read what is there against its log, and cut off what is not whole."""
        while len(record := self._log.read(_RECORD.size)) == _RECORD.size:
            size, sha256 = _RECORD.unpack(record)
            if not 0 < size <= min(MOST_BYTES, self.size - self.have):
                break
            data = self._part.read(size)
            if hashlib.sha256(data).digest() != sha256:
                break
            self._hash.update(data)
            self.have += size
            self._records += 1
        self._part.truncate(self.have)
        self._log.truncate(self._records * _RECORD.size)


class Outgoing:
    """A blob that is being sent."""

    def __init__(self, path: Path) -> None:
        """Open a file; raises :class:`TransferError`."""
        with _explained(path):
            self._file = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def chunk(self, offset: int, size: int) -> tuple[bytes, bytes]:
        """At most so many bytes from there on, and their SHA-256; raises :class:`TransferError` beyond the end."""
        if not 0 <= offset < self.size:
            raise TransferError(f"byte {offset} of {self.size} was asked for; it begins at 0")
        with _explained(Path(str(self._file.name))):
            data = os.pread(self._file.fileno(), size, offset)
        return data, hashlib.sha256(data).digest()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class BlobStore:
    """A folder of blobs. Any process may use it: a blob is there whole or not at all, and never changes.

    What the owner does not :meth:`forget` stays. Beside the blobs there may be what is still coming (an
    :class:`Incoming` in the same folder); it counts.
    """

    folder: Path
    limit_bytes: int
    """Of all together; what would go beyond is refused."""

    def put(self, data: bytes) -> bytes:
        """Store bytes; their SHA-256. Raises :class:`TransferError` if there is no room."""
        sha256 = hashlib.sha256(data).digest()
        if not self.has(sha256):
            self.require_room(len(data))
            with _explained(self.path(sha256)):
                write_whole(self.path(sha256), data)
        return sha256

    def require_room(self, size: int) -> None:
        """Raise :class:`TransferError` if so many bytes more are beyond the limit or the disk."""
        with _explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            used = _used_bytes(self.folder)
            if used + size > self.limit_bytes:
                raise NoRoomError(
                    f"{self.folder} holds {used} bytes; {size} more would go beyond its {self.limit_bytes}"
                )
            _check_room(self.folder, size)

    def path(self, sha256: bytes) -> Path:
        """Where the blob of this hash is, or would be."""
        return self.folder / blob_name(sha256)

    def has(self, sha256: bytes) -> bool:
        """Whether it is there."""
        return self.path(sha256).is_file()

    def whole(self, sha256: bytes) -> bool:
        """Whether it is there and undamaged; a damaged one is deleted."""
        try:
            self.read(sha256)
        except TransferError:
            self.path(sha256).unlink(missing_ok=True)
            return False
        return True

    def size(self, sha256: bytes) -> int:
        """Its bytes; raises :class:`TransferError` if it is not there."""
        path = self.path(sha256)
        with _explained(path):
            return path.stat().st_size

    def older_than(self, age_s: float) -> list[bytes]:
        """The blobs that came that long ago."""
        before = time.time() - age_s
        with _explained(self.folder):
            files = [entry for entry in os.scandir(self.folder) if len(entry.name) == 2 * HASH_BYTES]
            return [bytes.fromhex(entry.name) for entry in files if entry.stat().st_mtime <= before]

    def open(self, sha256: bytes) -> Outgoing:
        """Send it; raises :class:`TransferError` if it is not there."""
        return Outgoing(self.path(sha256))

    def read(self, sha256: bytes) -> bytes:
        """All of it; raises :class:`TransferError` if it is not there or was damaged on the disk."""
        path = self.path(sha256)
        with _explained(path):
            data = path.read_bytes()
        if hashlib.sha256(data).digest() != sha256:
            raise TransferError(f"{path} was damaged on the disk; delete it, and have it sent again")
        return data

    def forget(self, sha256: bytes) -> None:
        """Delete it and what has come of it, if anything is there; raises :class:`TransferError`."""
        path = self.path(sha256)
        with _explained(path):
            for each in (path, path.with_suffix(".part"), path.with_suffix(".log")):
                each.unlink(missing_ok=True)


def blob_name(sha256: bytes) -> str:
    """The file name of a blob; raises :class:`TransferError` for what is no SHA-256."""
    if len(sha256) != HASH_BYTES:
        raise TransferError(f"a SHA-256 has {HASH_BYTES} bytes; this has {len(sha256)}")
    return sha256.hex()


def _used_bytes(folder: Path) -> int:
    """Of all files; what a process that was killed left half written is deleted."""
    used = 0
    for entry in os.scandir(folder):
        with contextlib.suppress(FileNotFoundError):  # somebody else deleted it meanwhile
            about = entry.stat()
            if entry.name.startswith(NEW) and time.time() - about.st_mtime > _STALE_S:
                Path(entry.path).unlink()
            else:
                used += about.st_size
    return used


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size + SPARE_BYTES > free:
        raise NoRoomError(f"the disk of {folder} has {free} bytes free; {size} and {SPARE_BYTES} to spare are wanted")


def _open_locked(path: Path) -> BinaryIO:
    file = _open_or_create(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise TransferError(f"{path.stem} is being received already; end that first") from None
    return file


def _open_or_create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b", buffering=0)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the system's errors into a :class:`TransferError` that says what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise TransferError(f"{path} is not there; have it sent again") from error
    except OSError as error:
        raise TransferError(
            f"{path} cannot be used: {error.strerror}; is there room, and may it be written?"
        ) from error
