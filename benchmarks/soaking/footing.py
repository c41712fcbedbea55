"""The clock and the disk that processes stand on, for a test or a soak to take away: no root, no waiting.

    with Footing(folder) as footing:
        process = Popen(command, env={**os.environ, **footing.env})
        footing.room = 100            # the disk is full after so many bytes more; None for room enough
        footing.read_only = True      # every change below the folder is refused
        footing.clock_s = 3600.0      # the time of day is an hour later; monotonic clocks do not jump
    footing.give_back()           # the process collects its garbage and gives free memory back; footing.gave_back says
                                  # when it has, footing.in_use and footing.mapped what it has then

It is an LD_PRELOAD library (footing.c, built with the system's compiler) that a process loads at its start and that
reads a page shared with this object. So both ends of gRPC, SQLite and TLS meet the fault where they would meet a real
one: in the call to the C library. Files outside the folder, pipes and sockets are left alone.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Self

from headwater.compression.errors import SettingsError

SOURCE = Path(__file__).with_name("footing.c")
_CLOCK, _ROOM, _READ_ONLY, _ASKED, _GIVEN_BACK, _LEAK, _IN_USE, _MAPPED, _SIZE = 0, 8, 16, 20, 24, 32, 40, 48, 56


@cache
def library() -> Path:
    """The library, built on first use; raises :class:`SettingsError` where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise SettingsError("full disks and jumping clocks need a C compiler; install one (on Debian: gcc)")
    text = SOURCE.read_bytes()
    built = Path(tempfile.gettempdir()) / f"headwater-footing-{os.getuid()}-{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not built.is_file():
        fresh = built.with_suffix(f".{os.getpid()}")
        command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(fresh), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        fresh.replace(built)
    return built


class Footing:
    """What processes stand on that were started with :attr:`env`."""

    def __init__(self, folder: Path) -> None:
        """``folder``: the disk; made if it is not there. Raises what :func:`library` does."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()
        self._library = library()
        descriptor, name = tempfile.mkstemp(prefix="headwater-footing-")
        os.ftruncate(descriptor, _SIZE)
        self._page = mmap.mmap(descriptor, _SIZE)
        os.close(descriptor)
        self._file = Path(name)
        self.room = None

    @property
    def env(self) -> dict[str, str]:
        """What to add to a process's environment; whatever it starts stands there too."""
        return {
            "LD_PRELOAD": str(self._library),
            "FOOTING_PAGE": str(self._file),
            "FOOTING_FOLDER": str(self.folder),
        }

    @property
    def clock_s(self) -> float:
        """How far the time of day is off."""
        return float(self._get("q", _CLOCK)) / 1e9

    @clock_s.setter
    def clock_s(self, seconds: float) -> None:
        self._set("q", _CLOCK, round(seconds * 1e9))

    @property
    def room(self) -> int | None:
        """Bytes that files may still grow by; None for any number."""
        room = self._get("q", _ROOM)
        return None if room < 0 else room

    @room.setter
    def room(self, room: int | None) -> None:
        self._set("q", _ROOM, -1 if room is None else room)

    @property
    def read_only(self) -> bool:
        """Whether nothing can be changed."""
        return bool(self._get("i", _READ_ONLY))

    @read_only.setter
    def read_only(self, read_only: bool) -> None:
        self._set("i", _READ_ONLY, int(read_only))

    def give_back(self, leak: int = 0) -> None:
        """Have the process collect its garbage and give its free memory back when it next looks at a clock.

        ``leak``: so many bytes it loses before that, for a test of whoever looks for leaks.
        """
        self._set("q", _LEAK, leak)
        self._set("i", _ASKED, self._get("i", _ASKED) + 1)

    @property
    def gave_back(self) -> bool:
        """Whether it has done so."""
        return self._get("i", _GIVEN_BACK) == self._get("i", _ASKED)

    @property
    def in_use(self) -> int:
        """Bytes that it had from the C library's heaps when it did, and had not given back to them."""
        return self._get("q", _IN_USE)

    @property
    def mapped(self) -> int:
        """And bytes in blocks so large that the C library maps each by itself."""
        return self._get("q", _MAPPED)

    def mend(self) -> None:
        """Room, a disk that can be written, and the right time."""
        self.room, self.read_only, self.clock_s = None, False, 0.0

    def close(self) -> None:
        """Give the page back; processes that map it keep what holds now."""
        self._page.close()
        self._file.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _get(self, kind: str, offset: int) -> int:
        return int(struct.unpack_from(kind, self._page, offset)[0])

    def _set(self, kind: str, offset: int, value: int) -> None:
        struct.pack_into(kind, self._page, offset, value)
