"""Files of keys: made with the right modes from the first byte on, and checked each time they are read.

A private key is for its owner alone (0600). A public key, a certificate or a list of them may be read by all, but
changed by nobody else: whoever can write the file that says whom to trust is trusted. A file belongs to who reads it or
to root; root reads everybody's. The mode is read from the descriptor that the bytes come from.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING
from uuid import uuid4

from headwater.compression.errors import IdentityError
from headwater.compression.writing import sync_folder

if TYPE_CHECKING:
    from pathlib import Path

FOLDER_MODE, PRIVATE_MODE, PUBLIC_MODE = 0o700, 0o600, 0o644
MAX_BYTES = 1 << 20
"""No file of keys is longer."""
_OTHERS, _OTHERS_WRITE = 0o077, 0o022


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner can look into, if it is not there; raises :class:`IdentityError`."""
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise IdentityError(f"the folder {folder} cannot be made: {error.strerror}") from error


def write(path: Path, data: bytes, mode: int) -> None:
    """Write or replace a file in one step, on the disk when this returns; raises :class:`IdentityError`."""
    half = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        _create(half, data, mode)
        half.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise IdentityError(f"{path} cannot be written: {error.strerror}") from error


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there yet, in a folder that is made; raises :class:`IdentityError`, also if it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(path, data, mode)
    except FileExistsError as error:
        raise IdentityError(f"{path} exists; a key is never replaced: choose another name or move it away") from error
    except OSError as error:
        raise IdentityError(f"{path} cannot be written: {error.strerror}") from error


def read_public(path: Path) -> bytes:
    """Read a public key, certificate or list; raises :class:`IdentityError` if anybody else may write to it."""
    return _read(path, _OTHERS_WRITE)


def read_private(path: Path) -> bytes:
    """Read a file that only its owner may read; raises :class:`IdentityError` if others may too."""
    return _read(path, _OTHERS)


def _create(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask took away
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _read(path: Path, forbidden: int) -> bytes:
    try:
        with path.open("rb") as file:
            _check(path, os.fstat(file.fileno()), forbidden)
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise IdentityError(f"{path} has more than {MAX_BYTES} bytes; it is no file of keys")
    return data


def _check(path: Path, about: os.stat_result, forbidden: int) -> None:
    mode = stat.S_IMODE(about.st_mode)
    if mode & forbidden:
        remedy = "600" if forbidden == _OTHERS else "go-w"
        raise IdentityError(f"{path} is open to other users (mode {mode:o}); run `chmod {remedy} {path}` first")
    user = os.geteuid()
    if about.st_uid not in {user, 0} and user != 0:
        raise IdentityError(
            f"{path} belongs to user {about.st_uid}, who can change it, not to {user} or root; "
            f"run `chown {user} {path}` as root, or name another file"
        )
