"""How a link behaves: who the device says that it is, and how long it waits for what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class LinkOptions:
    """How a link behaves."""

    device: str
    """The device's name."""
    bundle_id: bytes
    """Full id of the bundle whose frames are sent at first, 32 bytes."""
    version: str = ""
    """Of headwater, for people."""
    window: int = 8
    """Frames that may fly; the server may allow fewer."""
    first_pause_s: float = 0.1
    longest_pause_s: float = 10.0
    connect_timeout_s: float = 20.0
    """From opening a connection to the server's welcome; a link of 5 kbit/s needs two seconds of it."""
    failover_s: float = 5.0
    """The same while there are other servers to go to; twice as long in each round in which all have failed."""
    linger_s: float = 3.0
    """On closing, how long kept frames may still be delivered."""
    capabilities: tuple[str, ...] = ()
    """Optional parts that this agent has, such as ``federated``; the server offers what they are for."""
    persistent: bool = False
    """Go on trying though every server refuses this device for good: it answers by itself until somebody mends that."""
    name_at: Callable[[str], str] = lambda _: ""
    """What the device is called at a server, by its certificate there; empty for its own name."""
