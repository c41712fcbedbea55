"""How certificates are renewed while the agent runs: in time, with a new key, and without losing a frame.

When two thirds of a certificate's life have passed the device makes another key and has it signed, on the connection
that it has. The new pair is on the disk before it is used, and used on the next connection, which is opened at once:
the server ends the old certificate with that. What fails is tried again, for a third of the certificate's life.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import grpc.aio

from headwater.compression.errors import HeadwaterError
from headwater.device.channel import to_error
from headwater.protos import access_pb2 as pb
from headwater.protos.access_pb2_grpc import IdentityStub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwater.device.access.identity import Identities, Identity
    from headwater.device.link import Link

LOOK_S = 600.0
"""How often the clock is looked at, which may be set meanwhile; and how long after a failure it is tried again."""
TIMEOUT_S = 60.0

_log = logging.getLogger(__name__)


async def renew(channel: grpc.aio.Channel, identities: Identities, identity: Identity, server: str) -> Identity:
    """Have a new key signed, on a channel that shows the certificate so far; the new identity, on the disk.

    Raises :class:`LinkError`, :class:`IdentityError`.
    """
    from headwater.device.access.keys import check_certified, make_key, signing_request  # noqa: PLC0415 - once a year

    key = make_key()
    try:
        request = pb.RenewRequest(signing_request=signing_request(key))
        reply = await IdentityStub(channel).Renew(request, timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        raise to_error(error, server) from error
    certificate = check_certified(reply.certificate, key, identity.authority)
    new = replace(identity, device=reply.name, renew=float(reply.renew_unix_s), certificate=certificate, key=key)
    identities.save(new)
    return new


async def renew_if_due(channel: grpc.aio.Channel, identities: Identities, server: str, now: float) -> bool:
    """Renew what is shown to a server if it is time, and no other process is about it; whether it was.

    Raises :class:`LinkError`, :class:`IdentityError`.
    """
    with identities.alone() as mine:
        identity = identities.of(server)
        if not mine or identity is None or now < identity.renew:
            return False
        new = await renew(channel, identities, identity, server)
    _log.info("the certificate of %s was renewed; it is good until %s", new.device, f"{new.expires:%Y-%m-%d}")
    return True


class Renewal:
    """Renews in time what the link shows; runs beside it."""

    def __init__(
        self,
        identities: Identities,
        link: Link,
        *,
        clock: Callable[[], float] = time.time,
        look_s: float = LOOK_S,
        rng: random.Random | None = None,
    ) -> None:
        self._identities = identities
        self._link = link
        self._clock = clock
        self._look_s = look_s
        self._rng = rng or random.SystemRandom()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._link.connected.wait()
            await self._look()
            await asyncio.sleep(self._look_s * self._rng.uniform(0.5, 1.0))  # a fleet of one day does not come at once

    async def _look(self) -> None:
        channel, server = self._link.channel, self._link.server
        if channel is None:
            return
        try:
            if await renew_if_due(channel, self._identities, server, self._clock()):
                self._link.reconnect()
        except HeadwaterError as error:
            _log.warning("the certificate could not be renewed yet: %s", error)


async def renew_what_is_due(identities: Identities, servers: Iterable[str]) -> None:
    """Renew what is due at these servers, for who keeps no connection; what fails is logged, and due the next time."""
    for server in servers:
        try:
            identity = identities.of(server)
            if identity is not None and time.time() >= identity.renew:
                async with identity.channel(server) as channel:
                    await renew_if_due(channel, identities, server, time.time())
        except HeadwaterError as error:
            _log.warning("the certificate could not be renewed yet: %s", error)
