"""The whole of a soak: everything is started, goes wrong for a while, is mended, comes to its end, is accounted for.

swarm, swarm, ... (processes of many devices) ──┐                          ┌──> server "killed" ──┐
                                                ├── LinkProxy, 2 a link ───┤                      ├── one archive
agent, agent, ... (headwater device)  ──────────┘        (here)            └──> server "steady" ──┘
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.soaking import memory
from benchmarks.soaking.admitting import Newcomer, admit
from benchmarks.soaking.diary import Diary, Reconnection
from benchmarks.soaking.faults import Link, Lottery
from benchmarks.soaking.ledger import Account, Entry, Row, account
from benchmarks.soaking.memory import Held
from benchmarks.soaking.plan import Member, Orders, devices
from benchmarks.soaking.processes import Agent, Process, Server, Swarm
from benchmarks.soaking.swarm import make_pictures
from headwater.compression.bundle import Bundle
from headwater.device.record import read_records
from headwater.server.archive import Chosen, read
from headwater.simulations.link import LinkProxy
from headwater.simulations.trace import LinkTrace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from benchmarks.soaking.plan import Device, Size

STEADY, KILLED = "steady", "killed"
RATE, DELAY_S = 20e6, 0.005
CONNECTED_S, END_S = 300.0, 600.0
WARM_UP = 1 / 3
"""Of the time; what memory does before that does not count."""
STRETCH_S, CALM_S, REST_S = 90.0, 60.0, 20.0
"""Of faults between calm moments; how long all devices may take to come back; and until a server has let go of the
connections that they lost without a word, which takes it three heartbeats."""
SPARED = (STEADY, "swarm0", "agent0")
"""Never killed or stopped, so that their memory can be watched."""
_VARIES = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?|'[^']*'")


@dataclass(frozen=True)
class Outcome:
    """What a soak found."""

    size: Size
    account: Account
    faults: Counter[str]
    fallen: list[str]
    """What ended that was not to end, and what did not end in order."""
    complaints: Counter[str]
    """Errors in the logs, by their text without numbers."""
    reconnections: list[Reconnection]
    memory_mb: dict[str, list[tuple[float, float]]]
    """Every second: (seconds, MB)."""
    held: dict[str, list[Held]]
    """At calm moments after the warm-up, see memory.py."""
    seconds: float


async def comes(true: Callable[[], bool], within_s: float) -> bool:
    """Whether it comes to hold in so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while not true():  # noqa: ASYNC110 - other processes' work
                await asyncio.sleep(0.1)
            return True
    return False


