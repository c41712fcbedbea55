"""The door of every RPC: who calls, whether it may, and how much of it is let through.

    call ──> certificate ──> register ──> calls open, requests a second ──> first message: in time, not too large, and
                                                                            from the certificate's device ──> service
             later messages: not too large; beyond so many, and so many bytes, a second nothing is read for a while

It stands before every method that the server has, those of health and reflection as well, so that none can be
forgotten. A unary request is read here, not by gRPC: a caller that may not call sends its request to nobody, and one
that opens a call and never sends it is turned away in time.

On a connection without TLS, which comes from this very machine, there is no certificate: whoever calls is believed to
be the device that it says it is. With one, the register says what the device is called now, and the service is told
that name: a device that was renamed goes on under the certificate of its old name.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

import grpc
from google.protobuf.message import Message

from headwater.compression.errors import StorageError
from headwater.server.access.caller import caller_of
from headwater.server.access.denials import Denials, Denied
from headwater.server.access.register import Standing

if TYPE_CHECKING:
    from headwater.server.access.arrivals import Arrivals
    from headwater.server.access.caller import Context
    from headwater.server.access.denials import Reason
    from headwater.server.access.limits import Allowance, Allowances
    from headwater.server.access.register import Member, Register

    Handler = grpc.RpcMethodHandler[Any, Any]

FIRST_MESSAGE_S = 10.0
"""From a call's opening to its first message; a request of 4 KiB takes 7 s at 5 kbit/s."""
SMALL_BYTES = 1 << 16
"""The largest message of a method that nothing else is said of."""
MOST_NAME = 128
"""Letters of a device's name."""


