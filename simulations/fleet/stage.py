"""Where real devices and a real server do what the twin is to foretell: processes, sockets, and a link between them.

    station (process) ──TCP──> LinkProxy (here) ──TCP──┐
    station (process) ──TCP──> LinkProxy (here) ──TCP──┴──> headwater server (process)

The stations of a run are connected over a good link, then the traces start at their time 0 and the pictures begin.
Processes stay for the runs that come after, so that only the first one waits for their start.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from headwater.device.record import FrameRecord, read_records
from headwater.simulations.fleet.station import Plan
from headwater.simulations.link import BUFFER_S, LEAST_BUFFER, MOST_BUFFER, LinkProxy
from headwater.simulations.processes import Child, ChildError
from headwater.simulations.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from headwater.simulations.fleet.traffic import Traffic

T = TypeVar("T")

PRELUDE = Trace.constant(1e7)
READY_S = 120.0
"""For a process to load, on a machine that is busy."""
HANGS_S = 120.0
"""Beyond a run's time, when it is called hanging."""


@dataclass(frozen=True)
class DeviceRun:
    """What a station left of a run."""

    records: tuple[FrameRecord, ...]
    """In the order of their pictures."""
    up_bytes: int
    """On the wire, from the first picture until nothing was on its way."""
    down_bytes: int
    connect_up_bytes: int
    """Before that, to open the connection."""
    connect_down_bytes: int
    close_up_bytes: int
    """After that, to close it."""
    close_down_bytes: int


@dataclass(frozen=True)
class Played:
    """A run of real devices."""

    traffic: Traffic
    devices: tuple[DeviceRun, ...]
    pictures: tuple[tuple[int, ...], ...]
    """Of each device, which picture each frame was of."""

    @property
    def records(self) -> list[FrameRecord]:
        """Of all devices."""
        return [record for device in self.devices for record in device.records]


def on_time(playing: Coroutine[Any, Any, T]) -> T:
    """As :func:`asyncio.run`, with timers that are right to a tenth of a millisecond.

    Those of epoll, the usual way to wait, are rounded up to whole ones, so that a link would be late by up to two each
    way, by more or less as its times happen to end.
    """
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(playing)


class Station:
    """A device process; see station.py for what is said."""

    def __init__(self, bundle: Path, log: Path) -> None:
        self._bundle, self._log = bundle, log
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "headwater.simulations.fleet.station", str(self._bundle)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={key: value for key, value in os.environ.items() if not key.startswith("HEADWATER_")},
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def tell(self, line: str) -> None:
        """Write a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def hear(self, word: str, timeout_s: float) -> None:
        """Wait for that word; raises :class:`ChildError`."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                said = (await self._process.stdout.readline()).decode().strip()
        except TimeoutError:
            said = "nothing"
        if said != word:
            words = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise ChildError(f"a station said {said!r} where {word!r} was due: {words}")


