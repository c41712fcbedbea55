"""The whole of headwater on one machine: a server and a device on each of four links, all processes of their own.

    device (process) ──TCP──> LinkProxy: 5 kbit/s ──TCP──┐
    device (process) ──TCP──> LinkProxy: 30 kbit/s ──TCP─┤
    device (process) ──TCP──> LinkProxy: 300 kbit/s ─TCP─┼──> server (process)
    device (process) ──TCP──> LinkProxy: 20 Mbit/s ──TCP─┘

The devices are ``headwater device`` and the server is ``headwater server``, as anybody would start them; the proxies
live in this process. Every device gets the same pictures in the same order, a slower one fewer of them. What they
measure they write as JSON lines, which are read here as they come. When they are done, two more devices play the last
act (last_act.py): they learn, and the bundle is changed for a better one under their frames.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.compression.bundle import Bundle
from headwater.compression.errors import SettingsError
from headwater.simulations.demo.act import Act, lay_out, why_not
from headwater.simulations.demo.last_act import LastAct, state_of
from headwater.simulations.demo.station import Device, Station, flags, fresh, start
from headwater.simulations.demo.tally import Tally
from headwater.simulations.processes import Child, ChildError
from headwater.simulations.samples import Sample, take_samples
from headwater.simulations.trace import LinkTrace, Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READY_S = 60.0
"""For the server to load its bundle, on a machine that is busy."""
REFRESH_S = 0.25
LATE_S = 30.0
"""A device that is not done so long after its time is stopped, and its row says so."""


_GAP = Trace.steps([(16, 300_000), (4, 0), (3600, 300_000)])
STATIONS = (
    Station("LoRa-like, 5 kbit/s", LinkTrace.constant("lora", 5_000, delay_s=0.1), 3),
    Station("NB-IoT-like, 30 kbit/s", LinkTrace.constant("nb-iot", 30_000, delay_s=0.2), 6),
    Station("LTE-M-like, gone for 4 s", LinkTrace("lte-m", _GAP, _GAP, 0.05, 0.05), 10, deadline_ms=600),
    Station("Wi-Fi, 20 Mbit/s", LinkTrace.constant("wifi", 20_000_000, delay_s=0.002), 15),
)


@dataclass(frozen=True)
class DemoOptions:
    """What a demo can be told."""

    bundle: Path
    source: str = "solar"
    """Data set whose test pictures are sent: solar, digits or a folder with a sub-folder a class."""
    out: Path = Path("out/demo")
    seconds: float = 28.0
    """How long pictures are taken."""
    codec_pictures: int = 120
    """Pictures that the image codecs are scored on."""
    port: int = 0
    """Of the server; 0 takes a free one."""
    seed: int = 0
    """Of the pictures' order."""
    stations: Sequence[Station] = STATIONS
    learning: bool = True
    """Whether there is a last act, where there can be one."""

    @property
    def settings_file(self) -> Path:
        """An empty one, so that a demo is the same everywhere."""
        return self.out / "no-settings.toml"

    def count(self, station: Station) -> int:
        """Pictures that a station sends, if the data set has as many."""
        return max(round(station.fps * self.seconds), 1)


@dataclass
class Run:
    """What a demo measured."""

    options: DemoOptions
    bundle: Bundle
    samples: list[Sample]
    tallies: list[Tally]
    seconds: float = 0.0
    """From the first device's start to the last one's end, without the last act."""
    act: Act | None = None
    """The last act, where there is one."""
    no_act: str = ""
    """Why there is none."""

    def expected(self, station: Station) -> int:
        """Pictures that a station sends."""
        return min(self.options.count(station), len(self.samples))


def prepare(options: DemoOptions) -> Run:
    """Load the bundle and write the pictures; raises :class:`BundleError` or :class:`DataError`."""
    bundle = Bundle.load(options.bundle)
    task = bundle.manifest.tasks[0]
    count = max(*(options.count(station) for station in options.stations), options.codec_pictures)
    samples = take_samples(options.source, task, count, options.out / "pictures", options.seed)
    by_name = {sample.path.name: sample for sample in samples}
    tallies = [Tally(station.link, station.title, station.fps, task.name, by_name) for station in options.stations]
    run = Run(options, bundle, samples, tallies, no_act=why_not(bundle) if options.learning else "--no-learning")
    if not run.no_act:
        run.act = lay_out(bundle, options.source, samples, options.out / "learning")
        run.no_act = "" if run.act else f"{options.source} has too few pictures for two devices to learn from"
    return run


