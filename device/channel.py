"""gRPC at the device: how a channel is made, what its errors mean, and the unary calls.

This is the one place where gRPC's errors become headwater's.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

from headwater.compression.enrolment import SERVER_NAME
from headwater.compression.errors import (
    DeadlineError,
    DeniedError,
    FrameError,
    HeadwaterError,
    IdentityError,
    LinkError,
    RefusedError,
    UnknownBundleError,
)
from headwater.protos import edge_pb2 as pb
from headwater.protos.edge_pb2_grpc import EdgeStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from typing import TypeAlias

    from headwater.protos.edge_pb2_grpc import EdgeAsyncStub

    Call: TypeAlias = grpc.aio.StreamStreamCall[pb.DeviceMessage, pb.ServerMessage]
    Opener: TypeAlias = Callable[[str], grpc.aio.Channel]

T = TypeVar("T")

OPTIONS: tuple[tuple[str, int], ...] = (
    # Every attempt to connect gets a channel of its own, and this pool with it: gRPC's global one would remember a
    # failed address, and its pauses would come on top of the link's.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    # A peer that is gone without a word (a pulled cable, a lost NAT entry) is noticed in 40 s at most.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Measuring the bandwidth by pings costs 34 bytes for each message received: as much as a small frame.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_receive_message_length", (1 << 21) + (1 << 16)),  # a picture; servers send no more than that
)

_ERRORS: dict[grpc.StatusCode, type[HeadwaterError]] = {
    grpc.StatusCode.CANCELLED: LinkError,
    grpc.StatusCode.UNKNOWN: LinkError,
    grpc.StatusCode.INVALID_ARGUMENT: FrameError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.NOT_FOUND: LinkError,
    grpc.StatusCode.ALREADY_EXISTS: LinkError,
    grpc.StatusCode.PERMISSION_DENIED: DeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RefusedError,
    grpc.StatusCode.FAILED_PRECONDITION: UnknownBundleError,
    grpc.StatusCode.ABORTED: LinkError,
    grpc.StatusCode.OUT_OF_RANGE: LinkError,
    grpc.StatusCode.UNIMPLEMENTED: LinkError,
    grpc.StatusCode.INTERNAL: LinkError,
    grpc.StatusCode.UNAVAILABLE: RefusedError,
    grpc.StatusCode.DATA_LOSS: LinkError,
    grpc.StatusCode.UNAUTHENTICATED: DeniedError,
}

_PUSHBACK = "grpc-retry-pushback-ms"
"""In the trailing metadata: what gRPC's own retry policies go by."""
LONGEST_TOLD_S = 120.0
"""No server makes a device wait longer by saying so."""

FINAL = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
}
"""With these a stream need not be tried again: the same hello would get the same answer."""


def open_channel(server: str, pems: tuple[bytes, bytes | None, bytes | None] | None = None) -> grpc.aio.Channel:
    """A channel to ``host:port``; it connects with the first call.

    ``pems``: the authority that has to vouch for the server, and the device's key and certificate, or None for both
    before it has them; no TLS without.
    """
    if pems is None:
        return grpc.aio.insecure_channel(server, OPTIONS)
    options = (*OPTIONS, ("grpc.ssl_target_name_override", SERVER_NAME))
    return grpc.aio.secure_channel(server, grpc.ssl_channel_credentials(*pems), options)


def is_final(error: grpc.aio.AioRpcError | HeadwaterError) -> bool:
    """Whether the same attempt would end the same way, see :data:`FINAL`."""
    return isinstance(error, HeadwaterError) or error.code() in FINAL


def to_error(error: grpc.aio.AioRpcError | HeadwaterError, server: str) -> HeadwaterError:
    """The headwater error of a failed call, with the server's own words, or of a missing or bad identity."""
    if isinstance(error, HeadwaterError):
        return DeniedError(str(error))
    code, detail = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in detail.lower():
        return LinkError(_unreached(server, detail))
    refused = _ERRORS[code](f"the server {server} refused: {detail or code.name}")
    if isinstance(refused, RefusedError):
        refused.retry_after_s = _pushback_s(error)
    return refused


