"""A bundle as devices fetch it: what has changed since the one that a device has, or all of it.

A device gets only what it reads itself; one that takes part in federated rounds trains all of the network, and gets
all. A pack is made when the first device needs it, and again if the mailbox had no room to keep it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.compression import patch
from headwater.server.mail.offers import FEDERATED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater.compression.bundle import Bundle
    from headwater.server.mail.mailbox import Mailbox
    from headwater.server.registry import Registry
    from headwater.server.rollout.versions import Versions


@dataclass(frozen=True)
class Pack:
    """Which bytes a device gets."""

    bundle: bytes
    base: bytes | None
    """The bundle that it has, where only the difference is sent."""
    all: bool = False
    """Also what only a server, or training, reads."""

    @property
    def key(self) -> str:
        """Short, for an offer's key."""
        base = "whole" if self.base is None else self.base[:8].hex()
        return f"{self.bundle[:8].hex()}-{base}-{'all' if self.all else 'device'}"


class Packs:
    """Makes packs and puts them into the mailbox."""

    def __init__(self, versions: Versions, mailbox: Mailbox, registry: Registry) -> None:
        self._versions = versions
        self._mailbox = mailbox
        self._registry = registry
        self._made: dict[tuple[Pack, bytes], bytes] = {}

    def for_device(self, bundle: bytes, has: bytes, capabilities: Iterable[str], *, whole: bool = False) -> Pack:
        """What a device gets that has a bundle, perhaps this one; ``whole``: a difference was of no use to it."""
        base = has if not whole and self._versions.has(has) else None
        return Pack(bundle, base, FEDERATED in capabilities)

    def put(self, pack: Pack) -> bytes:
        """See to it that the mailbox has it; its SHA-256. Takes seconds for a large bundle."""
        made = pack, self._versions.signature(pack.bundle)  # it may have been signed anew
        sha256 = self._made.get(made)
        if sha256 is None or not self._mailbox.blobs.has(sha256):
            old = None if pack.base is None else self._bundle(pack.base)
            new = self._bundle(pack.bundle)
            sha256 = self._mailbox.put(patch.make(new, old, device=not pack.all))
            self._made[made] = sha256
        return sha256

    def _bundle(self, bundle_id: bytes) -> Bundle:
        """A bundle as it is on the disk; not read again where it is served, unless it was signed anew."""
        served = self._registry.find(bundle_id)
        bundle = None if served is None or served.bundle.id != bundle_id else served.bundle
        same = bundle is not None and (bundle.signature or b"") == self._versions.signature(bundle_id)
        return bundle if bundle is not None and same else self._versions.load(bundle_id)