async def measure(run: Run, show: Callable[[Run], None] = lambda _: None) -> None:
    """Start everything, wait until every device is done, end everything; `run` fills as it goes.

    `show` is called a few times a second. SIGTERM cancels it, and with it the processes end.

    Raises:
        ChildError: the server or a device ended before its time.
        SettingsError: a port is taken.
    """
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        async with AsyncExitStack() as stack:
            await _measure(run, show, stack)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _measure(run: Run, show: Callable[[Run], None], stack: AsyncExitStack) -> None:
    options = run.options
    _check_port(options.port)
    options.settings_file.write_text("# so that a demo is the same everywhere\n", encoding="utf-8")
    server = await stack.enter_async_context(Child("server", _server_arguments(run), fresh(options.out, "server.log")))
    show(run)
    address = (await server.line("headwater server ready:", READY_S)).split("grpc=")[1].split()[0]
    await _first_act(run, server, address, lambda: show(run), stack)
    if run.act is not None:
        await LastAct(run.act, options, server, lambda: show(run)).play(run.bundle, address, stack)
    show(run)


async def _first_act(run: Run, server: Child, address: str, look: Callable[[], None], stack: AsyncExitStack) -> None:
    devices = [await _start(station, tally, address, run, stack) for station, tally in _pairs(run)]
    stack.callback(_ask_all, devices)
    begin = time.monotonic()
    while any(device.child.status is None for device in devices):
        look()
        await asyncio.sleep(REFRESH_S)
        run.seconds = time.monotonic() - begin
        for device in devices:
            device.read()
        if server.status is not None:
            raise ChildError(f"the server ended with status {server.status}: {server.last_words()}")
        if run.seconds > run.options.seconds + LATE_S:
            await _clip(devices)
    for station, device in zip(run.options.stations, devices, strict=True):
        device.read()
        device.check(run.expected(station))


async def _start(station: Station, tally: Tally, server: str, run: Run, stack: AsyncExitStack) -> Device:
    options = run.options
    arguments = {
        "bundle": options.bundle,
        "source": options.out / "pictures",
        "fps": station.fps,
        "count": run.expected(station),
        "config": options.settings_file,
    }
    if station.deadline_ms is not None and _answers_itself(run.bundle):
        arguments["deadline-ms"] = station.deadline_ms
    return await start(tally, server, options.out, arguments, stack)


def _answers_itself(bundle: Bundle) -> bool:
    """Whether the local exit can answer all that the devices ask for."""
    manifest = bundle.manifest
    return manifest.exit is not None and [manifest.exit.task] == [task.name for task in manifest.tasks if task.labels]


async def _clip(devices: Sequence[Device]) -> None:
    """Stop the devices that should have been done long ago."""
    for device in devices:
        if device.child.status is None:
            device.tally.note = f"stopped: not done {LATE_S:g} s after its time"
            await device.child.stop()


def _ask_all(devices: Sequence[Device]) -> None:
    """Ask all devices to end before the first is waited for."""
    for device in devices:
        device.child.ask()


def _check_port(port: int) -> None:
    """Say that a port is taken in fewer words than gRPC would; raises :class:`SettingsError`."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            raise SettingsError(
                f"the server cannot listen on 127.0.0.1:{port}: {error.strerror}; give another --port, or 0 for any"
            ) from error


def _server_arguments(run: Run) -> list[str]:
    options = run.options
    settings = {
        "bundle": options.bundle,
        "listen": f"127.0.0.1:{options.port}",
        "http": "",
        "config": options.settings_file,
    }
    return ["server", *flags(settings | ({} if run.act is None else {"state": state_of(options)}))]


def _pairs(run: Run) -> list[tuple[Station, Tally]]:
    return list(zip(run.options.stations, run.tallies, strict=True))
