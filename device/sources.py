"""Where a device's pictures come from.

==========================================  ==================================================================
``--source``                                what
==========================================  ==================================================================
``photos/``, ``photo.jpg``                  a folder's files (with its sub-folders, by name), or one file
``solar``, ``digits``                       the test part of a named data set, with its labels
``camera``, ``camera:1``, ``/dev/video1``   a camera through OpenCV: ``pip install 'headwater[camera]'``
``http://...``, ``https://...``             an MJPEG stream; ``user:password@`` before the host logs in
``rtsp://...``                              a network camera through OpenCV
``-``                                       JPEG or PNG pictures on standard input, one after another, as from
                                            ``ffmpeg -i in.mp4 -f image2pipe -c:v mjpeg -``  (pictures.py)
==========================================  ==================================================================

A source blocks and knows nothing of the event loop; `feed.py` runs it in a thread, keeps the frame rate, and drops what
a live source gives faster than it is taken.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from headwater.compression import datasets
from headwater.compression.errors import DataError, SourceError
from headwater.device.pictures import pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

OPEN_TIMEOUT_S = 10.0
"""A camera that gives nothing for this long is taken for dead."""


@dataclass(frozen=True)
class Shot:
    """One picture that a source offers; it is decoded only if it is taken."""

    name: str
    read: Callable[[], Image.Image]
    """Decode; raises :class:`DataError` for a damaged picture."""
    truth: Mapping[str, str] = field(default_factory=dict)
    """The right label of each task, where the source knows it."""


class Source(Protocol):
    """Anything that gives pictures; `tests/device/test_sources.py` holds what every source must do."""

    live: bool
    """True where time goes on without us: what is not taken is dropped, and a source that breaks is opened again."""

    def shots(self) -> Iterator[Shot]:
        """Open, and yield until the end or :meth:`close`; blocks. Raises :class:`SourceError`."""

    def close(self) -> None:
        """End :meth:`shots` soon; may be called from another thread, and twice."""


def open_source(text: str) -> Source:
    """Return the source that a ``--source`` names; raises :class:`SourceError` with the forms there are."""
    scheme, _, rest = text.partition(":")
    if text in datasets.NAMES:
        return DatasetSource(text)
    if text == "-":
        return StreamSource(0)
    if scheme in {"http", "https"}:
        return HttpSource(text)
    if scheme in {"rtsp", "rtsps"} or text.startswith("/dev/"):
        return CameraSource(text)
    if scheme == "camera" and (rest.isdecimal() or not rest):
        return CameraSource(int(rest or 0))
    if text and Path(text).expanduser().exists():
        return FolderSource(Path(text).expanduser())
    raise SourceError(
        f"there is no source {text!r}: it is no file or folder; the other forms are {', '.join(datasets.NAMES)}, "
        "camera, camera:N, /dev/videoN, http://..., rtsp://... and - for standard input"
    )


class FolderSource:
    """The files of a folder in the order of their names, or a single file. A sub-folder's name is the label."""

    live = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._closed = threading.Event()

    def shots(self) -> Iterator[Shot]:
        """Yield every file that is not hidden; one that is no picture raises when it is read."""
        if not self.path.exists():
            raise SourceError(f"{self.path} does not exist; give a folder of pictures or a picture")
        files = [self.path] if self.path.is_file() else _visible_files(self.path)
        if not files:
            raise SourceError(f"the folder {self.path} has no files; put JPEG or PNG pictures into it")
        base = self.path.parent if self.path.is_file() else self.path
        for file in files:
            if self._closed.is_set():
                return
            name = file.relative_to(base)
            truth = {"class": name.parts[-2]} if len(name.parts) > 1 else {}
            yield Shot(name.as_posix(), partial(datasets.read_image, file), truth)

    def close(self) -> None:
        """End before the next file."""
        self._closed.set()


def _visible_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


class DatasetSource:
    """The test part of a named data set."""

    live = False

    def __init__(self, name: str, seed: int = 0) -> None:
        self.name, self.seed = name, seed
        self._closed = threading.Event()

    def shots(self) -> Iterator[Shot]:
        """Yield the test items in the data set's order."""
        try:
            _, test = datasets.split(datasets.open_dataset(self.name), seed=self.seed)
        except DataError as error:
            raise SourceError(str(error)) from error
        for item in test.items:
            if self._closed.is_set():
                return
            truth = {task.name: task.labels[item.labels[task.name]] for task in test.tasks}
            yield Shot(item.name, item.load, truth)

    def close(self) -> None:
        """End before the next item."""
        self._closed.set()


class StreamSource:
    """Pictures one after another on a pipe or file. Not live: a full pipe holds its writer back, nothing is lost."""

    live = False

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._closed = threading.Event()

    def shots(self) -> Iterator[Shot]:
        """Yield the pictures until the writer closes its end."""
        for number, data in enumerate(pictures(self._read), start=1):
            if self._closed.is_set():
                return
            yield Shot(f"picture{number:06d}", partial(datasets.read_image, data))

    def close(self) -> None:
        """End within a fifth of a second, though the pipe be silent."""
        self._closed.set()

    def _read(self, size: int) -> bytes:
        # A read of a silent pipe cannot be interrupted, so it is only begun when there is something to read.
        while not self._closed.is_set():
            ready, _, _ = select.select([self.descriptor], [], [], 0.2)
            if ready:
                return os.read(self.descriptor, size)
        return b""


