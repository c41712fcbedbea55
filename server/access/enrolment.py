"""The RPCs by which certificates are had: enrolment for a token, renewal for the certificate before."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import grpc

from headwater.compression.errors import DeniedError, HeadwaterError, IdentityError, StorageError
from headwater.protos import access_pb2 as pb
from headwater.protos import access_pb2_grpc
from headwater.server.access import tokens
from headwater.server.access.caller import caller_of
from headwater.server.access.register import Standing
from headwater.server.access.tokens import TokenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.server.access.access import Access
    from headwater.server.access.authority import Authority, Issued
    from headwater.server.access.caller import Caller, Context
    from headwater.server.access.register import Register

RENEW_AFTER = 2 / 3
"""The share of a certificate's life after which the device asks for the next one."""
_log = logging.getLogger("headwater.server.access")


class EnrolmentService(access_pb2_grpc.EnrolmentServicer):
    """The methods of ``headwater.v1.Enrolment``; on the event loop.

    Args:
        authority: signs.
        register: has the tokens, and takes the devices in.
        days: how long a certificate is valid.
        refused: called for every enrolment that is refused.
    """

    def __init__(
        self, authority: Authority, register: Register, days: float, refused: Callable[[], None] = lambda: None
    ) -> None:
        self._authority = authority
        self._register = register
        self._days = days
        self._refused = refused

    async def Authority(self, request: pb.AuthorityRequest, context: Context) -> pb.AuthorityReply:
        """The authority's certificate, for comparing with a token."""
        del request, context
        return pb.AuthorityReply(certificate=self._authority.pem)

    async def Enrol(self, request: pb.EnrolRequest, context: Context) -> pb.Certified:
        """Sign a request for a token."""
        peer = context.peer()
        try:
            issued = tokens.spend(
                self._register, self._authority, request.secret, request.signing_request, request.name, self._days
            )
        except HeadwaterError as error:
            reason = error.reason if isinstance(error, TokenError) else "request"
            self._refused()
            _log.warning("an enrolment was refused", extra={"reason": reason, "peer": peer})
            await context.abort(_code(error), str(error))
        _log.info("a device was enrolled", extra={"device": issued.device, "peer": peer})
        return certified(issued)


class IdentityService(access_pb2_grpc.IdentityServicer):
    """The methods of ``headwater.v1.Identity``; on the event loop.

    ``access`` is None where the server has no TLS.
    """

    def __init__(self, access: Access | None) -> None:
        self._access = access

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.Certified:
        """Sign a new certificate for the device that calls."""
        caller = caller_of(context)
        if caller is None or self._access is None:
            detail = "this connection has no TLS, so that there is no certificate to renew"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, detail)
        try:
            issued = self._renew(self._access, caller, request.signing_request)
        except HeadwaterError as error:
            await context.abort(_code(error), str(error))
        _log.info("a certificate was renewed", extra={"device": issued.device, "serial": issued.serial})
        return certified(issued)

    @staticmethod
    def _renew(access: Access, caller: Caller, request: bytes) -> Issued:
        access.register.admit(caller)  # it is in use now: what takes its place later does not end it before
        with access.register.change():  # nobody revokes it between the look and the entry
            member = access.register.look_up(caller)
            if member.standing is not Standing.IN_FORCE:
                raise DeniedError(f"the certificate of {member.name} is refused: {member.standing.value}")
            issued = access.authority.sign_device(request, member.name, access.days)
            access.register.add(issued)
        return issued


def certified(issued: Issued) -> pb.Certified:
    """What a device is told of its certificate."""
    renew = issued.issued + RENEW_AFTER * (issued.expires - issued.issued)
    return pb.Certified(name=issued.device, certificate=issued.pem, renew_unix_s=round(renew.timestamp()))


def _code(error: HeadwaterError) -> grpc.StatusCode:
    codes = {
        TokenError: grpc.StatusCode.UNAUTHENTICATED,
        DeniedError: grpc.StatusCode.UNAUTHENTICATED,
        IdentityError: grpc.StatusCode.INVALID_ARGUMENT,
        StorageError: grpc.StatusCode.UNAVAILABLE,
    }
    return codes[type(error)]
