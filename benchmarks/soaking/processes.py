"""The processes of a soak, as its conductor holds them: two servers, swarms of devices, and agents of their own.

All of it over mutual TLS; the servers' states and the devices' identities are on the disks that fail.

Each stands on a :class:`Footing`, and is started again after it ended, as a supervisor would: at once, and then every
two seconds while it cannot start, say because its disk cannot be written.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.soaking import memory
from benchmarks.soaking.footing import Footing
from benchmarks.soaking.plan import DEADLINE_MS, HEARTBEAT_MS, RETRY_S
from headwater.device.record import read_records
from headwater.simulations.processes import Child, ChildError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.soaking.diary import Diary
    from benchmarks.soaking.plan import Device, Orders

ROOT = Path(__file__).parents[2]
READY_S, END_S = 300.0, 60.0
AGAIN_S = 2.0
PIPE_BYTES = 1 << 20


class Process(ABC):
    """What faults can be done to."""

    def __init__(self, name: str, folder: Path, disk: Path | None = None) -> None:
        """``folder`` is for logs, ``disk`` for what faults are done to; ``folder/disk`` if not given."""
        self.name = name
        self.folder = folder
        folder.mkdir(parents=True)
        self.footing = Footing(disk or folder / "disk")
        self.env = self.footing.env | memory.ENV
        self.starts = 0

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    @abstractmethod
    def pid(self) -> int:
        """Of the one that runs, or ran last."""

    @property
    @abstractmethod
    def status(self) -> int | None:
        """Exit status; None while it runs."""

    @abstractmethod
    async def start(self) -> None:
        """Start it, and wait until it works."""

    @abstractmethod
    async def gone(self) -> int:
        """Wait for its end; the exit status."""

    async def start_again(self) -> None:
        """Until it runs."""
        while True:
            try:
                await self.start()
            except ChildError:
                await asyncio.sleep(AGAIN_S)
                continue
            return

    async def kill(self) -> None:
        self.send(signal.SIGKILL)
        await self.gone()

    def send(self, number: signal.Signals) -> None:
        if self.status is None:  # else the number may be another process's by now
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Server(Process):
    """``headwater server`` with an archive, on one port for its whole life."""

    def __init__(self, name: str, folder: Path, bundle: Path, archive: Path) -> None:
        super().__init__(name, folder, archive.parent)
        self.state = archive.parent / name
        self.address = "127.0.0.1:0"
        self._arguments = [
            *("server", "--bundle", str(bundle), "--http", "", "--log-level", "warning"),
            *("--archive", str(archive), "--heartbeat-ms", str(HEARTBEAT_MS)),
            *("--tls", "--state", str(self.state), "--enrol", "127.0.0.1:0"),
        ]
        self._child: Child

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def status(self) -> int | None:
        return self._child.status

    async def start(self) -> None:
        self.starts += 1
        output = self.folder / f"start{self.starts}.txt"
        arguments = [*self._arguments, "--listen", self.address]
        self._child = Child(self.name, arguments, output, self.env)
        await self._child.__aenter__()
        line = await self._child.line("headwater server ready:", READY_S)
        self.address = "127.0.0.1:" + line.split("grpc=")[1].split()[0].rsplit(":", 1)[1]

    async def gone(self) -> int:
        return await self._child.wait()

    async def stop(self) -> int:
        """In order; the exit status."""
        self._child.ask()
        async with asyncio.timeout(END_S):
            return await self._child.wait()


class Swarm(Process):
    """A process of many devices; what it says goes into the diary."""

    def __init__(self, name: str, folder: Path, orders: Orders, diary: Diary) -> None:
        super().__init__(name, folder)
        self._orders = replace(orders, folder=str(self.footing.folder))
        self.devices = [member.name for member in orders.members]
        self._diary = diary
        self._ready = asyncio.Event()
        self.all_done = asyncio.Event()
        self._process: asyncio.subprocess.Process
        self._reader: asyncio.Task[None]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        return self._process.returncode

    async def start(self) -> None:
        self.starts += 1
        self._ready.clear()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.soaking.swarm"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=os.environ | self.env,
                limit=PIPE_BYTES,
            )
        self._reader = asyncio.create_task(self._read())
        members = tuple(self._diary.resumed(member) for member in self._orders.members)
        self._tell(json.dumps(replace(self._orders, members=members).plain()))
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait([ready, self._reader], timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if not self._ready.is_set():
            self._diary.restless(self.devices)
            words = self.log.read_text(encoding="utf-8")[-2000:]
            raise ChildError(f"the {self.name} did not start (status {self.status}, reader {self._reader}): {words}")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(ConnectionError):
            self._process.stdin.write(line.encode() + b"\n")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            words = line.decode().split()
            if words == ["ready"]:
                self._ready.set()
                continue
            self._diary.hear(words)
            if words[0] == "done" and self._diary.done.issuperset(self.devices):
                self.all_done.set()

    async def gone(self) -> int:
        status = await self._process.wait()
        await self._reader  # what it said before its end is heard
        self._diary.restless(self.devices)
        return status

    async def stop(self) -> int:
        """No more pictures: every one that was taken gets its record, and the spools are emptied; the exit status."""
        self._tell("stop")
        return await self.gone()


class Agent(Process):
    """``headwater device``, which answers each picture of a folder once; started again, those that have no record."""

    def __init__(self, device: Device, folder: Path, bundle: Path, task: str, pictures: Mapping[str, Path]) -> None:
        super().__init__(device.name, folder)
        self.device = device
        self.pictures = pictures
        """File by name; all are to be answered by the end."""
        self.records = self.footing.folder / "records.jsonl"
        self.spool = self.footing.folder / "spool.db"
        self._arguments = [
            *("device", "--bundle", str(bundle), "--tasks", task, "--name", device.name),
            *("--deadline-ms", str(DEADLINE_MS), "--keep", "unanswered", "--retry-s", str(RETRY_S)),
            *("--records", str(self.records), "--spool", str(self.spool), "--state", str(self.footing.folder)),
        ]
        self.servers: tuple[str, ...] = ()
        """Addresses; set before it is started."""
        self.fps: float | None = None
        self._child: Child

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def status(self) -> int | None:
        return self._child.status

    @property
    def left(self) -> list[str]:
        """Names of the pictures that have no record."""
        found = {record.name for record in read_records(self.records)} if self.records.exists() else set()
        return [name for name in self.pictures if name not in found]

    async def start(self) -> None:
        self.starts += 1
        source = self.folder / f"pictures{self.starts}"
        source.mkdir()
        for name in self.left:
            (source / name).symlink_to(self.pictures[name])
        pace = () if self.fps is None else ("--fps", f"{self.fps:g}")
        words = [*self._arguments, "--server", ",".join(self.servers), "--source", str(source), *pace]
        self._child = Child(self.name, words, self.log, self.env)
        await self._child.__aenter__()

    async def gone(self) -> int:
        return await self._child.wait()

    async def stop(self) -> int:
        """In order; the exit status."""
        self._child.ask()
        async with asyncio.timeout(END_S):
            return await self._child.wait()

    async def finish(self) -> int:
        """Answer what is left, as fast as it goes; the exit status of the last run."""
        self.fps, status = None, 0
        while self.left:
            await self.start()
            status = await self.gone()
        return status