class Stage:
    """``async with Stage(bundle, folder, task, pictures) as stage: played = await stage.play(traffic)``."""

    def __init__(self, bundle: Path, folder: Path, task: str, pictures: Sequence[Path]) -> None:
        """Prepare one.

        Args:
            bundle: of server and stations.
            folder: for records and logs; made if it is not there.
            task: that is asked for.
            pictures: files that the frames are of.
        """
        self.ready_s = 0.0
        """What the server took to start."""
        self.station_ready_s: list[float] = []
        """What each station took, from its start to its first connection."""
        self._bundle, self._folder, self._task = bundle.resolve(), folder, task
        self._pictures = [path.resolve() for path in pictures]
        self._stack = AsyncExitStack()
        self._stations: list[Station] = []
        self._server = ""
        self._runs = 0

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "server.log").unlink(missing_ok=True)
        command = ["server", "--bundle", str(self._bundle), "--http", "", "--listen", "127.0.0.1:0"]
        begin_s = time.monotonic()
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(Child("server", command, self._folder / "server.log"))
            line = await server.line("headwater server ready:", READY_S)
            self._server = line.split("grpc=")[1].split()[0]
            self._stack = stack.pop_all()
        self.ready_s = time.monotonic() - begin_s
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def play(self, traffic: Traffic) -> Played:
        """Have real devices do it; raises :class:`ChildError`."""
        self._runs += 1
        pictures = [traffic.pictures(device, len(self._pictures)) for device in range(traffic.devices)]
        async with AsyncExitStack() as stack:
            proxies = [
                await stack.enter_async_context(self._proxy(traffic, device)) for device in range(traffic.devices)
            ]
            plans = [
                self._plan(traffic, device, proxies[device].address, pictures[device])
                for device in range(traffic.devices)
            ]
            stations = await self._connected(plans)
            opened = [_carried(proxy) for proxy in proxies]
            for device, (station, proxy) in enumerate(zip(stations, proxies, strict=True)):
                link = traffic.link_of(device)
                proxy.up.trace, proxy.down.trace = link.up, link.down
                station.tell(f"begin {proxy.up.origin_s}")
            patience_s = traffic.due_s(traffic.devices, traffic.frames) + traffic.landing_s + HANGS_S
            await asyncio.gather(*(station.hear("ran", patience_s) for station in stations))
            ran = [_carried(proxy) for proxy in proxies]
            for station, proxy in zip(stations, proxies, strict=True):
                proxy.up.trace = proxy.down.trace = PRELUDE
                station.tell("end")
            await asyncio.gather(*(station.hear("done", HANGS_S) for station in stations))
            closed = [_carried(proxy) for proxy in proxies]
        devices = [
            _device_run(Path(plan.records), *carried) for plan, *carried in zip(plans, opened, ran, closed, strict=True)
        ]
        return Played(traffic, tuple(devices), tuple(map(tuple, pictures)))

    async def _connected(self, plans: Sequence[Plan]) -> list[Station]:
        begin_s, fresh = time.monotonic(), len(self._stations)
        while len(self._stations) < len(plans):
            log = self._folder / f"station{len(self._stations)}.log"
            self._stations.append(await self._stack.enter_async_context(Station(self._bundle, log)))
        stations = self._stations[: len(plans)]
        for station, plan in zip(stations, plans, strict=True):
            station.tell(plan.to_json())
        for number, station in enumerate(stations):
            await station.hear("ready", READY_S)
            if number >= fresh:
                self.station_ready_s.append(time.monotonic() - begin_s)
        return stations

    def _proxy(self, traffic: Traffic, device: int) -> LinkProxy:
        link = traffic.link_of(device)
        buffer = int(min(max(link.up.mean_bits_per_s / 8 * BUFFER_S, LEAST_BUFFER), MOST_BUFFER))
        return LinkProxy(self._server, replace(link, up=PRELUDE, down=PRELUDE), buffer_bytes=buffer)

    def _plan(self, traffic: Traffic, device: int, address: str, pictures: Sequence[int]) -> Plan:
        records = self._folder / f"run{self._runs:03d}-{device}.jsonl"
        records.unlink(missing_ok=True)
        return Plan(
            server=address,
            name=f"station-{device}",
            task=self._task,
            pictures=tuple(str(self._pictures[number]) for number in pictures),
            due_s=tuple(traffic.due_s(device, number) for number in range(traffic.frames)),
            records=str(records.resolve()),
            deadline_ms=traffic.deadline_ms,
            settings={"fps": traffic.fps, **traffic.settings},
            sweep=traffic.sweep,
            landing_s=traffic.landing_s,
            exit=traffic.exit,
        )


def _carried(proxy: LinkProxy) -> tuple[int, int]:
    return proxy.up.bytes, proxy.down.bytes


def _device_run(file: Path, opened: tuple[int, int], ran: tuple[int, int], closed: tuple[int, int]) -> DeviceRun:
    records = sorted(read_records(file), key=lambda record: int(record.name))
    up, down, close_up, close_down = (*_less(ran, opened), *_less(closed, ran))
    return DeviceRun(tuple(records), up, down, *opened, close_up, close_down)


def _less(after: tuple[int, int], before: tuple[int, int]) -> tuple[int, int]:
    return after[0] - before[0], after[1] - before[1]
