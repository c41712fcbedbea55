"""What is simulated: devices, links, servers, and what happens to them, as frozen data read from a TOML file.

    name = "orchard"
    hours = 24

    [[devices]]
    name = "trees"
    count = 500
    profile = "pi-zero-2"                      # of simulations/fleet/boards, or a file
    link = "lte-m"                             # a ready one (radios.py), or one of [[links]] below
    settings = { deadline_ms = 2000 }          # what `headwater device` can be told
    arrivals = { interval_s = 60, day_from_h = 6, day_to_h = 20 }

    [[servers]]
    name = "shed"

Names carry their units. Unknown keys are errors that name the nearest known one; relative paths start from the file's
own folder. Times of the schedule are hours since the start, but for those of the day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from headwater.compression.errors import SettingsError
from headwater.compression.settings import between, nearest, read_file
from headwater.device.settings import DeviceSettings
from headwater.server.batch_queue import Limits
from headwater.server.rollout.canary import Rules
from headwater.simulations.fleet.radios import READY, Radio, table_of
from headwater.simulations.fleet.reading import from_folder, known, once, plain, read

FOLDER = Path(__file__).parent / "scenarios"
SETTINGS = frozenset(
    {
        *("deadline_ms", "level", "objective", "slack", "max_bytes_per_s", "radio", "compute_watts", "prefer"),
        *("tasks", "max_drop", "whole_model", "exit_score", "window", "width", "gain"),
    }
)
"""Of :class:`DeviceSettings`, what a simulated device heeds."""
MAX_DEVICES = 10_000_000


@dataclass(frozen=True)
class Arrivals:
    """When a device takes pictures."""

    kind: Literal["periodic", "poisson", "bursts"] = "periodic"
    """periodic: a camera's clock, each device with its own phase. poisson: events at random. bursts: such events, each
    a series of pictures."""
    interval_s: float = 10.0
    """Mean time between two pictures, or two bursts."""
    jitter: float = 0.0
    """Of periodic ones: how much of the interval a picture may be early or late."""
    burst_frames: int = 10
    burst_interval_s: float = 0.5
    day_from_h: float = 0.0
    """Time of day from which on it takes pictures at `interval_s`."""
    day_to_h: float = 24.0
    night_interval_s: float | None = None
    """Between two pictures, or bursts, for the rest of the day; None: there are none."""

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`SettingsError`."""
        between("interval_s", self.interval_s, 1e-3, 1e7)
        between("jitter", self.jitter, 0, 1)
        between("burst_frames", self.burst_frames, 1, 1_000_000)
        between("burst_interval_s", self.burst_interval_s, 1e-3, 1e5)
        between("day_from_h", self.day_from_h, 0, 24)
        between("day_to_h", self.day_to_h, 0, 24)
        if self.night_interval_s is not None:
            between("night_interval_s", self.night_interval_s, 1e-3, 1e7)


@dataclass(frozen=True)
class Times:
    """What the work on a device takes while nothing else runs there, ms."""

    head_ms: Mapping[float, float]
    """The head, by width."""
    prepare_ms: float = 1.0
    exit_ms: float = 0.5
    code_ms: float = 0.2
    whole_ms: float | None = None
    """The whole model; None where the device has no room for it."""
    spread: float = 0.05
    """Standard deviation of all these from picture to picture, relative."""


