"""The bundles on a device: which one is in use, which one it goes back to, and what it takes for a new one to be used.

    DIR/state.json     which is current, which was before, the highest serial that was followed, what failed
    DIR/trusted        whose releases are believed (trusting.py)
    DIR/<hex id>/      a bundle
    DIR/new-<hex id>/  one that is being written; a power cut leaves it, the next start deletes it

A bundle's folder gets its name when all of it is on the disk, and the state names a bundle when its folder has that:
each step is a rename, which is there or is not. So a cut at any byte leaves the old state or the new one, never
something between, and never a device without a bundle: the one that it was given (``--bundle``) always stays.

A new bundle is on *trial* until frames coded by it were answered. A device that is started on trial too often, or whose
frames the server will not have, goes back by itself, and does not take that release again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from headwater.compression import patch
from headwater.compression.bundle import MANIFEST, Bundle
from headwater.compression.errors import BundleError, HeadwaterError, RolloutError, StorageError
from headwater.compression.manifest import Manifest
from headwater.device.disk import is_disk_s
from headwater.device.rollout.trusting import NEW, Trusting, day, write_whole

if TYPE_CHECKING:
    from typing import BinaryIO

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from headwater.compression.release import Release

STATE = "state.json"
MAX_STARTS = 3
"""How often an agent may be started on a bundle that has not proved itself."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """What survives; ids in hex."""

    factory: str
    """The bundle that the agent was given."""
    current: str
    """The bundle in use."""
    previous: str | None = None
    """The one that it goes back to."""
    serial: int = 0
    """Of the newest release that was followed or refused for good."""
    trial: bool = False
    """The current one has not proved itself yet."""
    starts: int = 0
    """Of the agent, on trial."""
    refused: str = ""
    """Why the release of that serial is not followed; empty where it is."""
    issued: int = 0
    """When the newest release that was heard of was signed, Unix seconds."""
    expires: int = 0
    """Until when the release that was followed holds, Unix seconds; 0 for none."""


class BundleStore:
    """One agent's bundles; used from one thread at a time. Make it with :meth:`open`."""

    def __init__(self, folder: Path, anchor: Ed25519PublicKey, factory: Bundle, lock: BinaryIO) -> None:
        self.folder = folder
        self.factory = factory
        self.trusting = Trusting(folder, anchor)
        self._lock = lock
        self.state = self._read_state()

    @classmethod
    def open(cls, folder: Path, anchor: Ed25519PublicKey, factory: Bundle) -> Self:
        """Open the folder, alone, and clear away what was left half-done; raises :class:`StorageError`.

        Args:
            folder: for bundles; it is made.
            anchor: the key that is believed until its holder names others (trust.py).
            factory: the bundle that the agent was given. Another one than last time is the user's word: it is used.
        """
        with ExitStack() as opened:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock = opened.enter_context(_lock_file(folder / "lock"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                store = cls(folder, anchor, factory, lock)
                store._clear_away()
            except BlockingIOError as error:
                raise StorageError(
                    f"another agent uses the bundles in {folder}; give this one another --state"
                ) from error
            except OSError as error:
                raise StorageError(f"{folder} cannot hold bundles: {error.strerror}; give another --state") from error
            opened.pop_all()
        return store

    def close(self) -> None:
        """Let another agent use the folder."""
        self._lock.close()

    # ------------------------------------------------------------ at the start

    def begin(self) -> Bundle:
        """The bundle to start with: the current one, else the one before, else the factory's."""
        if self.state.trial:
            if self.state.starts >= MAX_STARTS:
                self.roll_back(f"the agent was started {MAX_STARTS} times on it without an answer")
            else:
                self._note(replace(self.state, starts=self.state.starts + 1))
        try:
            return self.get(bytes.fromhex(self.state.current))
        except BundleError as error:
            return self.roll_back(f"it cannot be loaded any more: {error}")

    # ------------------------------------------------------------ a release

    def judge(self, statement: bytes) -> Release:
        """Read a release that was offered, and see whether it is to be followed, before anything is fetched for it.

        What it says of keys is believed, and kept, even where the release itself is not to be followed.

        Raises:
            SignatureError: nobody who is trusted has signed it.
            RolloutError: it is not to be followed; the text says why.
            StorageError: whom to trust from now on cannot be written.
        """
        release = self.trusting.hear(statement)
        name = self.factory.manifest.name
        if release.name != name:
            raise RolloutError(f"the release is of {release.name}; this device runs {name}")
        if release.serial < self.state.serial or (release.serial == self.state.serial and self.state.refused):
            why = f": {self.state.refused}" if self.state.refused else ""
            raise RolloutError(f"release {release.serial} was left behind; {self.state.serial} came since{why}")
        if release.serial > self.state.serial:
            self.trusting.check_time(release, self.state.issued)
        return release

    @property
    def overdue(self) -> str:
        """What is to be said when no release has come for too long: whoever holds them back may hide a newer one."""
        end = self.state.expires
        if not end or self.trusting.now(self.state.issued) < end:
            return ""
        return (
            f"release {self.state.serial} ended at {day(end)} and none came since; the bundle stays in use. Has "
            "`headwater server refresh` been forgotten, or does somebody keep releases from this device?"
        )

    def follows(self, release: Release) -> bool:
        """Whether the bundle of a release is the one in use."""
        return release.bundle_id.hex() == self.state.current

    def has(self, bundle_id: bytes) -> bool:
        """Whether a bundle is here already."""
        return bundle_id == self.factory.id or self._path(bundle_id).is_dir()

    def get(self, bundle_id: bytes) -> Bundle:
        """A bundle that is here, checked to the last byte; raises :class:`BundleError`."""
        if bundle_id == self.factory.id:
            return self.factory
        bundle = Bundle.load(self._path(bundle_id), device=True)
        if bundle.id != bundle_id:
            raise BundleError(f"{self._path(bundle_id)} holds another bundle; it will be fetched again")
        return bundle

    def unpack(self, release: Release, packed: bytes) -> Bundle:
        """The bundle of a release from what was fetched, checked but for what it computes; nothing is stored yet.

        Raises:
            BundleError: it is damaged, is another one, or changes one that is not here.
            SignatureError: who is trusted has not signed it.
        """
        ids = patch.read_ids(packed)
        if ids.makes != release.bundle_id:
            raise BundleError(f"{ids.makes[:5].hex()} was sent; released is {release.bundle_id[:5].hex()}")
        old = None if ids.changes is None or not self.has(ids.changes) else self.get(ids.changes)
        bundle = patch.apply(packed, old)
        self.trusting.check_bundle(bundle)
        return self.trusted(release, bundle)

    def trusted(self, release: Release, bundle: Bundle) -> Bundle:
        """The bundle, if it is no step back that nobody ordered; raises a :class:`HeadwaterError`."""
        if bundle.manifest.name != release.name:
            raise RolloutError(f"the release is of {release.name}, its bundle of {bundle.manifest.name}")
        now = self._manifest(self.state.current).created
        if not release.back and _moment(bundle.manifest.created) < _moment(now):
            raise RolloutError(f"the bundle is of {bundle.manifest.created}, older than that of {now} in use")
        return bundle

    def switch(self, release: Release, bundle: Bundle) -> None:
        """Store a bundle, and use it from now on, on trial; raises :class:`StorageError`."""
        try:
            if not self.has(bundle.id):
                bundle.save_whole(self._path(bundle.id))
            # Going back is no experiment: that bundle has proved itself.
            self._write(
                replace(
                    self.state,
                    current=bundle.id.hex(),
                    previous=self.state.current,
                    serial=release.serial,
                    trial=not release.back,
                    starts=0,
                    refused="",
                    issued=release.issued,
                    expires=release.expires,
                )
            )
            self._clear_away()
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be written: {error.strerror}; is there room?") from error

    def confirm(self) -> None:
        """The current bundle has proved itself."""
        if self.state.trial:
            self._note(replace(self.state, trial=False, starts=0))

    def stay(self, release: Release) -> None:
        """Note that a release asks for what is in use already."""
        if release.serial > self.state.serial:
            newer = replace(self.state, serial=release.serial, issued=release.issued, expires=release.expires)
            self._note(replace(newer, refused=""))

    def refuse(self, release: Release, why: str) -> None:
        """Never follow this release."""
        if release.serial > self.state.serial:
            self._note(replace(self.state, serial=release.serial, refused=why, issued=release.issued))

    @property
    def alone(self) -> bool:
        """Whether there is no other bundle than the one in use."""
        return self.state.current == self.state.factory and self.state.previous is None

    def roll_back(self, why: str) -> Bundle:
        """Go back to the bundle before, or to the factory's.

        One that was on trial is to blame: its release is not followed again. One that had proved itself is not: the
        server may have lost it, and offers it again when it is there. What only a key vouched for that is believed no
        more is not gone back to.
        """
        left = self.state.current
        for wanted in (self.state.previous, self.state.factory):
            try:
                bundle = self._vouched(self.get(bytes.fromhex(wanted or "")))
            except HeadwaterError:
                continue
            if bundle.id.hex() != left:
                break
        else:
            bundle = self.factory
        blame = why if self.state.trial else self.state.refused
        self._note(replace(self.state, current=bundle.id.hex(), previous=None, trial=False, starts=0, refused=blame))
        _log.warning("went back from bundle %s to %s: %s", left[:10], bundle.short_id, why)
        return bundle

    def _vouched(self, bundle: Bundle) -> Bundle:
        """The bundle, if somebody who is believed has signed it, or the user has put it here."""
        if bundle.id != self.factory.id:
            self.trusting.check_bundle(bundle)
        return bundle

    # ------------------------------------------------------------ the disk

    def _path(self, bundle_id: bytes) -> Path:
        return self.folder / bundle_id.hex()

    def _manifest(self, name: str) -> Manifest:
        if name == self.state.factory:
            return self.factory.manifest
        try:
            return Manifest.from_json((self.folder / name / MANIFEST).read_bytes())
        except OSError as error:
            raise BundleError(f"the manifest of the bundle {name[:10]} cannot be read: {error.strerror}") from error

    def _read_state(self) -> State:
        factory = self.factory.id.hex()
        fresh = State(factory, factory)
        path = self.folder / STATE
        if not path.exists():
            return fresh
        try:
            state = State(**json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            # No power cut does that; somebody has edited it.
            _log.warning("%s is damaged (%s): starting with the bundle that was given", path, error)
            return fresh
        return state if state.factory == factory else replace(fresh, serial=state.serial, issued=state.issued)

    def _note(self, state: State) -> None:
        """Write a state that holds although the disk may not take it: a full one must not keep a bundle in use."""
        try:
            self._write(state)
        except OSError as error:
            _log.error("%s cannot be written (%s): what it should say is forgotten at the end", self.folder, error)
            self.state = state

    def _write(self, state: State) -> None:
        write_whole(self.folder / STATE, (json.dumps(asdict(state), indent=1) + "\n").encode())
        self.state = state

    def _clear_away(self) -> None:
        """Delete what was left half-done, and bundles that nothing leads back to."""
        kept = {self.state.current, self.state.previous}
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
            elif path.name.startswith(NEW):
                with suppress(OSError):  # it is in nobody's way
                    path.unlink()


def _lock_file(path: Path) -> BinaryIO:
    """To be locked; on a disk that became read-only too, for the bundle in use is on it."""
    try:
        return path.open("wb")
    except OSError as error:
        if not (is_disk_s(error) and path.is_file()):
            raise
        return path.open("rb")


def _moment(created: str) -> datetime:
    try:
        moment = datetime.fromisoformat(created)
    except ValueError as error:
        raise RolloutError(f"the bundle says that it is of {created!r:.80}, which is no time") from error
    if moment.tzinfo is None:
        raise RolloutError(f"the bundle says that it is of {created!r:.80}, without a time zone")
    return moment
