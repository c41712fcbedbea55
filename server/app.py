"""The edge server as a process: loads bundles, listens, and stops without losing a frame.

start     bundles loaded and warmed -> listening -> health SERVING -> one line with the ports on stdout
SIGHUP    the bundles' paths are read again; a new one is served beside the one before
SIGTERM   health NOT_SERVING, /readyz 503 -> new work refused, every device told -> what is in flight is answered,
          devices leave -> exit; after `grace_s` whatever is still open is cut
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from headwater.compression.allocator import share_heaps
from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError, SettingsError
from headwater.protos import access_pb2, access_pb2_grpc, edge_pb2_grpc
from headwater.protos import edge_pb2 as pb
from headwater.server.access.access import Access
from headwater.server.access.denials import Denials
from headwater.server.access.enrolment import IdentityService
from headwater.server.access.guard import Guard
from headwater.server.access.options import make_room, most_bytes, server_options
from headwater.server.archive import Archive
from headwater.server.batch_queue import BatchQueue, Limits
from headwater.server.batcher import Batcher
from headwater.server.engine import Engine, Work
from headwater.server.http import HttpServer
from headwater.server.mail.post import Post
from headwater.server.metrics import Metrics
from headwater.server.placing import Placing
from headwater.server.registry import Registry, Served
from headwater.server.rollout.conductor import Conductor
from headwater.server.service import EdgeService
from headwater.server.settings import ServerSettings, split_address

SERVICE = pb.DESCRIPTOR.services_by_name["Edge"].full_name
IDENTITY = access_pb2.DESCRIPTOR.services_by_name["Identity"].full_name

_log = logging.getLogger("headwater.server")

SWITCH_INTERVAL_S = 0.0005
"""How long the event loop may keep the interpreter from a worker that comes back from onnxruntime, and the other way
round. Python's own 5 ms, met several times a batch, cost a tenth of the goodput under overload."""
_HEAPS = 2
"""Of the allocator, for all threads: one for the event loop's, mostly, and one for the others, which seldom meet."""
_CLOSING_S = 0.5
"""For the last statuses to leave, and for what only watches (health) to end."""


@dataclass(frozen=True)
class Addresses:
    """Where a started server listens, as host:port."""

    grpc: str
    http: str | None
    enrol: str | None
    """None without TLS."""


