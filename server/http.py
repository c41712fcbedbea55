"""/metrics, /healthz and /readyz over HTTP/1.0: enough for Prometheus and a supervisor, and nothing more.

Bounded by design: GET and HEAD only, 8 KiB of request, 5 seconds, 32 connections at a time, and the connection is
closed after the answer; one more connection than that is closed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from http import HTTPStatus

from headwater.server.metrics import Metrics

MAX_REQUEST_BYTES = 8192
TIMEOUT_S = 5.0
MAX_CONNECTIONS = 32

_TEXT = "text/plain; charset=utf-8"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

Reply = tuple[HTTPStatus, str, bytes]


class HttpServer:
    """Serves the three pages.

    Args:
        metrics: what /metrics prints.
        ready: whether the server takes work; /readyz answers 503 while it does not. /healthz answers 200 as long as
            the event loop turns.
    """

    def __init__(self, metrics: Metrics, ready: Callable[[], bool]) -> None:
        self._metrics = metrics
        self._ready = ready
        self._open = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError if the address cannot be bound."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_REQUEST_BYTES)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._answer(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away or was too slow; there is nobody to tell
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open > MAX_CONNECTIONS:
            return
        try:
            request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            method, reply = "GET", _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request is too long")
        else:
            method, reply = await self._route(request)
        writer.write(_encode(method, reply))
        await writer.drain()

    async def _route(self, request: bytes) -> tuple[str, Reply]:
        words = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "GET", _plain(HTTPStatus.BAD_REQUEST, "this is no HTTP/1 request")
        method, path = words[0], words[1].partition("?")[0]
        if method not in {"GET", "HEAD"}:
            return method, _plain(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD")
        return method, await self._page(path)

    async def _page(self, path: str) -> Reply:
        match path:
            case "/metrics":
                return HTTPStatus.OK, _PROMETHEUS, await asyncio.to_thread(self._metrics.text)
            case "/healthz":
                return _plain(HTTPStatus.OK, "ok")
            case "/readyz" if self._ready():
                return _plain(HTTPStatus.OK, "ready")
            case "/readyz":
                return _plain(HTTPStatus.SERVICE_UNAVAILABLE, "not serving")
            case _:
                return _plain(HTTPStatus.NOT_FOUND, "there are /metrics, /healthz and /readyz")


def _plain(status: HTTPStatus, text: str) -> Reply:
    return status, _TEXT, f"{text}\n".encode()


def _encode(method: str, reply: Reply) -> bytes:
    status, kind, body = reply
    head = (
        f"HTTP/1.0 {status.value} {status.phrase}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == "HEAD" else body)
