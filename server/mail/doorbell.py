"""How one process tells the others that something changed in the mailbox, without anybody asking again and again.

Each listener has a named pipe in the folder ``bells``; to ring is to write a byte into every pipe there. A ring says
nothing but "look": what there is to see is in the mailbox, where it stays, so a ring that comes twice, or to a process
that was just looking, does no harm. A listener looks now and then all the same. The pipe of a process that was killed
is removed by the next one that rings.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import uuid
from pathlib import Path
from typing import Self

from headwater.compression.errors import StorageError

FOLDER = "bells"
LOOK_S = 5.0
"""A listener looks as often as this although nobody rang."""


class Doorbell:
    """One listener's bell; :meth:`fileno` is for an event loop's reader, :meth:`wait` for a thread."""

    def __init__(self, state: Path) -> None:
        """Hang up a bell in a mailbox's folder; raises :class:`StorageError`."""
        folder = state / FOLDER
        name = uuid.uuid4().hex
        hidden, self.path = folder / f".{name}", folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.mkfifo(hidden, 0o600)
            # Also for writing: a pipe that somebody may write to never ends.
            self._pipe = os.open(hidden, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            hidden.rename(self.path)  # seen only now that it is heard
        except OSError as error:
            raise StorageError(
                f"{folder} takes no named pipe: {error.strerror}; put the state on a local disk"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take it down."""
        self.path.unlink(missing_ok=True)
        os.close(self._pipe)

    def fileno(self) -> int:
        """Readable while there are rings."""
        return self._pipe

    def heard(self) -> bool:
        """Whether it rang since it was asked last."""
        rang = False
        with contextlib.suppress(BlockingIOError):
            while os.read(self._pipe, 4096):
                rang = True
        return rang

    def wait(self, timeout_s: float) -> bool:
        """Wait for a ring, at most so long; whether there was one."""
        select.select([self._pipe], [], [], max(timeout_s, 0.0))
        return self.heard()


def ring(state: Path, but: Doorbell | None = None) -> None:
    """Ring every bell of a mailbox's folder, but one's own.

    What there is to see is in the mailbox by then, and who does not hear of it looks soon all the same: so nothing that
    goes wrong here, on a disk that has just become read-only for one, is an error of who rings.
    """
    with contextlib.suppress(OSError):
        for entry in os.scandir(state / FOLDER):
            if not entry.name.startswith(".") and (but is None or entry.name != but.path.name):
                _ring(Path(entry.path))


def _ring(path: Path) -> None:
    with contextlib.suppress(OSError):  # it is loud already, or was just taken down
        try:
            pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ENXIO:
                path.unlink(missing_ok=True)  # its listener was killed
            return
        try:
            os.write(pipe, b"!")
        finally:
            os.close(pipe)
