"""A device of the demo: an agent in a process of its own, the proxy that is its link, and the records it writes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.simulations.demo.follow import RecordFollower
from headwater.simulations.link import LinkProxy
from headwater.simulations.processes import Child, ChildError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AsyncExitStack
    from pathlib import Path

    from headwater.simulations.demo.tally import Tally
    from headwater.simulations.trace import LinkTrace


@dataclass(frozen=True)
class Station:
    """A device's link, and how many pictures a second it sends."""

    title: str
    link: LinkTrace
    fps: float
    deadline_ms: int | None = None
    """By which the device answers by itself what the server has not, where the bundle's local exit can."""


@dataclass
class Device:
    """A running agent and what it has measured so far."""

    tally: Tally
    child: Child
    follower: RecordFollower

    def read(self) -> None:
        """Count what it has written since the last call."""
        for record in self.follower.read():
            self.tally.add(record)

    def check(self, expected: int) -> None:
        """Say what is missing: a device that answered nothing is an error, one that lost frames is a note."""
        if not self.tally.records:
            raise ChildError(f"the device on {self.tally.title} answered nothing: {self.child.last_words()}")
        if len(self.tally.answered) < expected and not self.tally.note:
            self.tally.note = f"{expected - len(self.tally.answered)} of {expected} frames without an answer"


async def start(
    tally: Tally, server: str, out: Path, arguments: Mapping[str, object], stack: AsyncExitStack, *switches: str
) -> Device:
    """Start an agent on a tally's link to a server; it ends with the stack.

    Args:
        tally: takes what it measures.
        server: its address.
        out: where logs go, named by the link.
        arguments: more flags of ``headwater device``, by name.
        stack: of everything that is to end.
        switches: flags without a value.
    """
    proxy = await stack.enter_async_context(LinkProxy(server, tally.link, observe=tally.passages.append))
    tally.wall_offset_s = time.time() - time.monotonic()
    name = tally.link.name
    records = fresh(out, f"{name}.jsonl")
    given = {"server": proxy.address, "records": records, "name": name, **arguments}
    child = Child(f"device on {tally.title}", ["device", *flags(given), *switches], fresh(out, f"{name}.log"))
    await stack.enter_async_context(child)
    return Device(tally, child, RecordFollower(records))


def flags(arguments: Mapping[str, object]) -> list[str]:
    """A command's flags, by name."""
    return [part for name, value in arguments.items() for part in (f"--{name}", str(value))]


def fresh(out: Path, name: str) -> Path:
    """A file of this run alone, in the folder of logs."""
    path = out / "logs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return path