class EdgeServer:
    """The whole server on the running event loop, for a process (:func:`run`) or a test."""

    def __init__(
        self,
        settings: ServerSettings,
        registry: Registry,
        placing: Placing | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Prepare it; `clock` gives the monotonic seconds that devices' rates are measured by, if not the loop's."""
        self.settings = settings
        self.registry = registry
        self.metrics = Metrics()
        cores = placing.workers if placing else ()
        workers = len(cores) or settings.worker_count
        limits = Limits(settings.queue, settings.max_batch, settings.max_wait_ms / 1e3, workers)
        self.batcher: Batcher[Work, pb.ServerMessage] = Batcher(
            BatchQueue(limits), Engine(self.metrics.observe), self._batch_failed, cores
        )
        archive = None if settings.archive is None else Archive(settings.archive)
        post = None
        if settings.state is not None:
            post = Post(settings.state, settings.state_mb << 20, self.batcher, self.metrics)
        denials = Denials(self.metrics)
        self.access = _access(settings, denials)
        """Lets devices in; None without TLS."""
        self.service = EdgeService(registry, self.batcher, self.metrics, settings, archive, post, clock)
        who = (None, None) if self.access is None else (self.access.register, self.access.arrivals)
        self.guard = Guard(self.service.door.allowances, denials, most_bytes(settings), *who)
        self.ready = False
        self._health = health.aio.HealthServicer()
        self._http = HttpServer(self.metrics, lambda: self.ready)
        self._watch: asyncio.Task[None] | None = None
        self._changes: set[asyncio.Task[None]] = set()
        self._server = grpc.aio.server(interceptors=(self.guard,), options=server_options(settings))
        edge_pb2_grpc.add_EdgeServicer_to_server(self.service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        access_pb2_grpc.add_IdentityServicer_to_server(IdentityService(self.access), self._server)
        services = (SERVICE, IDENTITY, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(services, self._server)

    async def start(self) -> Addresses:
        """Listen and serve; raises :class:`SettingsError` if an address cannot be bound."""
        host, port = split_address("listen", self.settings.listen)
        try:
            bound = self._bind(_address(host, port))
        except RuntimeError as error:
            raise SettingsError(f"listen is {self.settings.listen}, which cannot be bound: {error}") from error
        http = await self._start_http()
        if self.service.keeper is not None:
            await self.service.keeper.start()
        if self.service.post is not None:
            self.service.post.start()
            await self._start_rollout(self.service.post)
        await self._server.start()
        enrol = None if self.access is None else await self._start_access(self.access, bound)
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        self._watch = asyncio.create_task(self.service.watch_for_silence())
        self.ready = True
        return Addresses(_address(host, bound), http, enrol)

    def _bind(self, address: str) -> int:
        if self.access is not None:
            return self._server.add_secure_port(address, self.access.credentials.mutual())
        _log.info("without TLS: only this machine can connect; for others, listen beyond loopback, with a state")
        return self._server.add_insecure_port(address)

    async def _start_access(self, access: Access, bound: int) -> str:
        host, port = split_address("enrol", self.settings.enrol_address)
        return _address(host, await access.start(_address(host, port), self.guard, bound))

    async def stop(self, grace_s: float | None = None) -> None:
        """Drain, then stop; what is still open after `grace_s` (the setting, if not given) is cut."""
        grace_s = self.settings.grace_s if grace_s is None else grace_s
        self.ready = False
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        self.service.drain(grace_s, self.settings.peers)
        try:
            async with asyncio.timeout(grace_s):
                await self.service.drained()
        except TimeoutError:
            _log.warning("the grace is over: what is still open is cut", extra={"grace_s": grace_s})
        await self._close()

    async def _close(self) -> None:
        self.service.hang_up("the server has stopped")
        await self._server.stop(_CLOSING_S)
        await self._http.stop()
        if self.access is not None:
            await self.access.stop()
        if self.service.keeper is not None:
            await self.service.keeper.stop()
        if self.service.rollout is not None:
            await self.service.rollout.stop()
        if self.service.post is not None:
            await self.service.post.stop()
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        await asyncio.to_thread(self.batcher.close)

    async def reload(self) -> None:
        """Read the bundles' paths again and serve what is new; a bundle that fails is logged, the others stay."""
        for path in self.settings.bundle:
            try:
                retired = await asyncio.to_thread(self._load, path)
            except BundleError as error:
                _log.error("a bundle was not reloaded", extra={"path": str(path), "error": str(error)})
                continue
            self._forget(retired)
        if self.service.keeper is not None:
            await self.service.keeper.bundles_changed()
        _log.info("bundles were read again", extra={"served": self.registry.listing()})

    def _load(self, path: Path) -> tuple[Served, ...]:
        return self.registry.add(Bundle.load(path))

    async def _start_rollout(self, post: Post) -> None:
        assert self.settings.state is not None, "there is no post without it"
        look, changed, metrics = post.offers.look, self._bundles_changed, self.metrics.registry
        rollout = Conductor(self.settings.state, post.mailbox, self.registry, look, changed, metrics)
        await rollout.start()
        self.service.rollout = rollout

    def _forget(self, retired: Sequence[Served]) -> None:
        for served in retired:
            self.batcher.queue.forget(served.id)

    def _bundles_changed(self, retired: Sequence[Served]) -> None:
        self._forget(retired)
        if self.service.keeper is not None:
            self._changes.add(task := asyncio.create_task(self.service.keeper.bundles_changed()))
            task.add_done_callback(self._changes.discard)

    async def _start_http(self) -> str | None:
        if self.settings.http is None:
            return None
        host, port = split_address("http", self.settings.http)
        try:
            return _address(host, await self._http.start(host, port))
        except OSError as error:
            raise SettingsError(f"http is {self.settings.http}, which cannot be bound: {error.strerror}") from error

    async def _set_health(self, status: int) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)

    def _batch_failed(self, error: BaseException) -> None:
        self.metrics.count_failure()
        _log.error("a batch failed", exc_info=error)


def _access(settings: ServerSettings, denials: Denials) -> Access | None:
    if not settings.encrypted:
        return None
    assert settings.state is not None, "settings are checked when they are made"
    return Access(settings.state, settings.certificate_days, denials)


def load(settings: ServerSettings) -> Registry:
    """Load and warm the bundles of the settings; raises :class:`BundleError` or :class:`SettingsError`."""
    if not settings.bundle:
        raise SettingsError("no bundle is set; name one with --bundle PATH (`headwater train` makes one)")
    bundles = [Bundle.load(path) for path in settings.bundle]
    # One batch as large as those of all workers together has onnxruntime take the memory that it will ever need, in
    # pieces that these fit into. Left to itself it takes more for hours, whenever large ones meet.
    return Registry(bundles, settings.threads, warm=(1, settings.most_at_once))


async def run(settings: ServerSettings, announce: Callable[[Addresses, Registry], None]) -> None:
    """Serve until SIGTERM or SIGINT; a second one does not wait for the grace.

    Args:
        settings: see :class:`ServerSettings`.
        announce: called once the server takes work.

    Raises:
        BundleError: if a bundle cannot be served.
        SettingsError: if an address cannot be bound.
    """
    share_heaps(_HEAPS)
    placing = Placing.of(settings.worker_count) if settings.pin else None
    if placing is not None:
        placing.keep_off()
    make_room(settings)
    server = EdgeServer(settings, load(settings), placing)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.create_task(server.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    addresses = await server.start()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()  # what is loaded stays: the collector need not look through it again and again
    _log.info("serving", extra={**vars(addresses), "bundles": server.registry.listing()})
    announce(addresses, server.registry)
    await stop.wait()
    stop.clear()
    _log.info("stopping", extra={"grace_s": settings.grace_s})
    await _first(server.stop(), stop.wait())
    _log.info("stopped", extra=vars(server.batcher.queue.counts))


async def _first(stopping: Coroutine[None, None, None], again: Coroutine[None, None, object]) -> None:
    """Stop in order unless a second signal comes."""
    tasks = [asyncio.create_task(stopping), asyncio.create_task(again)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
