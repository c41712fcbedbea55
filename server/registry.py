"""Which bundles a server serves: several at a time, found by id, by its first bytes, or by name.

A bundle can be added while frames run. It is loaded and warmed before the first frame can find it, and the one that
it replaces (the last of the same name) stays warm, because devices swap over one by one and a frame names its bundle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from headwater.compression.bundle import SHORT_ID_BYTES, Bundle
from headwater.compression.errors import BundleError
from headwater.server.tails import Tails

if TYPE_CHECKING:
    from headwater.compression.manifest import Task

KEEP = 2
"""Bundles of one name that are served at a time: the newest and the one before."""


class Served:
    """A bundle with what it takes to answer its frames; raises :class:`BundleError` if that cannot be made."""

    def __init__(self, bundle: Bundle, threads: int = 1, warm: Sequence[int] = (1,)) -> None:
        self.bundle = bundle
        self.id = bundle.id
        self.short = bundle.id[:SHORT_ID_BYTES]
        self.name = bundle.manifest.name
        self.tasks: tuple[Task, ...] = bundle.manifest.tasks
        self.frames = bundle.frames()
        self.coder = bundle.coder()
        self.tails = Tails(bundle, threads)
        self.tails.warm_up(*warm)
        self._bits = {task.name: 1 << position for position, task in enumerate(self.tasks)}

    def mask(self, tasks: Iterable[str]) -> int:
        """The tasks as bits, 0 for none named (which asks for all); raises KeyError for one that there is not."""
        mask = 0
        for task in tasks:
            mask |= self._bits[task]
        return mask

    def __repr__(self) -> str:
        return f"<{self.name} {self.short.hex()}>"


class Registry:
    """The bundles that are served, the newest first."""

    def __init__(self, bundles: Iterable[Bundle] = (), threads: int = 1, warm: Sequence[int] = (1,)) -> None:
        self._threads = threads
        self._warm = warm
        self._served: tuple[Served, ...] = ()
        self._by_id: dict[bytes, Served] = {}
        for bundle in sorted(bundles, key=lambda bundle: bundle.manifest.created):
            self.add(bundle)

    @property
    def served(self) -> tuple[Served, ...]:
        """All bundles, the last added first."""
        return self._served

    def add(self, bundle: Bundle) -> tuple[Served, ...]:
        """Load, warm and serve a bundle; returns those that are no longer served.

        May be called from any thread: frames see either the old set or the new one. Adding the bundle that is newest
        already changes nothing.

        Raises:
            BundleError: if it cannot be served; what was served before still is.
        """
        known = self._by_id.get(bundle.id)
        same_short = self._by_id.get(bundle.id[:SHORT_ID_BYTES])
        if known is None and same_short is not None:
            raise BundleError(f"the short id {bundle.short_id} belongs to two bundles; build one of them again")
        newest = known or Served(bundle, self._threads, self._warm)
        others = [served for served in self._served if served is not newest]
        namesakes = [served for served in others if served.name == newest.name]
        retired = tuple(namesakes[KEEP - 1 :])
        self._publish((newest, *(served for served in others if served not in retired)))
        return retired

    def find(self, bundle_id: bytes) -> Served | None:
        """The bundle of this id: 32 bytes, or the first 5."""
        return self._by_id.get(bundle_id)

    def by_name(self, name: str) -> Served | None:
        """The newest bundle of this name."""
        return next((served for served in self._served if served.name == name), None)

    def listing(self) -> str:
        """The bundles for people: names and short ids."""
        return ", ".join(f"{served.name} {served.short.hex()}" for served in self._served) or "none"

    def _publish(self, served: tuple[Served, ...]) -> None:
        self._served = served
        self._by_id = {key: one for one in served for key in (one.id, one.short)}
