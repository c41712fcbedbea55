"""What is in the mailbox: offers as they are wished for and as they stand, devices, and what these say of bundles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Subject = Literal["message", "bundle"]
State = Literal["offered", "accepted", "fetched", "replied", "refused", "withdrawn"]


@dataclass(frozen=True)
class Wanted:
    """Something that a device is to be offered."""

    key: str
    """What it is: the same key is the same offer."""
    device: int
    """Its node id, see :func:`headwater.protos.nodes.node_id`."""
    subject: Subject
    sha256: bytes
    """Of the content, which is in the store already."""
    bundle_id: bytes = b""
    """Of a bundle, its id; of a message, that of the bundle which the round starts from, if it says so."""
    run: int = 0
    group: str = ""
    """Of a message, the round that it belongs to."""
    envelope: bytes = b""
    valid_for_s: float = 12 * 3600.0


@dataclass(frozen=True)
class Offered:
    """An offer as it stands."""

    number: int
    key: str
    node: int
    subject: Subject
    sha256: bytes
    size: int
    """Of the content, in bytes."""
    bundle_id: bytes
    run: int
    group: str
    envelope: bytes
    expires_unix_ms: int
    state: State
    detail: str
    """Why it is refused or withdrawn."""
    reply_envelope: bytes
    reply_sha256: bytes
    """Of the reply's content, in the store; empty without one."""

    @property
    def open(self) -> bool:
        """Whether something may still come of it."""
        return self.state in {"offered", "accepted", "fetched"}


@dataclass(frozen=True)
class Device:
    """A device that was connected at some time."""

    node: int
    name: str
    connected: bool
    capabilities: tuple[str, ...]
    bundle_id: bytes
    """Full id of the bundle whose frames it sends."""
    agent_version: str
    seen_unix_ms: int
    """When it came, or went."""


@dataclass(frozen=True)
class Notice:
    """What a device said of a bundle."""

    number: int
    node: int
    bundle_id: bytes
    state: int
    """A ``headwater.v1.BundleState``."""
    detail: str
    unix_ms: int
