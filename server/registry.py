"""Which bundles a server serves: several at a time, found by id, by its first bytes, or by name.

A bundle can be added while frames run. It is loaded and warmed before the first frame can find it, and the one that
it replaces (the last of the same name) stays warm, because devices swap over one by one and a frame names its bundle.

A bundle to which a task was added has the heads, tables and decoder of the one before, and says so: frames of both are
answered by the same coder and tails, in the same batches, and the one before need not be in memory. Only what is bound
to an id, the check of a frame, is there for each.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Self

from headwater.compression.bundle import SHORT_ID_BYTES, Bundle
from headwater.compression.errors import BundleError
from headwater.compression.exits import ExitTables
from headwater.server.tails import Tails

if TYPE_CHECKING:
    from headwater.compression.manifest import Task

KEEP = 2
"""Bundles of one name that are served at a time: the newest and the one before."""
REVIVED = 3
"""And so many earlier ones, for devices that slept through later ones."""
LIVE_WARM = 1, 2
"""Batches that a bundle is warmed by while others are served: one alone, and several. The largest would take as long
as hundreds of frames, to spare the first one of its size a fifth of its time."""


class Served:
    """A bundle with what it takes to answer its frames; raises :class:`BundleError` if that cannot be made."""

    def __init__(self, bundle: Bundle, threads: int = 1, warm: Sequence[int] = (1,)) -> None:
        self.bundle = bundle
        self.id = bundle.id
        """Of the bundle whose frames these are."""
        self.answered_by = bundle.id
        """Of the bundle that answers them, and whose frames share a batch."""
        self.name = bundle.manifest.name
        self.tasks: tuple[Task, ...] = bundle.manifest.tasks
        self.frames = bundle.frames()
        self.coder = bundle.coder()
        self.tails = Tails(bundle, threads)
        self.tails.warm_up(*warm)
        self._bits = {task.name: 1 << position for position, task in enumerate(self.tasks)}

    def mask(self, tasks: Iterable[str]) -> int:
        """The tasks as bits, 0 for none named (all that classify); raises KeyError for one that there is not."""
        mask = 0
        for task in tasks:
            mask |= self._bits[task]
        return mask

    @property
    def short(self) -> bytes:
        """The first bytes of the id, by which frames name the bundle."""
        return self.id[:SHORT_ID_BYTES]

    @property
    def answers_for(self) -> tuple[bytes, ...]:
        """Ids of the earlier bundles whose frames this one answers too."""
        return tuple(map(bytes.fromhex, self.bundle.manifest.answers_for))

    def aliases(self) -> list[Self]:
        """The same for the frames of each of :attr:`answers_for`."""
        return [self._alias(bundle_id) for bundle_id in self.answers_for]

    def _alias(self, bundle_id: bytes) -> Self:
        alias = copy.copy(self)
        alias.id = bundle_id
        alias.frames = self.bundle.frames(bundle_id)
        return alias

    def __repr__(self) -> str:
        return f"<{self.name} {self.short.hex()}>"


class Registry:
    """The bundles that are served, the newest first."""

    def __init__(self, bundles: Iterable[Bundle] = (), threads: int = 1, warm: Sequence[int] = (1,)) -> None:
        self.threads = threads
        self._changing = threading.Lock()
        self._served: tuple[Served, ...] = ()
        self._by_id: dict[bytes, Served] = {}
        for bundle in sorted(bundles, key=lambda bundle: bundle.manifest.created):
            self._add(bundle, warm)

    @property
    def served(self) -> tuple[Served, ...]:
        """All bundles, the last added first."""
        return self._served

    def add(self, bundle: Bundle) -> tuple[Served, ...]:
        """Load, warm and serve a bundle; returns those that are no longer served.

        May be called from any thread: frames see either the old set or the new one. Adding the bundle that is newest
        already, or one for which another answers, changes nothing; one that the new bundle answers for goes.

        Raises:
            BundleError: if it cannot be served; what was served before still is.
        """
        with self._changing:
            return self._add(bundle, LIVE_WARM)

    def revive(self, bundle: Bundle) -> None:
        """Serve an earlier bundle again; it takes the place of none but of one that was revived long ago.

        Raises:
            BundleError: if it cannot be served.
        """
        with self._changing:
            if self._by_id.get(bundle.id) is not None:
                return
            self._check(bundle)
            revived = Served(bundle, self.threads, LIVE_WARM)
            namesakes = [served for served in self._served if served.name == revived.name]
            gone = namesakes[KEEP] if len(namesakes) >= KEEP + REVIVED else None
            self._publish((*(served for served in self._served if served is not gone), revived))

    def _add(self, bundle: Bundle, warm: Sequence[int]) -> tuple[Served, ...]:
        known = self._by_id.get(bundle.id)
        if known is not None and known.answered_by != bundle.id:
            return ()
        if known is None:
            self._check(bundle)
        newest = known or Served(bundle, self.threads, warm)
        others = [served for served in self._served if served is not newest]
        superseded = [served for served in others if served.id in newest.answers_for]
        namesakes = [served for served in others if served.name == newest.name and served not in superseded]
        retired = (*superseded, *namesakes[KEEP - 1 :])
        self._publish((newest, *(served for served in others if served not in retired)))
        return retired

    def _check(self, bundle: Bundle) -> None:
        """Refuse an id that is taken, and a claim to answer for a bundle whose frames it cannot read."""
        ids = (bundle.id, *map(bytes.fromhex, bundle.manifest.answers_for))
        for bundle_id in ids:
            other = self._by_id.get(bundle_id[:SHORT_ID_BYTES])
            if other is not None and other.id != bundle_id:
                short = bundle_id[:SHORT_ID_BYTES].hex()
                raise BundleError(f"the short id {short} belongs to two bundles; build one of them again")
        for served in self._served:
            if served.id in ids and (different := _different_files(served.bundle, bundle)):
                raise BundleError(
                    f"the bundle {bundle.short_id} says that it answers for {served.short.hex()}, but differs from it "
                    f"in {', '.join(different)}; serve the two side by side, built again without that claim"
                )

    def find(self, bundle_id: bytes) -> Served | None:
        """The bundle of this id: 32 bytes, or the first 5."""
        return self._by_id.get(bundle_id)

    def by_name(self, name: str) -> Served | None:
        """The newest bundle of this name."""
        return next((served for served in self._served if served.name == name), None)

    def listing(self) -> str:
        """The bundles for people: names and short ids."""
        return ", ".join(map(_listed, self._served)) or "none"

    def _publish(self, served: tuple[Served, ...]) -> None:
        self._served = served
        # The newest last, so that it is the one to answer for an id that several answer for.
        ways = [way for one in reversed(served) for way in (*one.aliases(), one)]
        self._by_id = {key: way for way in ways for key in (way.id, way.short)}


def _listed(served: Served) -> str:
    earlier = ", ".join(bundle_id[:SHORT_ID_BYTES].hex() for bundle_id in served.answers_for)
    return f"{served.name} {served.short.hex()}" + (f" (also for {earlier})" if earlier else "")


def _different_files(one: Bundle, other: Bundle) -> list[str]:
    """What decides how a frame of one is read and is not the same in the other."""
    names = {mode.head_file for mode in one.manifest.modes} | {"tables.safetensors", "decoder.onnx", ExitTables.FILE}
    return sorted(name for name in names if one.manifest.files.get(name) != other.manifest.files.get(name))
