"""Cameras for tests: an MJPEG server on a real socket, and OpenCV's capture without OpenCV."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (24, 16)


def pixels(number: int) -> NDArray[np.uint8]:
    """A flat picture whose red value is its number; uint8 [H, W, 3]."""
    picture = np.zeros((SIZE[1], SIZE[0], 3), dtype=np.uint8)
    picture[..., 0] = number
    return picture


def encoded(number: int, kind: str = "png") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels(number)).save(out, kind)
    return out.getvalue()


def number_of(image: Image.Image) -> int:
    return int(np.asarray(image.convert("RGB"))[0, 0, 0])


class FakeCapture:
    """Gives ``count`` pictures, blue first, each one when ``gate`` lets it; then fails as an unplugged camera does."""

    def __init__(self, count: int = 3, gate: threading.Semaphore | None = None, *, there: bool = True) -> None:
        self.count, self.gate, self.there = count, gate, there
        self.given = 0
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self.there

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        assert not self.released, "read after release crashes OpenCV"
        if self.gate is not None:
            self.gate.acquire()
        if self.given == self.count:
            return False, None
        self.given += 1
        return True, pixels(self.given)[..., ::-1]

    def release(self) -> None:
        self.released = True


@dataclass
class MjpegServer:
    """``rounds[i]`` pictures to the i-th client, then the end of the stream, or silence if ``hang``."""

    rounds: list[int] = field(default_factory=lambda: [3])
    hang: bool = False
    login: tuple[str, str] | None = None
    content_type: str = "multipart/x-mixed-replace; boundary=frame"
    status: int = 200
    port: int = 0
    """Where it listens; 0 for a free one, which is then noted."""
    clients: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/video"


@contextmanager
def mjpeg_server(server: MjpegServer) -> Iterator[MjpegServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if server.login and not self._logged_in(*server.login):
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
                return
            self.send_response(server.status)
            self.send_header("Content-Type", server.content_type)
            self.end_headers()
            count = server.rounds[min(server.clients, len(server.rounds) - 1)]
            server.clients += 1
            with suppress(ConnectionError):  # who watches may go at any time
                for number in range(1, count + 1):
                    self.wfile.write(b"--frame\r\nContent-Type: image/png\r\n\r\n" + encoded(number) + b"\r\n")
            if server.hang:
                server.release.wait()

        def _logged_in(self, user: str, password: str) -> bool:
            wanted = base64.b64encode(f"{user}:{password}".encode()).decode()
            return self.headers.get("Authorization") == f"Basic {wanted}"

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", server.port), Handler)
    server.port = http.server_address[1]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        http.shutdown()
        http.server_close()
        thread.join()