@dataclass(frozen=True)
class DeviceClass:
    """Devices that are alike."""

    name: str
    count: int
    link: str
    """Of [[links]], or a ready one."""
    profile: str = ""
    """Its figures by name, or a file of them: `headwater device profile` writes one."""
    times: Times | None = None
    """In place of the profile's."""
    calibration: Path | None = None
    """In place of both: a file of `headwater simulate calibrate`, whose frames these devices' times are drawn from."""
    settings: DeviceSettings = field(default_factory=DeviceSettings)
    """What the agent is told; the keys that matter here are :data:`SETTINGS`."""
    arrivals: Arrivals = Arrivals()
    servers: tuple[str, ...] = ()
    """That it may use; empty for all. As in the product, each device has an order of its own."""
    slow_share: float = 0.0
    """Share of the pictures during which the processor has other work."""
    slow_times: float = 2.0
    """How much longer the device takes then."""

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`SettingsError`."""
        between("count", self.count, 0, MAX_DEVICES)
        between("slow_share", self.slow_share, 0, 1)
        between("slow_times", self.slow_times, 1, 1000)
        if not self.profile and self.times is None and self.calibration is None:
            raise SettingsError(f"the devices {self.name} have neither a profile nor times nor a calibration")


@dataclass(frozen=True)
class Server:
    """A server, or several that are alike: of ``count`` 3, edge is edge-1, edge-2, edge-3."""

    name: str
    count: int = 1
    workers: int = 2
    """Batches that run at a time."""
    batch_ms: float = 2.0
    """What a batch takes, whatever its size."""
    frame_ms: float = 1.0
    """What each of its frames takes beside that."""
    spread: float = 0.1
    """Standard deviation of that, relative."""
    handling_ms: float = 0.5
    """Of a frame, outside its batch: reading, checking, answering."""
    calibration: Path | None = None
    """In place of all of these: a file of `headwater simulate calibrate`, for devices that have one too."""
    max_batch: int = 32
    max_wait_ms: float = 2.0
    queue: int = 256

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`SettingsError`."""
        between("count", self.count, 1, 100_000)
        between("workers", self.workers, 1, 10_000)
        between("batch_ms", self.batch_ms, 0, 1e6)
        between("frame_ms", self.frame_ms, 0, 1e6)
        between("spread", self.spread, 0, 1)
        between("handling_ms", self.handling_ms, 0, 1e6)
        between("max_batch", self.max_batch, 1, 1024)
        between("max_wait_ms", self.max_wait_ms, 0, 1000)
        between("queue", self.queue, 1, 1_000_000)

    @property
    def names(self) -> tuple[str, ...]:
        """Of each of them."""
        return (self.name,) if self.count == 1 else tuple(f"{self.name}-{n}" for n in range(1, self.count + 1))

    @property
    def limits(self) -> Limits:
        """Of the product's queue."""
        return Limits(self.queue, self.max_batch, self.max_wait_ms / 1e3, self.workers)


@dataclass(frozen=True)
class Outage:
    """A server is down."""

    server: str
    from_h: float
    hours: float


@dataclass(frozen=True)
class BlackOut:
    """A link carries nothing."""

    from_h: float
    minutes: float
    link: str = ""
    """Whose devices; empty for all."""


@dataclass(frozen=True)
class Round:
    """A federated round: bytes to and from the devices of each server, and their processors in between.

    Devices on LoRa take no part.
    """

    at_h: float
    every_h: float | None = None
    """Again so often; None for once."""
    share: float = 1.0
    """Of each server's devices."""
    down_mb: float = 1.0
    up_mb: float = 0.3
    train_s: float = 60.0
    slowdown: float = 1.3
    """How much longer pictures take on a device that trains."""
    classes: tuple[str, ...] = ()
    """Of devices; empty for all."""

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`SettingsError`."""
        between("share", self.share, 0, 1)
        between("slowdown", self.slowdown, 1, 1000)
        if self.every_h is not None:
            between("every_h", self.every_h, 1e-3, 1e6)


@dataclass(frozen=True)
class Rollout:
    """A bundle is published on every server, and goes to its devices by the product's rules; not to those on LoRa."""

    at_h: float
    mb: float = 0.4
    """That a device fetches: a difference, or a whole bundle."""
    rules: Rules = field(default_factory=Rules)
    agreement: float = 0.9
    """Share of the answers on which local exit and server agree, before."""
    confidence: float = 0.85
    """Mean confidence, before."""
    agreement_fall: float = 0.0
    """Points by which it is lower with the new bundle: to see that it is gone back from."""
    confidence_fall: float = 0.0
    failures: float = 0.0
    """Points of the frames that fail with the new bundle."""
    refuse: float = 0.0
    """Share of the devices that refuse it."""
    accuracy_gain: float = 0.0
    """Points of accuracy that it is better by."""
    report_s: float = 30.0
    """How often a device reports."""

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`SettingsError`."""
        for key in ("agreement", "confidence", "refuse"):
            between(key, getattr(self, key), 0, 1)
        between("failures", self.failures, 0, 100)
        between("report_s", self.report_s, 0.1, 3600)


@dataclass(frozen=True)
class Protocol:
    """What a frame takes on the wire beside its own bytes, and what a connection takes without frames."""

    up_bytes: int = 70
    """Of each frame: IP, TCP, HTTP/2, gRPC, protobuf, and the acknowledgement of its answer."""
    down_bytes: int = 90
    """Of each answer, all of it."""
    heartbeat_s: float | None = 15.0
    """How often a device says that it is there; None for never."""
    heartbeat_bytes: int = 100
    """Each way, with headers."""

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`SettingsError`."""
        between("up_bytes", self.up_bytes, 0, 10_000)
        between("down_bytes", self.down_bytes, 0, 10_000)
        between("heartbeat_bytes", self.heartbeat_bytes, 0, 10_000)
        if self.heartbeat_s is not None:
            between("heartbeat_s", self.heartbeat_s, 0.01, 86_400)


