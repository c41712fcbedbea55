"""Who takes part in a soak: how many streams of which kind, on which links, to which servers, for how long.

    devices      kinds, in turn                                     what becomes of a frame that no server answers
    ───────      ──────────────                                     ────────────────────────────────────────────────
    deadline     an answer in a second; the exit steps in           answered locally, and kept for the archive
    patient      no deadline: a frame waits for the server          nothing else: it waits
    deaf         a deadline, and nothing that could step in         kept for the archive
    curt         the same, and nothing is kept                      refused with a reason
    everything   as the first, and every frame is kept              kept, as all are

Every third device knows one server, every third the other, the rest both. One of the servers is killed again and again;
the other never, so that its memory can be watched. So it is with the processes that hold the devices.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal, get_args

Kind = Literal["deadline", "patient", "deaf", "curt", "everything"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DEADLINE_MS = 1000
RETRY_S = 4.0
HEARTBEAT_MS = 5000


@dataclass(frozen=True)
class Size:
    """How large a soak is."""

    minutes: float = 2.0
    """With faults; start and end come on top."""
    streams: int = 500
    """Devices, each with a connection of its own."""
    agents: int = 4
    """Of these, ``headwater device`` processes; the others share processes."""
    links: int = 8
    fps: float = 0.12
    """Pictures a second of one device."""
    fault_every_s: float = 1.5
    """On average."""
    seed: int = 0
    leak_mb_per_hour: float = 0.0
    """That the watched processes lose on purpose, to see that it is found."""

    @property
    def swarms(self) -> int:
        """Those processes."""
        return max(2, math.ceil(self.streams / 100))


@dataclass(frozen=True)
class Device:
    """One device."""

    name: str
    kind: Kind
    link: int
    servers: tuple[str, ...]
    """Which of the servers it knows: "killed", "steady"."""


SERVERS: tuple[tuple[str, ...], ...] = (("killed",), ("steady",), ("killed", "steady"))


def devices(size: Size) -> tuple[list[list[Device]], list[Device]]:
    """The devices of each swarm, and those that are processes of their own."""
    every = [
        Device(f"d{at:03}", KINDS[at // len(SERVERS) % len(KINDS)], at % size.links, SERVERS[at % len(SERVERS)])
        for at in range(size.streams - size.agents)
    ]
    agents = [
        Device(f"agent{at}", "deadline", at % size.links, SERVERS[at % len(SERVERS)]) for at in range(size.agents)
    ]
    return [every[at :: size.swarms] for at in range(size.swarms)], agents


@dataclass(frozen=True)
class Member:
    """What a swarm is told of one of its devices when it starts."""

    name: str
    kind: Kind
    servers: tuple[str, ...]
    """Addresses."""
    taken: int
    """Pictures that it took in earlier lives of the process."""
    kept: tuple[str, ...]
    """Those of them that are in its spool or were."""


@dataclass(frozen=True)
class Orders:
    """The first line that a swarm reads."""

    bundle: str
    folder: str
    """Of records, spools and states."""
    fps: float
    members: tuple[Member, ...]

    def plain(self) -> dict[str, object]:
        """As JSON takes it."""
        return asdict(self)
