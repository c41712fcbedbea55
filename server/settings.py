"""What the edge server can be told; every key is a flag of ``headwater server`` as well."""

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from headwater.compression.errors import SettingsError
from headwater.compression.settings import between


@dataclass(frozen=True)
class ServerSettings:
    """What the edge server can be told."""

    section: ClassVar[str] = "server"

    bundle: tuple[Path, ...] = ()
    """Bundles to serve: directories or zips. SIGHUP reads them again."""
    listen: str = "127.0.0.1:50051"
    """Address of the gRPC service, host:port; port 0 takes a free one. Beyond loopback devices need certificates."""
    http: str | None = "127.0.0.1:8051"
    """Address of /metrics, /healthz and /readyz, host:port; empty for none."""
    tls: bool = False
    """Encrypt, and ask for certificates, on loopback too; beyond loopback that is always so. It needs a `state`."""
    enrol: str | None = None
    """Address where devices enrol, host:port; empty for the port after that of `listen`."""
    certificate_days: float = 365.0
    """How long a device's certificate is valid; it is renewed when two thirds of that have passed."""
    workers: int = 0
    """Batches that run at a time; 0 for one a core, of which `pin` leaves one out."""
    pin: bool = False
    """Give each worker a core of its own and keep everything else off it: for a machine that has nothing else to do."""
    threads: int = 1
    """Threads of one batch's inference; more makes a single frame quicker and the whole slower."""
    max_batch: int = 32
    """Frames of one batch at most."""
    max_wait_ms: float = 2.0
    """While another batch runs, how long a frame may wait for company; an idle server never waits."""
    queue: int = 256
    """Frames that may wait in all; one more is refused at once."""
    max_in_flight: int = 64
    """Frames of one device that may be unanswered."""
    max_streams: int = 2048
    """Devices that may be connected."""
    max_greetings_per_s: int = 50
    """Devices that may connect in a second; the others are given moments to come back. 0 for any."""
    max_device_streams: int = 4
    """Streams that one device may have open; one whose connection broke has two for a moment."""
    max_device_calls: int = 64
    """Calls of every kind that one device may have open."""
    max_device_requests_per_s: int = 1000
    """Frames and calls that one device may send in a second; 0 for any."""
    max_device_bytes_per_s: int = 8 << 20
    """Bytes of one device that are read in a second; what it sends beyond that is held back. 0 for any."""
    max_device_urgent_per_s: int = 20
    """Frames with a priority of one device that go before those of others in a second; 0 for any."""
    max_stream_bytes: int = 8 << 20
    """What one stream may hold of frames that wait, of answers that are unread and of answers that are remembered."""
    max_frame_bytes: int = 65536
    """The largest frame that is looked at; of a frame in parts, all parts together."""
    answer_partial_after_ms: int | None = None
    """A frame in parts that has no deadline is answered so long after its first part from what is there; empty for not
    before its last part has come."""
    archive: Path | None = None
    """File that stores the frames that devices kept; empty for taking none."""
    state: Path | None = None
    """Folder of what is offered to devices: bundles, and messages of federated rounds with their replies; and of who
    the devices are: the certificate authority and the register. Empty for neither."""
    state_mb: int = 16384
    """Megabytes that contents and replies in `state` may take; the oldest that are settled make room."""
    peers: tuple[str, ...] = ()
    """Servers, host:port, that devices are sent to when this one stops."""
    heartbeat_ms: int = 15000
    """A device that was silent for three times as long is taken for gone."""
    grace_s: float = 10.0
    """After SIGTERM, how long what is in flight may take."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is logged."""
    log_format: Literal["json", "text"] = "json"
    """json: an object a line; text: for reading at a terminal."""

    def __post_init__(self) -> None:
        """Check ranges, and that nothing but loopback is served without encryption unless it was asked for."""
        between("workers", self.workers, 0, 256)
        between("threads", self.threads, 1, 64)
        if self.pin and self.threads > 1:
            raise SettingsError(
                f"pin gives a worker one core, but threads is {self.threads}, and they would take turns on it. "
                "Leave threads at 1, or leave pin out."
            )
        between("max_batch", self.max_batch, 1, 1024)
        between("max_wait_ms", self.max_wait_ms, 0, 1000)
        between("queue", self.queue, 1, 1_000_000)
        between("max_in_flight", self.max_in_flight, 1, 65536)
        between("max_streams", self.max_streams, 1, 1_000_000)
        between("max_frame_bytes", self.max_frame_bytes, 64, 1 << 21)
        between("max_greetings_per_s", self.max_greetings_per_s, 0, 1_000_000)
        between("max_device_streams", self.max_device_streams, 2, 1024)
        between("max_device_calls", self.max_device_calls, 1, 65536)
        between("max_device_requests_per_s", self.max_device_requests_per_s, 0, 1_000_000)
        if self.max_device_bytes_per_s:
            between("max_device_bytes_per_s", self.max_device_bytes_per_s, 1 << 16, 1 << 40)
        between("max_device_urgent_per_s", self.max_device_urgent_per_s, 0, 1_000_000)
        between("max_stream_bytes", self.max_stream_bytes, self.max_frame_bytes, 1 << 40)
        if self.answer_partial_after_ms is not None:
            between("answer_partial_after_ms", self.answer_partial_after_ms, 1, 3_600_000)
        between("state_mb", self.state_mb, 1, 1 << 30)
        between("heartbeat_ms", self.heartbeat_ms, 10, 3_600_000)
        between("grace_s", self.grace_s, 0, 3600)
        between("certificate_days", self.certificate_days, 0.01, 3650)
        for key, address in (("listen", self.listen), ("http", self.http), ("enrol", self.enrol)):
            if address is not None:
                split_address(key, address)
        for peer in self.peers:
            split_address("peers", peer)
        if self.encrypted and self.state is None:
            why = "tls is set" if self.tls else f"listen is {self.listen}, which other machines can reach"
            raise SettingsError(
                f"{why}, so that devices have to prove who they are, but there is no folder for the authority that "
                "signs their certificates; give --state DIR, or listen on 127.0.0.1 without --tls."
            )

    @property
    def encrypted(self) -> bool:
        """Whether connections are encrypted and both ends prove who they are: wherever other machines can connect."""
        return self.tls or not is_loopback(split_address("listen", self.listen)[0])

    @property
    def enrol_address(self) -> str:
        """Where devices enrol: `enrol`, or beside `listen`."""
        host, port = split_address("listen", self.listen)
        return self.enrol or f"{host}:{port + 1 if port else 0}"

    @property
    def worker_count(self) -> int:
        """Batches that run at a time: `workers`, or one a core that this process may use (with `pin` all but one)."""
        return self.workers or max(1, len(os.sched_getaffinity(0)) - self.pin)

    @property
    def most_at_once(self) -> int:
        """Frames that are answered at a time where all workers have full batches, of what the queue can hold."""
        return max(self.max_batch, min(self.max_batch * self.worker_count, self.queue))


def split_address(key: str, address: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[host]:port``; raises :class:`SettingsError`."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise SettingsError(f"{key} is {address!r}; it must be host:port, such as 127.0.0.1:50051 or [::1]:50051.")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host; a name other than localhost counts as reachable by others."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