class HttpSource:
    """MJPEG over HTTP (``multipart/x-mixed-replace``), as network cameras and mjpg-streamer serve it."""

    live = True

    def __init__(self, url: str, timeout_s: float = OPEN_TIMEOUT_S) -> None:
        self.url, self._password = _without_password(url)
        self.timeout_s = timeout_s
        self._closed = threading.Event()
        self._socket: socket.socket | None = None

    def shots(self) -> Iterator[Shot]:
        """Yield the stream's pictures until it ends; raises :class:`SourceError` when it cannot be opened or breaks."""
        try:
            with self._opener().open(self.url, timeout=self.timeout_s) as response:
                kind = response.headers.get("Content-Type", "")
                if kind.startswith(("image/", "text/")):
                    raise SourceError(f"{self.url} is {kind}, not a stream; want multipart/x-mixed-replace")
                self._socket = socket.socket(fileno=os.dup(response.fileno()))
                for number, data in enumerate(pictures(response.read1), start=1):
                    if self._closed.is_set():
                        return
                    yield Shot(f"picture{number:06d}", partial(datasets.read_image, data))
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            if not self._closed.is_set():
                raise SourceError(f"the stream {self.url} failed: {error}") from error
        finally:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def close(self) -> None:
        """End at once: shutting the socket down wakes a reader that waits for the camera."""
        self._closed.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _opener(self) -> urllib.request.OpenerDirector:
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if self._password is not None:
            passwords.add_password(None, self.url, *self._password)
        return urllib.request.build_opener(
            _CloseRefused,
            urllib.request.HTTPBasicAuthHandler(passwords),
            urllib.request.HTTPDigestAuthHandler(passwords),
        )


class _CloseRefused(urllib.request.BaseHandler):
    """Close the response that asks for a password: the handlers that then log in need its headers only."""

    handler_order = 100

    def http_error_401(self, _request: object, response: Any, *_: object) -> None:  # noqa: ANN401 - any file object
        response.close()


def _without_password(url: str) -> tuple[str, tuple[str, str] | None]:
    """Take ``user:password@`` out of a URL, so that no message ever shows it."""
    parts = urllib.parse.urlsplit(url)
    user, host = parts.netloc.rpartition("@")[0], parts.netloc.rpartition("@")[2]
    name, _, password = user.partition(":")
    login = (urllib.parse.unquote(name), urllib.parse.unquote(password)) if user else None
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), login


class Capture(Protocol):
    """What is used of OpenCV's ``VideoCapture``."""

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        """Whether the camera could be opened."""

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Wait for the next picture: uint8 [H, W, 3], blue first."""

    def release(self) -> None:
        """Give the camera back."""


class CameraSource:
    """A camera at the machine (its number or ``/dev/videoN``) or on the network (``rtsp://``), through OpenCV."""

    live = True

    def __init__(self, which: int | str, capture: Callable[[int | str], Capture] | None = None) -> None:
        """``capture`` opens the camera; tests give a fake one."""
        self.which = which
        self.shown = _without_password(which)[0] if isinstance(which, str) else f"camera:{which}"
        self._open = capture or _open_cv
        self._closed = threading.Event()

    def shots(self) -> Iterator[Shot]:
        """Yield the camera's pictures; raises :class:`SourceError` when it is missing or stops."""
        capture = self._open(self.which)
        try:
            if not capture.isOpened():
                raise SourceError(f"{self.shown} cannot be opened; is it there, free, and may this user read it?")
            number = 0
            while not self._closed.is_set():
                good, pixels = capture.read()
                if not good or pixels is None:
                    raise SourceError(f"{self.shown} stopped giving pictures after {number}")
                number += 1
                yield Shot(f"picture{number:06d}", partial(_from_cv, pixels))
        finally:
            # Only the thread that reads may release: OpenCV crashes when a capture is freed under a read.
            capture.release()

    def close(self) -> None:
        """End with the next picture, or when OpenCV's own time limit ends the wait for it."""
        self._closed.set()


def _from_cv(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels[..., ::-1].copy())


def _open_cv(which: int | str) -> Capture:
    try:
        import cv2  # noqa: PLC0415 - an extra, and 100 MB
    except ModuleNotFoundError as error:
        raise SourceError(
            "a camera needs OpenCV, which is not installed; run: pip install 'headwater[camera]'"
        ) from error
    limit_ms = int(OPEN_TIMEOUT_S * 1000)
    if isinstance(which, str) and which.startswith("rtsp"):
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms]
        return _capture(cv2.VideoCapture(which, cv2.CAP_FFMPEG, limits))
    capture = cv2.VideoCapture(which)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a picture that waited in the driver is an old one
    return _capture(capture)


def _capture(capture: Any) -> Capture:  # noqa: ANN401 - OpenCV's own class has no types
    checked: Capture = capture
    return checked