class Guard(grpc.aio.ServerInterceptor):
    """Wraps every method of a server.

    Args:
        allowances: what each device has taken of what it may.
        denials: where refusals are counted.
        most_bytes: by method, the largest message that is read; :data:`SMALL_BYTES` for any other.
        register: asked about every certificate; None where there is no TLS.
        arrivals: told of the connections that calls come on.
    """

    def __init__(
        self,
        allowances: Allowances,
        denials: Denials,
        most_bytes: Mapping[str, int],
        register: Register | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        self._allowances = allowances
        self._denials = denials
        self._most_bytes = most_bytes
        self.register = register
        self._arrivals = arrivals
        self._handlers: dict[str, Handler] = {}
        self._open: dict[Call, asyncio.Task[Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The method's own handler with the guard around it; made once."""
        method = handler_call_details.method
        handler = self._handlers.get(method)
        if handler is None:
            handler = await continuation(handler_call_details)
            if handler is None:  # there is no such method
                return None
            handler = self._handlers[method] = self._guarded(method, handler)
        return handler

    @property
    def present(self) -> set[str]:
        """The devices that have a call open."""
        return {call.device for call in self._open if call.caller is not None}

    def review(self) -> None:
        """End the open calls whose certificates are not in force any more, or whose devices are called otherwise now.

        Raises :class:`StorageError`.
        """
        assert self.register is not None, "without TLS nobody has a certificate"
        for call, task in self._open.items():
            if call.caller is None:
                continue
            try:
                _review(call.device, self.register.look_up(call.caller))
            except Denied as why:
                call.why = why
                task.cancel()

    # ------------------------------------------------------------ a call

    def _guarded(self, method: str, handler: Handler) -> Handler:
        sized = Sized(cast("Callable[[bytes], Message]", handler.request_deserializer), self._most(method))
        serve = _served_by(handler)

        async def guarded(_: object, context: Context) -> Any:  # noqa: ANN401 - what the method answers
            call = Call(context, sized, self._allowances)
            try:
                with nullcontext() if self._arrivals is None else self._arrivals.calling(context.peer()):
                    return await self._serve(serve, call)
            except Denied as why:
                self._denials.note(why, method, call.device, context.peer())
                await context.abort(why.code, why.detail, why.pushback)

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(guarded, sized, handler.response_serializer)

    def _most(self, method: str) -> int:
        return self._most_bytes.get(method, SMALL_BYTES)

    async def _serve(self, serve: Callable[[Call], Awaitable[Any]], call: Call) -> Any:  # noqa: ANN401 - what the method answers
        self._identify(call)
        allowance = call.allowance
        _take(allowance)
        allowance.calls += 1
        self._open[call] = cast("asyncio.Task[Any]", asyncio.current_task())
        try:
            return await serve(call)
        except asyncio.CancelledError:
            if call.why is None:
                raise
            raise call.why from None
        except grpc.aio.InternalError:  # it was written to a peer that has gone
            raise asyncio.CancelledError from None
        finally:
            del self._open[call]
            allowance.calls -= 1

    def _identify(self, call: Call) -> None:
        """Learn from the register whether the certificate is in force, and what the device is called now."""
        if self.register is not None and call.caller is not None:
            try:
                member = self.register.admit(call.caller)
            except StorageError as error:
                raise Denied("register", f"nobody can be let in: {error}") from error
            _check(member)
            call.device = member.name
        call.goes_by(call.device)


def _check(member: Member | None) -> None:
    if member is not None and member.standing is not Standing.IN_FORCE:
        raise Denied(_REASONS[member.standing], f"the certificate of {member.name} is refused: {member.standing.value}")


def _review(device: str, member: Member) -> None:
    """Whether a device's call may go on under the name that it began with."""
    _check(member)
    if member.name != device:
        raise Denied("renamed", f"{device} is called {member.name} now; connect again")


def _take(allowance: Allowance) -> None:
    limits = allowance.limits
    if allowance.calls >= limits.calls:
        raise Denied("calls", f"{limits.calls} calls of this device are open already; end one", 1.0)
    if not allowance.request():
        wait_s = allowance.request_wait_s()
        raise Denied("requests", f"more than {limits.requests_per_s:g} requests a second; wait {wait_s:.3f} s", wait_s)


class Sized:
    """Parses a method's messages, none that is too large, and remembers the size of the last."""

    def __init__(self, parse: Callable[[bytes], Message], most_bytes: int) -> None:
        self._parse = parse
        self.most_bytes = most_bytes
        self.last = 0
        """Bytes of the message that was read last: gRPC parses and hands over in one step of the event loop."""

    def __call__(self, data: bytes) -> Message:
        """Parse; raises :class:`Denied`."""
        self.last = size = len(data)
        if size > self.most_bytes:
            raise Denied("size", f"a message of {size} bytes; at most {self.most_bytes} are read here")
        return self._parse(data)


class Call:
    """One call: gRPC's context of it, whose reading is watched."""

    allowance: Allowance

    def __init__(self, context: Context, sized: Sized, allowances: Allowances) -> None:
        self.caller = caller_of(context)
        self.device = context.peer() if self.caller is None else self.caller.device
        """Who calls, as far as is known: an address, or the name in the certificate, until more is learnt."""
        self.why: Denied | None = None
        """Set before the call's task is cancelled from here."""
        self.write = context.write
        self._context = context
        self._sized = sized
        self._allowances = allowances
        self._read = context.read
        self._begun = False

    def goes_by(self, device: str) -> None:
        """Count what it does as this device's."""
        self.device, self.allowance = device, self._allowances.of(device)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else gRPC's context has
        return getattr(self._context, name)

    async def read(self) -> Any:  # noqa: ANN401 - a message or grpc's EOF
        """The next message, later if the device sends more than it may; raises :class:`Denied`."""
        message = await (self._read() if self._begun else self._first())
        if message is not grpc.aio.EOF and (held_s := self.allowance.read(self._sized.last)):
            await asyncio.sleep(held_s)
        return message

    async def request(self) -> Any:  # noqa: ANN401 - a message
        """The one message of a unary call; raises :class:`Denied`."""
        message = await self.read()
        if message is grpc.aio.EOF:
            await self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no request")
        return message

    async def __aiter__(self) -> AsyncIterator[Any]:
        """All messages to the end."""
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message

    async def _first(self) -> Any:  # noqa: ANN401 - a message or grpc's EOF
        try:
            async with asyncio.timeout(FIRST_MESSAGE_S):
                message = await self._read()
        except TimeoutError:
            raise Denied("slow", f"nothing came within {FIRST_MESSAGE_S:g} s of the call's opening") from None
        self._begun = True
        if message is not grpc.aio.EOF and (naming := that_names_a_device(message)) is not None:
            self._hold_to_its_name(naming)
        return message

    def _hold_to_its_name(self, naming: Any) -> None:  # noqa: ANN401 - a message with the field `device`
        """See that the device that the caller says it is is that of its certificate; without one, believe it."""
        if len(naming.device) > MOST_NAME:
            raise Denied("device", f"a device's name has {MOST_NAME} letters at most, not {len(naming.device)}")
        if self.caller is None:
            self.goes_by(naming.device)
        elif naming.device in {self.caller.device, self.device}:
            naming.device = self.device
        else:
            raise Denied("device", f"the certificate is that of {self.caller.device}, not of {naming.device!r}")


def allowance_of(context: Context) -> Allowance:
    """What the device of a call has taken of what it may; the context is that which a method is given."""
    return cast("Call", context).allowance


def that_names_a_device(message: Message) -> Message | None:
    """The part of a call's first message that says which device it comes from, if it has one."""
    if "device" in message.DESCRIPTOR.fields_by_name:
        return message
    for oneof in message.DESCRIPTOR.oneofs:
        kind = message.WhichOneof(oneof.name)
        if kind is not None and isinstance(part := getattr(message, kind), Message):
            return that_names_a_device(part)
    return None


def _served_by(handler: Handler) -> Callable[[Call], Awaitable[Any]]:
    """What runs the method's own code, whichever of gRPC's four kinds it is of."""
    method = _method_of(handler)
    if inspect.isasyncgenfunction(method):

        async def serve(call: Call) -> Any:  # noqa: ANN401 - what the method answers
            async for response in method(call if handler.request_streaming else await call.request(), call):
                await call.write(response)

        return serve
    assert inspect.iscoroutinefunction(method), f"{method} would run in a thread, outside the event loop"

    async def wait(call: Call) -> Any:  # noqa: ANN401 - what the method answers
        return await method(call if handler.request_streaming else await call.request(), call)

    return wait


def _method_of(handler: Handler) -> Callable[..., Any]:
    kinds = {
        (False, False): handler.unary_unary,
        (False, True): handler.unary_stream,
        (True, False): handler.stream_unary,
        (True, True): handler.stream_stream,
    }
    method = kinds[handler.request_streaming, handler.response_streaming]
    assert method is not None, "a handler has the method of its kind"
    return method


_REASONS: dict[Standing, Reason] = {
    Standing.UNKNOWN: "unknown",
    Standing.REVOKED: "revoked",
    Standing.EXPIRED: "expired",
    Standing.RENEWED: "renewed",
    Standing.REPLACED: "replaced",
}
