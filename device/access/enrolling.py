"""``headwater device enroll``: how a device gets its first certificate for a token.

1. whatever certificate the server shows is taken, for one question: which authority is yours?
2. the answer has to have the public key that the token pins, else the device says no more
3. on a new connection the pinned authority has to vouch for the server; only now is the token's secret said
4. the certificate that comes back has to be for the key that was made here
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from cryptography import x509

from headwater.compression.enrolment import DEFAULT_PORT, Token, pin_of
from headwater.compression.errors import IdentityError, LinkError
from headwater.device.access.identity import Identity
from headwater.device.access.keys import check_certified, make_key, signing_request
from headwater.device.channel import open_channel, to_error
from headwater.protos import access_pb2 as pb
from headwater.protos.access_pb2_grpc import EnrolmentStub

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.device.access.identity import Identities

TIMEOUT_S = 20.0
ATTEMPTS = 3
"""A token whose answer was lost on the way is good for another try with the same key."""
_AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


@dataclass(frozen=True)
class _Place:
    """Where to enrol."""

    host: str
    """Without brackets."""
    port: int

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


async def enroll(identities: Identities, servers: Sequence[str], text: str, name: str) -> Identity:
    """Enrol the device; what was there for the same server, or for these addresses, is replaced.

    Args:
        identities: where the identity goes.
        servers: addresses of one server, host or host:port; all of them will be known by it.
        text: the token.
        name: what the device would like to be called.

    Returns:
        The identity, on the disk.

    Raises:
        IdentityError: the token is none, an address is that of the enrolment, the server is not the one that made the
            token, or it refuses the token or the name.
        LinkError: the server cannot be reached.
    """
    token = Token.read(text)
    addresses = tuple(map(with_port, servers))
    if own := [each for each in addresses if each.endswith(f":{token.port}")]:
        raise IdentityError(
            f"at {own[0]} devices enrol, which the token says by itself; give the address that frames will go to: the "
            f"server says it when it starts, as grpc=, and port {DEFAULT_PORT} is the usual one"
        )
    place = _Place(addresses[0].rpartition(":")[0].removeprefix("[").removesuffix("]"), token.port)
    authority = await _authority(place, token.pin)
    key = make_key()
    reply = await _enrol(
        place, authority, pb.EnrolRequest(secret=token.secret, signing_request=signing_request(key), name=name)
    )
    certificate = check_certified(reply.certificate, key, authority)
    identity = Identity(reply.name, addresses, float(reply.renew_unix_s), authority, certificate, key)
    identities.take_over(identity)
    return identity


def with_port(server: str) -> str:
    """An address with its port: ``edge`` is ``edge:50051``, ``[::1]`` is ``[::1]:50051``."""
    bare = server.endswith("]") or ":" not in server
    return f"{server}:{DEFAULT_PORT}" if bare else server


async def _authority(place: _Place, pin: bytes) -> str:
    """The certificate of the authority that the token pins; raises :class:`IdentityError` if the server has another."""
    try:
        shown = await asyncio.to_thread(ssl.get_server_certificate, (place.host, place.port), timeout=TIMEOUT_S)
    except (OSError, ValueError) as error:
        raise LinkError(
            f"nobody enrols at {place.address} ({error}); is the server running with TLS, and can this port be reached?"
        ) from error
    async with open_channel(place.address, (shown.encode(), None, None)) as channel:
        try:
            reply = await EnrolmentStub(channel).Authority(pb.AuthorityRequest(), timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise to_error(error, place.address) from error
    try:
        found = pin_of(x509.load_pem_x509_certificate(reply.certificate))
    except ValueError as error:
        raise IdentityError(f"{place.address} has no certificate authority: {error}") from error
    if found != pin:
        raise IdentityError(
            f"the server at {place.address} is not the one that made this token: its authority is {found.hex()[:16]}, "
            f"the token's {pin.hex()[:16]}; the token was not shown to it. Check the address, and who answers there"
        )
    return reply.certificate.decode()


async def _enrol(place: _Place, authority: str, request: pb.EnrolRequest) -> pb.Certified:
    attempt = 1
    while True:
        try:
            async with open_channel(place.address, (authority.encode(), None, None)) as channel:
                reply: pb.Certified = await EnrolmentStub(channel).Enrol(request, timeout=TIMEOUT_S)
                return reply
        except grpc.aio.AioRpcError as error:
            if error.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT}:
                raise IdentityError(f"{place.address} did not enrol the device: {error.details()}") from error
            if error.code() not in _AGAIN or attempt == ATTEMPTS:
                raise to_error(error, place.address) from error
        attempt += 1
