"""What a running server has for letting devices in: authority, register, TLS, and the listener where they enrol."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

import grpc.aio

from headwater.compression.errors import SettingsError, StorageError
from headwater.protos import access_pb2_grpc
from headwater.server.access.arrivals import Arrivals
from headwater.server.access.authority import FOLDER, Authority
from headwater.server.access.credentials import ServerCredentials
from headwater.server.access.enrolment import EnrolmentService
from headwater.server.access.guard import Guard
from headwater.server.access.limits import Allowances, DeviceLimits
from headwater.server.access.options import ONLY_PLAIN
from headwater.server.access.register import Register
from headwater.server.mail.doorbell import Doorbell, ring

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from headwater.server.access.denials import Denials

ENROL_PORT = "enrol_port"
FRAMES_PORT = "frames_port"
"""The facts in the register that tell `headwater server devices token` where devices enrol, and send frames."""
LOOK_S = 5.0
"""How often it is looked whether the register was changed although nobody rang."""
EXPIRY_S = 60.0
"""How often open calls are held against the register although it was not, because certificates expire by themselves;
and how often it is written down who was seen."""
PATIENCE_S = 0.5
"""How long a command may hold the register's lock; nothing else moves meanwhile, and who waits is refused after it."""
MOST_ENROLMENTS = 64
"""That run at a time."""
_LIMITS = DeviceLimits(requests_per_s=10, bytes_per_s=1 << 16, calls=4)
"""Of one connection: who comes to enrol has no other name yet."""
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 1 << 14),  # a secret, a signing request and a name have half a kilobyte
    ("grpc.max_connection_age_ms", 30_000),  # nobody stays
    ("grpc.max_connection_idle_ms", 10_000),
    ("grpc.server_handshake_timeout_ms", 20_000),  # six kilobytes take ten seconds at 5 kbit/s
    ("grpc.max_allowed_incoming_connections", 4 * MOST_ENROLMENTS),
    ("grpc.max_concurrent_streams", _LIMITS.calls),
    ("grpc.compression_enabled_algorithms_bitset", ONLY_PLAIN),
)
_log = logging.getLogger("headwater.server.access")


class Door(Protocol):
    """What has the open calls."""

    @property
    def present(self) -> Iterable[str]:
        """The devices that have a call open."""

    def review(self) -> None:
        """End the calls that may not go on; raises :class:`StorageError`."""


class Access:
    """Lets devices in, on the running event loop, until :meth:`stop`."""

    def __init__(self, state: Path, days: float, denials: Denials) -> None:
        """Open what is in the server's state, or begin it.

        Args:
            state: the server's folder.
            days: how long devices' certificates are valid.
            denials: where enrolments that are refused are counted.

        Raises:
            IdentityError: the authority's files are damaged or open to other users.
            StorageError: the register cannot be used.
        """
        self.authority = Authority.open(state)
        self.register = Register.open(state, PATIENCE_S)
        clock = asyncio.get_running_loop().time
        self.arrivals = Arrivals(clock)
        """On the main listener."""
        self.credentials = ServerCredentials(self.authority, self.arrivals.begin)
        self.days = days
        self._bell = Doorbell(state / FOLDER)
        self._looking: asyncio.Task[None] | None = None
        self._rang = asyncio.Event()
        self._denials = denials
        guard = Guard(Allowances(_LIMITS, 4 * MOST_ENROLMENTS, clock), denials, {})
        self._server = grpc.aio.server(interceptors=(guard,), options=_OPTIONS, maximum_concurrent_rpcs=MOST_ENROLMENTS)
        enrolment = EnrolmentService(self.authority, self.register, days, lambda: denials.count("enrolment"))
        access_pb2_grpc.add_EnrolmentServicer_to_server(enrolment, self._server)

    async def start(self, address: str, door: Door, frames_port: int) -> int:
        """Listen for enrolments; the port.

        ``frames_port`` is the main listener's, for who makes tokens to tell. ``door`` has the open calls: they are
        reviewed when a certificate may have ended, at once when a command changed the register, and now and then.
        Raises :class:`SettingsError` if the address cannot be bound.
        """
        try:
            port: int = self._server.add_secure_port(address, self.credentials.one_sided())
        except RuntimeError as error:
            raise SettingsError(
                f"devices would enrol at {address}, which cannot be bound: {error}; name another address with --enrol"
            ) from error
        await self._server.start()
        self.register.note(ENROL_PORT, str(port))
        self.register.note(FRAMES_PORT, str(frames_port))
        asyncio.get_running_loop().add_reader(self._bell.fileno(), self._heard)
        self._looking = asyncio.create_task(self._look(door), name="headwater-access")
        return port

    async def stop(self) -> None:
        """Listen no more, and close the register."""
        if self._looking is not None:
            asyncio.get_running_loop().remove_reader(self._bell.fileno())
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
            await self._server.stop(None)
            with _logged("nobody knows later when devices were seen last"):
                self.register.flush()
        self._bell.close()
        self.register.close()

    def count_arrivals(self) -> None:
        """Count the connections that ended in the handshake since this was asked last."""
        self._denials.note_silent(self.arrivals.failed())

    def _heard(self) -> None:
        if self._bell.heard():
            self._rang.set()

    async def _look(self, door: Door) -> None:
        loop = asyncio.get_running_loop()
        reviewed_s, version = -math.inf, -1
        while True:
            with _logged("open calls could not be held against the register"):
                before, version = version, self.register.version
                due = loop.time() >= reviewed_s + EXPIRY_S
                if version != before or self._rang.is_set() or due:
                    self._rang.clear()
                    door.review()
                if due:
                    reviewed_s = loop.time()
                    self.register.flush(door.present)
            self.count_arrivals()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._rang.wait()


@contextmanager
def _logged(what: str) -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        _log.error(what, extra={"error": str(error)})


def tell(state: Path) -> None:
    """Have a server of this state, if one runs, look at its register now."""
    ring(state / FOLDER)
