"""Files that survive a power cut: written whole, synced, and their names with them."""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

NEW = "new-"
"""How the names of files begin that are not whole yet."""
_SYNC_FILE_RANGE = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _SYNC_FILE_RANGE is not None:
    _SYNC_FILE_RANGE.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_SYNC_FILE_RANGE_WRITE = 2


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, whatever is cut off when."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=NEW)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_at(file: BinaryIO, offset: int, data: bytes) -> None:
    """Write all of it at a place."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file.fileno(), view, offset)
        offset, view = offset + written, view[written:]


def begin_to_sync(file: BinaryIO, offset: int, size: int) -> None:
    """Have the disk begin with what was just written, while more comes: at the end there is less to wait for."""
    if _SYNC_FILE_RANGE is not None:  # of Linux alone; it is no more than a hint
        _SYNC_FILE_RANGE(file.fileno(), offset, size, _SYNC_FILE_RANGE_WRITE)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
