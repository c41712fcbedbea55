"""Everything that runs: a server, the devices, and the link of each between them, all on real sockets.

    device (process) ──TCP──> LinkProxy (here) ──TCP──> server (process), or a JPEG server (process)

The devices of a wave run side by side, each on a link of its own; they are started once and take one run after another.
A wave begins when all are connected: until then every link is a good one, then its trace starts at its time 0, the
first picture is due :data:`LEAD_S` later, and those of different devices are spread over the time between two pictures.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks.deadlines.device import Plan
from headwater.device.record import FrameRecord, read_records
from headwater.simulations.link import BUFFER_S, LEAST_BUFFER, MOST_BUFFER, LinkProxy
from headwater.simulations.processes import Child
from headwater.simulations.trace import LinkTrace, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from headwater.simulations.samples import Sample

ROOT = Path(__file__).parents[2]
LEAD_S = 0.25
PRELUDE = Trace.constant(5e6)
READY_S = 120.0
"""For a process to load, on a machine that is busy."""
HANGS_S = 60.0
"""Beyond the last frame's deadline, when a run is called hanging."""


@dataclass(frozen=True)
class Contender:
    """A row of the table."""

    name: str
    kind: str
    """The device's name for it; see :class:`benchmarks.deadlines.device.Plan`."""
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One run: a contender on a link for a while."""

    contender: Contender
    link: LinkTrace
    samples: Sequence[Sample]
    """The picture of each frame."""
    deadline_ms: int | None
    fps: float
    phase_s: float = 0.0
    """How much later than the wave its first picture is taken."""

    def due_s(self, number: int) -> float:
        """When a frame's picture is taken, by the link's time."""
        return LEAD_S + self.phase_s + number / self.fps


@dataclass(frozen=True)
class Ran:
    """What a run left."""

    records: dict[int, FrameRecord]
    """By the frame's number; a frame that has none was never heard of again."""
    up_bytes: int
    """On the wire, from begin to end."""
    down_bytes: int


