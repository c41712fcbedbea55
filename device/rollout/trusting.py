"""Whose releases a device believes, on its disk, and whether one's time is over.

    DIR/trusted     the lists of keys that came with releases (compression/trust.py), where any did

The time that a release is held against is the clock's, but never before what signed releases have shown of it: a
device without a battery for its clock starts in the past, and who sets a clock back brings no old release to life.
"""

from __future__ import annotations

import logging
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from headwater.compression.errors import RolloutError, SignatureError, StorageError
from headwater.compression.release import Release, heard
from headwater.compression.signature import verify
from headwater.compression.trust import Trust
from headwater.compression.writing import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from headwater.compression.bundle import Bundle

TRUSTED = "trusted"
NEW = "new-"
"""Begins the name of a file that is being written."""
_LAST_S = 253_402_300_799  # of the year 9999, beyond which Python counts none

_log = logging.getLogger(__name__)


class Trusting:
    """What is believed; used from one thread at a time."""

    def __init__(self, folder: Path, anchor: Ed25519PublicKey, clock: Callable[[], float] = time.time) -> None:
        """Read what was believed before.

        Args:
            folder: where it is kept; it is there.
            anchor: the key that is believed until its holder names others.
            clock: Unix seconds.
        """
        self._path = folder / TRUSTED
        self._clock = clock
        self.trust = self._read(Trust.anchored(anchor))

    def hear(self, statement: bytes) -> Release:
        """Read a release and what comes with it; lists of keys are believed even if the release is by none of them.

        Raises:
            SignatureError: nobody who is trusted has signed it.
            StorageError: whom to trust from now on cannot be written.
        """
        trust, signed = heard(statement, self.trust)
        if trust.chain != self.trust.chain:
            self._believe(trust)
        return Release.read(signed, *trust.newest.release)

    def check_time(self, release: Release, shown: int) -> None:
        """Refuse a release that nobody vouches for any more; raises :class:`RolloutError`.

        ``shown``: Unix seconds that an earlier release was signed at.
        """
        now = self.now(max(shown, release.issued))
        keys = self.trust.newest
        for end, what in (
            (release.expires, f"release {release.serial}"),
            (keys.expires, f"list {keys.number} of keys"),
        ):
            if end <= now:
                raise RolloutError(
                    f"{what} ended at {day(end)}, and it is {day(now)} here; its holder is to sign a new one, unless "
                    "this device's clock is wrong (`headwater doctor` tells)"
                )

    def check_bundle(self, bundle: Bundle) -> None:
        """Raise :class:`SignatureError` unless somebody who is believed has signed a bundle."""
        verify(bundle.manifest_bytes, bundle.signature, *self.trust.newest.release)

    def now(self, shown: int) -> float:
        """Unix seconds."""
        return max(self._clock(), shown)

    def _read(self, anchor: Trust) -> Trust:
        if not self._path.exists():
            return anchor
        try:
            return anchor.following(self._path.read_bytes())
        except SignatureError as error:
            _log.warning(
                "%s does not follow from the key that was given: that alone is believed: %s", self._path, error
            )
            return anchor

    def _believe(self, trust: Trust) -> None:
        try:
            write_whole(self._path, trust.chain)
        except OSError as error:  # else a restart would bring the old keys back
            raise StorageError(f"{self._path} cannot be written: {error.strerror}; is there room?") from error
        _log.warning("releases are believed by list %d of keys from now on", trust.newest.number)
        self.trust = trust


def write_whole(path: Path, data: bytes) -> None:
    """Replace a small file in one step, on the disk when this returns; raises :class:`OSError`."""
    new = path.with_name(f"{NEW}{path.name}")
    new.write_bytes(data)
    with new.open("rb") as file:
        os.fsync(file.fileno())
    new.rename(path)
    sync_folder(path.parent)


def day(unix_s: float) -> str:
    """A time for people."""
    return f"{datetime.fromtimestamp(min(unix_s, _LAST_S), UTC):%Y-%m-%d %H:%M} UTC"
