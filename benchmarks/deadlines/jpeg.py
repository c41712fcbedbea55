"""The way without a split: pictures go to a server as JPEG, which runs the whole model on what it decodes.

A connection is a stream of requests and answers in any order, as bare as can be, all integers little-endian::

    request  number u32, length u16, JPEG in the abbreviated format (no tables: both sides know them)
    answer   number u32, K scores f32

That is less beside the picture than gRPC's own headers take, in JPEG's favour. The client drops a picture whose
deadline passes before it could be written, and keeps the kernel from taking more than a few of them in advance: what
waits in a socket's buffer cannot be dropped any more.

As a process it serves a bundle's ``local.onnx`` and prints its port::

    python -m benchmarks.deadlines.jpeg BUNDLE SIDE QUALITY
"""

from __future__ import annotations

import asyncio
import io
import socket
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from headwater.compression.bundle import Bundle
from headwater.compression.inference import session

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_REQUEST = struct.Struct("<IH")
_NUMBER = struct.Struct("<I")
BUFFER_BYTES = 4096
"""The kernel's, on the client's side."""
WINDOW = 8
"""Pictures that may be unanswered."""


def encode(picture: Image.Image, side: tuple[int, int], quality: int) -> bytes:
    """Make a picture small and code it, without tables."""
    out = io.BytesIO()
    picture.resize(side, Image.Resampling.BILINEAR).save(out, "JPEG", quality=quality, streamtype=2)
    return out.getvalue()


def tables(mode: str, quality: int) -> bytes:
    """The tables that every picture of this mode and quality has in common."""
    out = io.BytesIO()
    Image.new(mode, (8, 8)).save(out, "JPEG", quality=quality, streamtype=1)
    return out.getvalue()


def decode(common: bytes, data: bytes) -> Image.Image:
    """Put tables and picture together again: the end of the first and the start of the second marker go."""
    image = Image.open(io.BytesIO(common[:-2] + data[2:]))
    image.load()
    return image


class Client:
    """Sends pictures over one connection; ``await client.ask(data, give_up_s)`` gives scores, or None if too late."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[NDArray[np.float32]]] = {}
        self._number = 0
        self._turn = asyncio.Lock()
        self._slots = asyncio.Semaphore(WINDOW)

    async def open(self, address: str) -> None:
        """Connect."""
        host, port = address.rsplit(":", 1)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)  # noqa: FBT003 - takes it by position only
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        self._reader, self._writer = await asyncio.open_connection(sock=sock)
        self._writer.transport.set_write_buffer_limits(high=0)
        self._task = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Close the connection; what is unanswered stays so."""
        self._task.cancel()
        self._writer.transport.abort()
        await asyncio.gather(self._task, return_exceptions=True)

    async def ask(self, data: bytes, give_up_s: float) -> NDArray[np.float32] | None:
        """Scores of a coded picture [K]; None if they are not here by then (``time.monotonic``)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(give_up_s - time.monotonic(), 0)):
                # What was written is in the way until it is answered, whether anybody waits for it or not.
                return await asyncio.shield(await self._write(data))
        return None

    async def _write(self, data: bytes) -> asyncio.Future[NDArray[np.float32]]:
        await self._slots.acquire()
        future: asyncio.Future[NDArray[np.float32]] | None = None
        try:
            async with self._turn:
                await self._writer.drain()
                self._number += 1
                future = self._waiting[self._number] = asyncio.get_running_loop().create_future()
                future.add_done_callback(lambda _: self._slots.release())
                self._writer.write(_REQUEST.pack(self._number, len(data)) + data)
                return future
        finally:
            if future is None:  # its time was up before it could be written
                self._slots.release()

    async def _read(self) -> None:
        size = (await self._reader.readexactly(1))[0]
        while True:
            (number,) = _NUMBER.unpack(await self._reader.readexactly(_NUMBER.size))
            scores = np.frombuffer(await self._reader.readexactly(4 * size), np.float32)
            self._waiting.pop(number).set_result(scores)


class Service:
    """The server's side of one bundle, size and quality."""

    def __init__(self, bundle: Bundle, quality: int) -> None:
        self._input = bundle.manifest.input
        self._labels = len(bundle.manifest.tasks[0].labels)
        self._common = tables(self._input.mode, quality)
        self._session = session(bundle.read("local.onnx"))
        self._worker = ThreadPoolExecutor(1)

    def answer(self, data: bytes) -> bytes:
        """Scores of a coded picture, packed."""
        image = self._input.apply(decode(self._common, data))
        (logits,) = self._session.run(("logits",), {"image": image[np.newaxis]})
        return np.asarray(logits[0], np.float32).tobytes()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends."""
        try:
            writer.write(bytes([self._labels]))
            while True:
                number, size = _REQUEST.unpack(await reader.readexactly(_REQUEST.size))
                data = await reader.readexactly(size)
                answer = partial(self.answer, data)
                scores = await asyncio.get_running_loop().run_in_executor(self._worker, answer)
                writer.write(_NUMBER.pack(number) + scores)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.transport.abort()


async def serve(service: Service, ready: Callable[[int], object]) -> None:
    """Serve on a free port until cancelled; `ready` is told which."""
    open_: set[asyncio.Task[None]] = set()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(service.serve(reader, writer))
        open_.add(task)
        task.add_done_callback(open_.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    ready(server.sockets[0].getsockname()[1])
    try:
        await server.serve_forever()
    finally:
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)


def main() -> None:
    """Serve until killed."""
    path, quality = sys.argv[1:]
    asyncio.run(serve(Service(Bundle.load(Path(path)), int(quality)), lambda port: print(port, flush=True)))


if __name__ == "__main__":
    main()