class Stage:
    """``outcome = await Stage(size, bundle, folder, say).run()``."""

    def __init__(self, size: Size, bundle: Path, folder: Path, say: Callable[[str], None]) -> None:
        """``folder`` is emptied; ``say`` gets a line now and then."""
        self._size = size
        self._bundle_path, self._bundle = bundle.resolve(), Bundle.load(bundle)
        self._folder = folder.resolve()
        self._say = say
        self._diary = Diary()
        self._samples: dict[str, list[tuple[float, float]]] = {}
        self._held: dict[str, list[Held]] = {name: [] for name in SPARED}
        self._servers: dict[str, Server] = {}
        self._links: list[Link] = []
        self._swarms: list[Swarm] = []
        self._agents: list[Agent] = []
        self._stack = AsyncExitStack()

    @property
    def _archive(self) -> Path:
        return self._folder / "archive" / "archive.db"

    @property
    def _processes(self) -> list[Process]:
        return [*self._servers.values(), *self._swarms, *self._agents]

    async def run(self) -> Outcome:
        """From the first process to the account."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        async with self._stack:
            await self._start()
            began_s = time.monotonic()
            lottery = await self._suffer()
            watched_s = time.monotonic()
            await self._end()
        warm_s = began_s + WARM_UP * 60 * self._size.minutes
        held = {name: [one for one in all_of_it if one.time_s >= warm_s] for name, all_of_it in self._held.items()}
        return Outcome(
            self._size,
            self._account(),
            lottery.counts,
            self._diary.fallen,
            self._complaints(),
            self._diary.reconnections(),
            self._samples,
            held,
            watched_s - began_s,
        )

    # ------------------------------------------------------------ the start

    async def _start(self) -> None:
        swarms, agents = devices(self._size)
        for name in (KILLED, STEADY):
            server = Server(name, self._folder / name, self._bundle_path, self._archive)
            self._servers[name] = server
            self._kill_at_the_end(server)
            await server.start()
        every = [one for swarm in swarms for one in swarm] + agents
        for at in range(self._size.links):
            await self._start_link(at, [one.name for one in every if one.link == at])
        for number, members in enumerate(swarms):
            self._swarms.append(self._swarm(number, members))
        for device in agents:
            self._agents.append(self._agent(device))
        for process in (*self._swarms, *self._agents):
            self._kill_at_the_end(process)
        self._admit()
        await asyncio.gather(*(process.start() for process in (*self._swarms, *self._agents)))
        await self._until(self._all_up, CONNECTED_S, "not all devices were connected at first")
        self._say(f"{len(every)} streams are open")

    def _all_up(self) -> bool:
        return self._diary.up == sum(len(swarm.devices) for swarm in self._swarms)

    def _kill_at_the_end(self, process: Process) -> None:
        async def end() -> None:
            if process.starts and process.status is None:
                await process.kill()
            process.footing.close()

        self._stack.push_async_callback(end)

    async def _start_link(self, at: int, names: Sequence[str]) -> None:
        trace = LinkTrace.constant(f"link{at}", RATE, delay_s=DELAY_S)
        ways = [
            await self._stack.enter_async_context(LinkProxy(self._servers[name].address, trace))
            for name in (KILLED, STEADY)
        ]
        self._links.append(Link(trace.name, tuple(ways), frozenset(names)))

    def _admit(self) -> None:
        """Give every device its identity at each of its servers."""
        for name, server in self._servers.items():
            admit(server.state, [one for one, to in self._newcomers() if to == name])

    def _newcomers(self) -> Iterator[tuple[Newcomer, str]]:
        swarms, _ = devices(self._size)
        of_swarms = [
            (one, swarm.footing.folder / one.name)
            for swarm, members in zip(self._swarms, swarms, strict=True)
            for one in members
        ]
        for device, state in [*of_swarms, *((agent.device, agent.footing.folder) for agent in self._agents)]:
            for server, address in zip(device.servers, self._addresses(device), strict=True):
                yield Newcomer(device.name, state, address), server

    def _addresses(self, device: Device) -> tuple[str, ...]:
        ways = dict(zip((KILLED, STEADY), self._links[device.link].ways, strict=True))
        return tuple(ways[name].address for name in device.servers)

    def _swarm(self, number: int, members: Sequence[Device]) -> Swarm:
        told = tuple(Member(one.name, one.kind, self._addresses(one), 0, ()) for one in members)
        name = f"swarm{number}"
        return Swarm(name, self._folder / name, Orders(str(self._bundle_path), "", self._size.fps, told), self._diary)

    def _agent(self, device: Device) -> Agent:
        pictures = self._folder / "pictures"
        if not pictures.exists():
            pictures.mkdir()
            for at, image in enumerate(make_pictures(self._bundle)):
                image.save(pictures / f"{at}.png")
        files = sorted(pictures.iterdir())
        count = round(self._size.minutes * 60 * self._size.fps) + 20
        named = {f"{device.name}-{at:06d}.png": files[at % len(files)] for at in range(count)}
        exit_ = self._bundle.manifest.exit
        assert exit_ is not None, "a soak needs a bundle with a local exit"
        agent = Agent(device, self._folder / device.name, self._bundle_path, exit_.task, named)
        agent.servers, agent.fps = self._addresses(device), self._size.fps
        return agent

    # ------------------------------------------------------------ the faults

    async def _suffer(self) -> Lottery:
        """Let things go wrong, and watch."""
        lottery = Lottery(
            self._processes, frozenset(SPARED), self._links, self._concerned, self._diary, self._size.seed
        )
        pids = {process.name: (lambda one=process: one.pid) for process in self._processes if process.name in SPARED}
        watching = [
            asyncio.create_task(memory.watch(pids, self._samples)),
            asyncio.create_task(self._supervise(lottery)),
            asyncio.create_task(self._tell()),
        ]
        try:
            end_s = time.monotonic() + self._size.minutes * 60
            while (left_s := end_s - time.monotonic()) > 0:
                await lottery.run(min(STRETCH_S, left_s), self._size.fault_every_s)
                if left_s > STRETCH_S:
                    await self._look_at_memory(lottery)
        finally:
            for task in watching:
                task.cancel()
            for result in await asyncio.gather(*watching, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result
        for process in self._processes:
            process.footing.mend()
        return lottery

    async def _look_at_memory(self, lottery: Lottery) -> None:
        """Once nothing is wrong: what the watched processes hold can be compared then.

        With the other server away, so that the steady one has every device that knows it, each time: how many of those
        that know both are at which is chance, and each is a tenth of a megabyte.
        """
        swarms, _ = devices(self._size)
        known = {one.name for swarm in swarms for one in swarm if STEADY in one.servers}
        async with lottery.without(self._servers[KILLED]):
            if not await comes(lambda: self._diary.has_up(known), CALM_S):
                self._say(f"not all {len(known)} devices came within {CALM_S:g} s; memory is not looked at")
                return
            await asyncio.sleep(REST_S)
            for process in self._processes:
                if process.name in SPARED:
                    found = self._held[process.name]
                    past_s = time.monotonic() - found[-1].time_s if found else 0.0
                    lost_mb = self._size.leak_mb_per_hour * past_s / 3600
                    if (held := await memory.held(process.footing, process.pid, lost_mb)) is not None:
                        found.append(held)
        last = {name: found[-1] for name, found in self._held.items() if found}
        told = (
            f"{name} {one.in_use_mb:.2f}, {one.mapped_mb:.0f}, {one.resident_mb:.1f}, {one.sockets}"
            for name, one in last.items()
        )
        self._say(f"calm, MB in use, mapped, resident, sockets: {'; '.join(told)}")

    def _concerned(self, process: Process) -> frozenset[str]:
        """Devices that lose their connection if it ends."""
        if isinstance(process, Swarm):
            return frozenset(process.devices)
        swarms, _ = devices(self._size)
        return frozenset(one.name for swarm in swarms for one in swarm if process.name in one.servers)

    async def _supervise(self, lottery: Lottery) -> None:
        """Start again what ended by itself, which it was not to do."""
        while True:
            for process in self._processes:
                if lottery.has(process) or process.status is None:  # one that is being started has none yet
                    continue
                if isinstance(process, Agent) and process.status in {0, 1} and not process.left:
                    continue
                self._diary.fallen.append(f"{process.name} ended with status {process.status}")
                with lottery.holding(process):
                    await process.start_again()
            await asyncio.sleep(1.0)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(30.0)
            taken = sum(self._diary.taken.values())
            self._say(f"{len(self._diary.troubles)} faults, {taken} pictures, {self._diary.up} devices connected")

    # ------------------------------------------------------------ the end

    async def _end(self) -> None:
        """No more faults, no more pictures: everything comes to its place."""
        self._say("all is mended; the frames come to their places")
        async with asyncio.timeout(END_S):
            await asyncio.gather(*map(self._finish_swarm, self._swarms), *map(self._finish_agent, self._agents))
        await self._until(lambda: not any(read(self._archive, Chosen(status="waiting"))), END_S, "frames wait")
        for server in self._servers.values():
            self._expect(server, await server.stop())

    async def _finish_swarm(self, swarm: Swarm) -> None:
        self._expect(swarm, await swarm.stop())

    async def _finish_agent(self, agent: Agent) -> None:
        if agent.status is None:
            await agent.stop()
        self._expect(agent, await agent.finish())

    def _expect(self, process: Process, status: int) -> None:
        if status:
            self._diary.fallen.append(f"{process.name} ended with status {status} at the end")

    async def _until(self, holds: Callable[[], bool], within_s: float, what: str) -> None:
        if not await comes(holds, within_s):
            self._diary.fallen.append(f"{what}, after {within_s:g} s")

    # ------------------------------------------------------------ the account

    def _account(self) -> Account:
        swarms, _ = devices(self._size)
        members = [one for swarm in swarms for one in swarm]
        names = {one.name: [f"{one.name}/{at + 1}" for at in range(self._diary.taken[one.name])] for one in members}
        taken = [name for each in names.values() for name in each]
        taken += [name for agent in self._agents for name in agent.pictures]
        keeps_all = {name for one in members if one.kind == "everything" for name in names[one.name]}
        rows = (
            Row(str(facts["device"]), str(facts["id"]), str(facts["name"]), str(facts["status"]))
            for facts, _ in read(self._archive, Chosen())
        )
        return account(taken, self._entries(), self._diary.kept, rows, keeps_all)

    def _entries(self) -> Iterator[Entry]:
        for process in (*self._swarms, *self._agents):
            for path in sorted(process.footing.folder.glob("*.jsonl")):
                for record in read_records(path):
                    yield Entry(record.name, record.source, record.status, record.detail)

    def _complaints(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for path in sorted(self._folder.glob("*/*.txt")):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                if "Traceback" in line or " ERROR " in line or '"level":"error"' in line.replace(" ", ""):
                    found[f"{path.parent.name.rstrip('0123456789')}: {_VARIES.sub('#', line)}"] += 1
        return found