def told_s(error: HeadwaterError | None) -> float:
    """How long the server asked to be left alone; 0 if it did not."""
    return error.retry_after_s if isinstance(error, RefusedError) else 0.0


def _pushback_s(error: grpc.aio.AioRpcError) -> float:
    told = next((value for key, value in error.trailing_metadata() or () if key == _PUSHBACK), "")
    return min(int(told) / 1e3, LONGEST_TOLD_S) if str(told).isdecimal() else 0.0


def _unreached(server: str, detail: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in detail:
        return (
            f"the server at {server} is not one that this device is enrolled at, or the device's clock is wrong "
            f"({datetime.now(UTC):%Y-%m-%d %H:%M} UTC): {detail}"
        )
    if "handshake" in detail:
        return f"the server at {server} does not speak TLS: {detail}"
    closed = " Does it want a certificate, and is this device's still good?" if "Socket closed" in detail else ""
    return f"no server answers at {server} ({detail}); is it running, and is the address right?{closed}"


async def write(call: Call, message: pb.DeviceMessage) -> None:
    """Write on a stream; where it has ended this does nothing, and reading from it will tell why."""
    try:
        await call.write(message)
    except asyncio.InvalidStateError:  # so does grpc.aio say that the call has ended
        await asyncio.sleep(0)


def heartbeat() -> pb.DeviceMessage:
    """A sign of life."""
    return pb.DeviceMessage(heartbeat=pb.Heartbeat(sent_unix_ms=int(time.time() * 1e3)))


async def infer_once(
    servers: Sequence[str],
    frame: bytes,
    *,
    tasks: Sequence[str] = (),
    timeout_s: float = 10.0,
    channel: Opener = open_channel,
) -> pb.Answer:
    """Send one self-contained frame by the unary call.

    One server is asked after the other, until one answers; the error is that of the last: a :class:`LinkError` or
    :class:`FrameError`.
    """

    async def ask(server: str) -> pb.Answer:
        async with _calling(server, timeout_s, channel) as stub:
            answer: pb.Answer = await stub.Infer(
                pb.InferRequest(frame=frame, tasks=tasks), timeout=timeout_s, wait_for_ready=False
            )
        return answer

    return await _first(servers, ask)


async def describe(
    servers: Sequence[str], bundle_id: bytes, *, timeout_s: float = 10.0, channel: Opener = open_channel
) -> Sequence[pb.TaskSpec]:
    """The tasks that the first server to answer has for frames of a bundle, none if it does not serve it.

    Raises a :class:`LinkError`, that of the last.
    """

    async def ask(server: str) -> Sequence[pb.TaskSpec]:
        description = await describe_server(server, timeout_s=timeout_s, channel=channel)
        served = (one for one in description.bundles if bundle_id in {one.id, *one.answers_for})
        return next((one.tasks for one in served), ())

    return await _first(servers, ask)


async def describe_server(server: str, *, timeout_s: float, channel: Opener) -> pb.Description:
    """What a server says of itself; raises a :class:`LinkError`."""
    async with _calling(server, timeout_s, channel) as stub:
        said: pb.Description = await stub.Describe(pb.DescribeRequest(), timeout=timeout_s, wait_for_ready=False)
    return said


async def _first(servers: Sequence[str], ask: Callable[[str], Awaitable[T]]) -> T:
    *others, last = servers
    for server in others:
        with suppress(LinkError):
            return await ask(server)
    return await ask(last)


@asynccontextmanager
async def _calling(server: str, timeout_s: float, opener: Opener) -> AsyncIterator[EdgeAsyncStub]:
    """A stub for one call, whose errors become headwater's."""
    try:
        opened = opener(server)
    except IdentityError as error:
        raise to_error(error, server) from error
    async with opened as channel:
        try:
            yield EdgeStub(channel)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise DeadlineError(f"no answer from {server} within {timeout_s:g} s; is it reachable?") from error
            raise to_error(error, server) from error