@dataclass(frozen=True)
class Scenario:
    """See the module's text; made by :meth:`load` or by hand."""

    name: str
    devices: tuple[DeviceClass, ...]
    servers: tuple[Server, ...]
    links: tuple[Radio, ...] = ()
    hours: float = 1.0
    seed: int = 0
    start_h: float = 0.0
    """Time of day at the start."""
    bundle: Path | None = None
    """Whose modes, sizes and accuracies count; None for the shipped one."""
    content_s: float = 30.0
    """Within about this time a picture is like the one before: so are its frame's size and the exit's confidence."""
    outages: tuple[Outage, ...] = ()
    black_outs: tuple[BlackOut, ...] = ()
    rounds: tuple[Round, ...] = ()
    rollouts: tuple[Rollout, ...] = ()
    protocol: Protocol = Protocol()

    def __post_init__(self) -> None:
        """Check that every name that is used is there; raises :class:`SettingsError`."""
        between("hours", self.hours, 1e-4, 24 * 366)
        between("start_h", self.start_h, 0, 24)
        between("content_s", self.content_s, 0, 1e6)
        if len(self.rollouts) > 1:
            raise SettingsError("a scenario has one roll-out at most; simulate the next one by itself")
        once("devices", [each.name for each in self.devices])
        once("links", [each.name for each in self.links])
        once("servers", list(self.server_names))
        for each in self.devices:
            self.radio(each)
            for server in each.servers:
                known(f"devices {each.name}: server", server, self.server_names)
        for outage in self.outages:
            known("outages: server", outage.server, self.server_names)
        for round_ in self.rounds:
            for name in round_.classes:
                known("rounds: class", name, [each.name for each in self.devices])

    @property
    def server_names(self) -> tuple[str, ...]:
        """Of every single server."""
        return tuple(name for server in self.servers for name in server.names)

    @property
    def device_count(self) -> int:
        """Of all classes."""
        return sum(each.count for each in self.devices)

    def radio(self, devices: DeviceClass) -> Radio:
        """The link of these devices; raises :class:`SettingsError`."""
        for radio in self.links:
            if radio.name == devices.link:
                return radio
        if devices.link not in READY:
            links = [*READY, *(radio.name for radio in self.links)]
            raise SettingsError(
                f"devices {devices.name}: there is no link {devices.link}; {nearest(devices.link, links)}"
            )
        return read(Radio, table_of(devices.link), f"link {devices.link}")

    def scaled(self, devices: int) -> Scenario:
        """The same with so many devices in all, each class keeping its share."""
        total, left, classes = self.device_count, devices, []
        for each in self.devices:
            count = round(left * each.count / total) if total else 0
            total, left = total - each.count, left - count
            classes.append(replace(each, count=count))
        return replace(self, devices=tuple(classes))

    def traced(self, folder: Path, factor: float = 1.0) -> Scenario:
        """The same with every link's rates from the recordings of a folder; LoRa stays what it is."""
        radios = {each.link: self.radio(each) for each in self.devices}
        links = tuple(
            replace(radio, levels=(), trace=folder, trace_factor=factor) if radio.lora is None else radio
            for radio in radios.values()
        )
        return replace(self, links=links)

    def plain(self) -> dict[str, Any]:
        """As tables, without what is at its default; :meth:`of` gives it back."""
        found: dict[str, Any] = plain(self)
        return found

    @classmethod
    def of(cls, tables: Mapping[str, Any], where: str = "scenario") -> Self:
        """Read from tables; raises :class:`SettingsError`."""
        tables = dict(tables)
        if isinstance(links := tables.get("links"), list):
            tables["links"] = [_with_ready(row) for row in links]
        devices = tables.get("devices")
        for row in devices if isinstance(devices, list) else []:
            if isinstance(row, Mapping) and "settings" in row:
                read(DeviceSettings, row["settings"], f"{where}: devices: settings", SETTINGS)
        return read(cls, tables, where)

    @classmethod
    def load(cls, name: str | Path) -> Self:
        """Read a file, or a ready scenario by its name; raises :class:`SettingsError`."""
        path = Path(name)
        if not path.is_file():
            path = FOLDER / f"{name}.toml"
        if not path.is_file():
            raise SettingsError(f"there is no scenario {name}: no such file, and {nearest(str(name), ready())}")
        scenario: Self = from_folder(cls.of(read_file(path), path.name), path.parent, DeviceSettings)
        return scenario


def ready() -> list[str]:
    """Names of the scenarios that come with headwater."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def _with_ready(row: object) -> object:
    """A link's table on top of the ready one that it names with ``like``."""
    if not isinstance(row, Mapping) or "like" not in row:
        return row
    like = table_of(str(row["like"]))
    if {"levels", "trace", "lora"} & set(row):
        like = {key: value for key, value in like.items() if key not in {"levels", "trace", "lora"}}
    return {**like, **{key: value for key, value in row.items() if key != "like"}}
