"""What goes wrong in a soak: faults of every kind by a seeded lottery, several at a time, each kind before any again.

    kill        SIGKILL to a server, a swarm of devices or an agent; started again after a moment
    stop        SIGTERM to a server or an agent: in order, and started again
    freeze      SIGSTOP, then SIGCONT: shorter and longer than the heartbeats that the others wait for
    reset       every connection of a link is reset, in the middle of frames
    black-out   a link carries nothing, new connections neither
    stall       one direction of it
    full disk   after some bytes more nothing can be written to the disk of a process, in the middle of a line
    read-only   the file system of a process refuses every change
    clock       the time of day of a process is an hour later, or earlier, from now on

A process meets one fault at a time, and so does a link; but for the clock, which stays where it jumped.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.soaking.diary import Diary, Trouble
from benchmarks.soaking.processes import Agent, Server, Swarm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.soaking.processes import Process
    from headwater.simulations.link import LinkProxy

HOUR_S = 3600.0
TORN_BYTES = 5000
MENDED_S = 5.0
"""After its disk was mended a process has no other fault for so long: records that waited in memory, and that a kill
would cost, are written a second later."""
TRIES = 20
"""Targets that are drawn until one is free."""


@dataclass(frozen=True)
class Link:
    """A link with its ways to both servers."""

    name: str
    ways: tuple[LinkProxy, ...]
    devices: frozenset[str]


Target = Link | Server | Swarm | Agent


class Lottery:
    """Draws faults and brings them about."""

    def __init__(
        self,
        processes: Sequence[Process],
        spared: frozenset[str],
        links: Sequence[Link],
        devices: Callable[[Process], frozenset[str]],
        diary: Diary,
        seed: int,
    ) -> None:
        """Nothing happens yet.

        Args:
            processes: that faults are done to.
            spared: names of those that are never killed or stopped, so that their memory can be watched.
            links: that faults are done to.
            devices: those that a process' faults concern.
            diary: where faults are noted.
            seed: of the lottery.
        """
        self.counts: Counter[str] = Counter()
        self._links = links
        self._processes = processes
        self._spared = spared
        self._devices = devices
        self._diary = diary
        self._chance = random.Random(seed)
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._deeds: list[tuple[str, Callable[[], Target], Callable[..., Awaitable[None]]]] = [
            ("kill", self._killable, self._kill),
            ("kill", self._killable, self._kill),
            ("stop", self._stoppable, self._stop),
            ("freeze", self._process, self._freeze),
            ("reset", self._link, self._reset),
            ("reset", self._link, self._reset),
            ("black-out", self._link, self._black_out),
            ("stall", self._link, self._stall),
            ("full disk", self._process, self._full_disk),
            ("read-only", self._process, self._read_only),
            ("clock", self._process, self._clock),
        ]
        self._deck: list[tuple[str, Callable[[], Target], Callable[..., Awaitable[None]]]] = []

    async def run(self, seconds: float, every_s: float) -> None:
        """Draw for so long, then wait until everything is mended but the clocks."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            await asyncio.sleep(min(self._chance.expovariate(1 / every_s), left_s))
            self.draw()
            self.raise_failures()
        await asyncio.gather(*self._tasks)

    def raise_failures(self) -> None:
        """What a fault's own task raised."""
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.discard(task)
            task.result()

    def draw(self) -> None:
        """Begin the next fault, at a target that has none; where they all have, it is the next again."""
        if not self._deck:
            self._deck = self._chance.sample(self._deeds, len(self._deeds))
        kind, targets, deed = self._deck[-1]
        free = (target for target in (targets() for _ in range(TRIES)) if target.name not in self._busy)
        if (target := next(free, None)) is not None:
            self._deck.pop()
            self._busy.add(target.name)
            self.counts[kind] += 1
            self._tasks.add(asyncio.create_task(self._do(kind, target, deed), name=f"{kind} {target.name}"))

    async def _do(self, kind: str, target: Target, deed: Callable[..., Awaitable[None]]) -> None:
        with self.holding(target), self._noted(kind, target):
            await deed(target)

    @contextmanager
    def _noted(self, kind: str, target: Target) -> Iterator[None]:
        devices = target.devices if isinstance(target, Link) else self._devices(target)
        trouble = Trouble(kind, target.name, devices, time.monotonic(), own=isinstance(target, Swarm))
        self._diary.troubles.append(trouble)
        try:
            yield
        finally:
            trouble.mended_s = time.monotonic()

    @asynccontextmanager
    async def without(self, server: Server) -> AsyncIterator[None]:
        """Have a server stopped for a while, and its devices elsewhere; that is noted, and no fault of the lottery."""
        with self.holding(server), self._noted("absence", server):
            await server.stop()
            try:
                yield
            finally:
                await server.start_again()

    def has(self, process: Process) -> bool:
        """Whether a fault is being done to it."""
        return process.name in self._busy

    @contextmanager
    def holding(self, target: Target) -> Iterator[None]:
        """Spare it for a while."""
        self._busy.add(target.name)
        try:
            yield
        finally:
            self._busy.discard(target.name)

    # ------------------------------------------------------------ whom

    def _process(self) -> Target:
        # The servers are few, and as interesting as all the others together.
        servers = [one for one in self._processes if isinstance(one, Server)]
        others = [one for one in self._processes if not isinstance(one, Server)]
        return self._chance.choice(servers if self._chance.random() < 0.4 else others)  # type: ignore[return-value]

    def _killable(self) -> Target:
        return self._other(lambda one: one.name not in self._spared)

    def _stoppable(self) -> Target:
        return self._other(lambda one: one.name not in self._spared and not isinstance(one, Swarm))

    def _other(self, fits: Callable[[Target], bool]) -> Target:
        while not fits(one := self._process()):
            pass
        return one

    def _link(self) -> Target:
        return self._chance.choice(self._links)

    # ------------------------------------------------------------ what

    async def _kill(self, target: Process) -> None:
        await target.kill()
        await asyncio.sleep(self._chance.uniform(0.0, 3.0))
        await target.start_again()

    async def _stop(self, target: Server | Agent) -> None:
        await target.stop()
        await asyncio.sleep(self._chance.uniform(0.0, 2.0))
        await target.start_again()

    async def _freeze(self, target: Process) -> None:
        target.send(signal.SIGSTOP)
        await asyncio.sleep(self._chance.choice((0.3, 1.0, 4.0, 20.0)))
        target.send(signal.SIGCONT)

    async def _reset(self, link: Link) -> None:
        for way in link.ways:
            way.cut()

    async def _black_out(self, link: Link) -> None:
        for way in link.ways:
            way.black_out()
        await asyncio.sleep(self._chance.choice((0.5, 2.0, 6.0, 12.0)))
        for way in link.ways:
            way.restore()

    async def _stall(self, link: Link) -> None:
        ups = self._chance.random() < 0.5
        lanes = [way.up if ups else way.down for way in link.ways]
        for lane in lanes:
            lane.hold()
        await asyncio.sleep(self._chance.uniform(0.5, 5.0))
        for lane in lanes:
            lane.release()

    async def _full_disk(self, target: Process) -> None:
        target.footing.room = self._chance.choice((0, self._chance.randrange(TORN_BYTES)))
        await asyncio.sleep(self._chance.uniform(1.0, 6.0))
        target.footing.room = None
        await asyncio.sleep(MENDED_S)

    async def _read_only(self, target: Process) -> None:
        target.footing.read_only = True
        await asyncio.sleep(self._chance.uniform(1.0, 6.0))
        target.footing.read_only = False
        await asyncio.sleep(MENDED_S)

    async def _clock(self, target: Process) -> None:
        target.footing.clock_s = self._chance.choice(
            [off for off in (-HOUR_S, 0.0, HOUR_S) if off != target.footing.clock_s]
        )
