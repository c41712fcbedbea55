"""What is heard while a soak runs: pictures taken, frames kept, connections made and lost, faults begun and mended."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from benchmarks.soaking.plan import Member


@dataclass
class Spell:
    """A device without a connection."""

    began_s: float
    ended_s: float | None = None


@dataclass
class Trouble:
    """One fault, and whom it concerns."""

    kind: str
    target: str
    devices: frozenset[str]
    """That may lose their connection by it."""
    began_s: float
    mended_s: float | None = None
    own: bool = False
    """Whether it is done to the process of these devices, not to a server or a link."""
    begun_s: dict[str, float] = field(default_factory=dict)
    """When each device's agent began again, where its process was killed: not all of a process begin at once."""

    def ended_s(self, device: str) -> float | None:
        """When it no longer kept a device away."""
        return self.begun_s.get(device, self.mended_s)


@dataclass(frozen=True)
class Reconnection:
    """A device came back."""

    device: str
    cause: str
    """The fault that kept it away last; empty where none did: its connection had broken."""
    lasting: str
    """A fault that concerned it and went on, as one of the other server's; empty for none."""
    seconds: float
    """From the end of `cause`, or from its losing the connection."""


@dataclass
class Diary:
    """Of the whole soak; times are those of the monotonic clock, seconds."""

    taken: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """The last number of each device."""
    kept: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Ids, in hex, by the picture's name."""
    spells: defaultdict[str, list[Spell]] = field(default_factory=lambda: defaultdict(list))
    """By device."""
    troubles: list[Trouble] = field(default_factory=list)
    fallen: list[str] = field(default_factory=list)
    """What agents ended with that were not to end."""
    done: set[str] = field(default_factory=set)
    _up: set[str] = field(default_factory=set)

    def hear(self, words: Sequence[str]) -> None:
        """Take a line of a swarm."""
        match words:
            case ["take", name]:
                device, _, number = name.rpartition("/")
                self.taken[device] = max(self.taken[device], int(number))
            case ["keep", name, identity]:
                self.kept[name].append(identity)
            case ["up", device, seconds]:
                self._up.add(device)
                if self.spells[device] and self.spells[device][-1].ended_s is None:
                    self.spells[device][-1].ended_s = float(seconds)
            case ["down", device, seconds]:
                self._down(device, float(seconds))
            case ["begin", device, seconds]:
                self._begin(device, float(seconds))
            case ["done", device]:
                self.done.add(device)
            case ["fell", *rest]:
                self.fallen.append(" ".join(rest))
            case _:
                self.fallen.append(f"a swarm said {' '.join(words)!r}")

    def _begin(self, device: str, now_s: float) -> None:
        for one in self.troubles:
            if one.own and one.mended_s is None and device in one.devices:
                one.begun_s[device] = now_s

    def restless(self, devices: Iterable[str]) -> None:
        """Their process has ended."""
        for device in self._up.intersection(devices):
            self._down(device, time.monotonic())

    def _down(self, device: str, now_s: float) -> None:
        self._up.discard(device)
        self.spells[device].append(Spell(now_s))

    @property
    def up(self) -> int:
        """Devices of swarms that are connected."""
        return len(self._up)

    def has_up(self, devices: AbstractSet[str]) -> bool:
        """Whether all of these devices of swarms are connected."""
        return devices <= self._up

    def resumed(self, member: Member) -> Member:
        """What a device is told that begins again."""
        names = (f"{member.name}/{number}" for number in range(1, self.taken[member.name] + 1))
        kept = tuple(name for name in names if name in self.kept)
        return replace(member, taken=self.taken[member.name], kept=kept)

    def reconnections(self) -> list[Reconnection]:
        """How long devices took to come back: from the end of what kept them away, or from losing the connection."""
        concern: dict[str, list[Trouble]] = defaultdict(list)
        for one in self.troubles:
            for device in one.devices:
                concern[device].append(one)
        return [
            _came_back(device, spell.began_s, spell.ended_s, concern[device])
            for device, spells in self.spells.items()
            for spell in spells
            if spell.ended_s is not None
        ]


def _came_back(device: str, began_s: float, ended_s: float, troubles: Iterable[Trouble]) -> Reconnection:
    last_s, cause, lasting = began_s, "", ""
    for one in troubles:
        over_s = one.ended_s(device)
        if one.began_s <= ended_s and (over_s is None or over_s > ended_s):
            lasting = one.kind
        elif over_s is not None and last_s <= over_s <= ended_s:
            last_s, cause = over_s, one.kind
    return Reconnection(device, cause, lasting, ended_s - last_s)