class Worker:
    """A device process."""

    def __init__(self, bundle: Path, log: Path) -> None:
        self._bundle, self._log = bundle, log
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.deadlines.device", str(self._bundle)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Write a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def hear(self, word: str, timeout_s: float) -> None:
        """Wait for that word."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            line = b"nothing"
        said = line.decode().strip()
        assert said == word, f"a device said {said!r} where {word!r} was due: {self._log.read_text()[-2000:]}"


class Server:
    """``headwater server`` on one port for as long as the block lasts, across kills."""

    def __init__(self, bundle: Path, folder: Path, *arguments: str) -> None:
        """``arguments`` come after those that every server of the benchmark has."""
        self.port = 0
        self._command = ("server", "--bundle", str(bundle), "--http", "", "--log-level", "warning", *arguments)
        self._folder = folder
        self._starts = 0
        self._child: Child

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._child.pid

    async def start(self) -> None:
        """Start it, and wait until it takes work."""
        self._starts += 1
        log = self._folder / f"server-{self._starts}.log"
        log.unlink(missing_ok=True)
        self._child = Child("server", [*self._command, "--listen", self.address], log)
        await self._child.__aenter__()
        line = await self._child.line("headwater server ready:", READY_S)
        self.port = int(line.split("grpc=")[1].split()[0].rsplit(":", 1)[1])

    async def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        os.killpg(self._child.pid, signal.SIGKILL)
        await self._child.wait()

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._child.stop()


class Rig:
    """``async with Rig(bundle, folder, jobs) as rig: results = await rig.wave([Job(...), ...])``."""

    def __init__(self, bundle: Path, task: str, folder: Path, jobs: int, qualities: Collection[int] = ()) -> None:
        """Run at most `jobs` devices side by side, each asking for a task; with a JPEG server for each quality."""
        self.jobs = jobs
        self._bundle, self._task, self._folder, self._qualities = bundle, task, folder, qualities
        self._stack = AsyncExitStack()
        self._workers: list[Worker] = []
        self._jpeg: dict[int, str] = {}
        self._count = 0
        self.server: Server

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        async with AsyncExitStack() as stack:
            self.server = await stack.enter_async_context(Server(self._bundle, self._folder))
            for quality in self._qualities:
                self._jpeg[quality] = await self._start_jpeg(quality, stack)
            self._inner = await stack.enter_async_context(AsyncExitStack())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def all(self, jobs: Sequence[Job], on_done: Callable[[int], object]) -> list[Ran]:
        """Do every job, as many at a time as may be; the results in the order of the jobs.

        ``on_done`` is told after each wave how many more are done.
        """
        ran: list[Ran] = []
        for start in range(0, len(jobs), self.jobs):
            wave = await self.wave(jobs[start : start + self.jobs])
            on_done(len(wave))
            ran += wave
        return ran

    async def wave(self, jobs: Sequence[Job], on_begin: Callable[[], None] = lambda: None) -> list[Ran]:
        """Do these jobs side by side; `on_begin` is called when the traces start."""
        workers = [await self.worker(at) for at in range(len(jobs))]
        async with AsyncExitStack() as stack:
            proxies = [await stack.enter_async_context(self._proxy(job)) for job in jobs]
            files = [self._fresh() for _ in jobs]
            for worker, job, proxy, file in zip(workers, jobs, proxies, files, strict=True):
                worker.tell(self._plan(job, proxy.address, file).to_json())
            await asyncio.gather(*(worker.hear("ready", READY_S) for worker in workers))
            before = [(proxy.up.bytes, proxy.down.bytes) for proxy in proxies]
            for worker, job, proxy in zip(workers, jobs, proxies, strict=True):
                proxy.up.trace, proxy.down.trace = job.link.up, job.link.down
                worker.tell(f"begin {proxy.up.origin_s + job.due_s(0)}")
            on_begin()
            longest_s = max(job.due_s(len(job.samples)) + (job.deadline_ms or 0) / 1e3 for job in jobs)
            await asyncio.gather(*(worker.hear("done", longest_s + HANGS_S) for worker in workers))
            carried = [(proxy.up.bytes, proxy.down.bytes) for proxy in proxies]
        return [
            Ran({int(record.name): record for record in read_records(file)}, end[0] - begin[0], end[1] - begin[1])
            for file, begin, end in zip(files, before, carried, strict=True)
        ]

    async def worker(self, at: int) -> Worker:
        """A device by its number."""
        while len(self._workers) <= at:
            log = self._folder / f"device{len(self._workers)}.log"
            self._workers.append(await self._inner.enter_async_context(Worker(self._bundle, log)))
        return self._workers[at]

    def _proxy(self, job: Job) -> LinkProxy:
        quality = job.contender.options.get("quality")
        server = self.server.address if quality is None else self._jpeg[quality]
        buffer = int(min(max(job.link.up.mean_bits_per_s / 8 * BUFFER_S, LEAST_BUFFER), MOST_BUFFER))
        prelude = LinkTrace(job.link.name, PRELUDE, PRELUDE, job.link.up_delay_s, job.link.down_delay_s)
        return LinkProxy(server, prelude, buffer_bytes=buffer)

    def _plan(self, job: Job, address: str, file: Path) -> Plan:
        return Plan(
            job.contender.kind,
            address,
            tuple(str(sample.path.resolve()) for sample in job.samples),
            tuple(sample.label for sample in job.samples),
            self._task,
            job.deadline_ms,
            job.fps,
            str(file.resolve()),
            job.contender.options,
            job.contender.settings,
        )

    def _fresh(self) -> Path:
        self._count += 1
        file = self._folder / f"run{self._count:04d}.jsonl"
        file.unlink(missing_ok=True)
        return file

    async def _start_jpeg(self, quality: int, stack: AsyncExitStack) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.deadlines.jpeg", str(self._bundle), str(quality)),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        stack.push_async_callback(process.wait)
        stack.callback(process.kill)
        assert process.stdout is not None
        async with asyncio.timeout(READY_S):
            return f"127.0.0.1:{int(await process.stdout.readline())}"
