"""Every RPC that a server has, as the server itself lists them, and calls of them in raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.server.edges import TIMEOUT_S

ATTEMPTS = 3
BROKEN = "Internal error from Core"


@dataclass(frozen=True)
class Rpc:
    """One method of a service."""

    path: str
    request: Descriptor

    def opening(self, device: str) -> bytes:
        """A first message, from this device where the method asks which one it is."""
        message = GetMessageClass(self.request)()
        _name(message, device)
        return bytes(message.SerializeToString())

    @property
    def names_a_device(self) -> bool:
        return self.opening("cam") != self.opening("")


def _name(message: Any, device: str) -> None:  # noqa: ANN401 - any message
    """Set `device` in a message, or in the part of it that has it."""
    if "device" in message.DESCRIPTOR.fields_by_name:
        message.device = device
        return
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and "device" in field.message_type.fields_by_name:
            part = getattr(message, field.name)
            part.device = device
            part.SetInParent()
            return


async def listed(channel: grpc.aio.Channel) -> list[Rpc]:
    """All methods of all services, asked of the server by reflection."""
    requests = reflection_pb2.ServerReflectionRequest
    (names,) = [answer async for answer in _reflected(channel, requests(list_services=""))]
    found: dict[str, Rpc] = {}
    for service in names.list_services_response.service:
        (answer,) = [one async for one in _reflected(channel, requests(file_containing_symbol=service.name))]
        for data in answer.file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(data)
            found |= {rpc.path: rpc for rpc in _methods(file, service.name)}
    return sorted(found.values(), key=lambda rpc: rpc.path)


def _methods(file: descriptor_pb2.FileDescriptorProto, wanted: str) -> list[Rpc]:
    pool = descriptor_pool.Default()
    return [
        Rpc(f"/{wanted}/{method.name}", pool.FindMessageTypeByName(method.input_type.removeprefix(".")))
        for service in file.service
        if f"{file.package}.{service.name}" == wanted
        for method in service.method
    ]


async def _reflected(channel: grpc.aio.Channel, request: Any) -> AsyncIterator[Any]:  # noqa: ANN401 - messages
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    async for answer in stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT_S):
        yield answer


class Ended(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    detail: str
    calls: int
    """That it took to hear it."""


async def attempt(channel: grpc.aio.Channel, rpc: Rpc, device: str) -> Ended:
    """Call it, as this device; how the call ended, or OK once it is answered.

    A call that ends while it is written may end for grpc.aio alone with "Internal error from Core", whatever the server
    said, so it is made again; on a connection that TLS 1.3 refuses after the client's first bytes it ends so each time.
    """
    for calls in range(1, ATTEMPTS + 1):
        code, detail = await _attempt(channel, rpc, device)
        if detail != BROKEN:
            return Ended(code, detail, calls)
    return Ended(grpc.StatusCode.UNAVAILABLE, detail, ATTEMPTS)


async def _attempt(channel: grpc.aio.Channel, rpc: Rpc, device: str) -> tuple[grpc.StatusCode, str]:
    call: Any = channel.stream_stream(rpc.path)()
    async with asyncio.timeout(TIMEOUT_S):
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # refused while it is written
            await call.write(rpc.opening(device))
            await call.done_writing()
            if await call.read() is not grpc.aio.EOF:
                call.cancel()
                return grpc.StatusCode.OK, ""
        return await call.code(), await call.details()
