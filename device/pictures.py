"""Cut a byte stream into the JPEG and PNG pictures that are in it.

Both formats say where they end, so pictures can simply follow one another, as ``ffmpeg -f image2pipe`` writes them::

    JPEG   FF D8, segments of  FF marker, length (2 bytes, big-endian, counts itself), data
           after a scan's segment (FF DA) coded data, in which FF is followed by 00 or D0..D7; at last FF D9
    PNG    89 'PNG' 0D 0A 1A 0A, chunks of  length (4 bytes, big-endian), type (4), data, CRC (4); the last is IEND

A JPEG's length cannot be found by searching for FF D9: its EXIF segment may hold a whole thumbnail. Bytes between two
pictures are skipped, so the same function reads multipart MJPEG, whose part headers are such bytes, and finds the next
picture after a damaged one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_PICTURE_BYTES = 1 << 25
READ_BYTES = 1 << 16

_START = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n")
_LONGEST_START = 8
_ALONE = {0x01, *range(0xD0, 0xD8)}
"""Markers without a segment: TEM and RST0 to RST7."""
_END_OF_IMAGE, _START_OF_SCAN, _FILL = 0xD9, 0xDA, 0xFF
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


class _DamagedError(Exception):
    """The bytes from here on are no picture; go on searching behind the start."""


class _Buffer:
    """What was read and not yet yielded, with the picture looked for at its front."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.data = bytearray()

    def need(self, size: int) -> None:
        """Read until there are ``size`` bytes; EOFError when the stream ends before."""
        if size > MAX_PICTURE_BYTES:
            raise _DamagedError
        while len(self.data) < size:
            self.more()

    def more(self) -> None:
        chunk = self._read(READ_BYTES)
        if not chunk:
            raise EOFError
        self.data += chunk

    def drop(self, size: int) -> bytes:
        taken = bytes(self.data[:size])
        del self.data[:size]
        return taken


def pictures(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield the encoded pictures of a stream; a last one that is cut off is left out.

    ``read(n)`` returns 1 to n bytes, waiting for the first, and b"" at the end. Memory stays under
    ``MAX_PICTURE_BYTES`` and a chunk whatever the bytes are.
    """
    buffer = _Buffer(read)
    try:
        while True:
            png = _seek(buffer)
            try:
                end = _png_end(buffer) if png else _jpeg_end(buffer)
            except _DamagedError:
                buffer.drop(2)
                continue
            yield buffer.drop(end)
    except EOFError:
        return


def _seek(buffer: _Buffer) -> bool:
    """Drop what precedes the next picture; True for a PNG."""
    while (match := _START.search(buffer.data)) is None:
        buffer.drop(max(len(buffer.data) - _LONGEST_START + 1, 0))
        buffer.more()
    buffer.drop(match.start())
    return buffer.data[0] != 0xFF


def _png_end(buffer: _Buffer) -> int:
    at, kind = 8, b""
    while kind != b"IEND":
        buffer.need(at + 8)
        kind = bytes(buffer.data[at + 4 : at + 8])
        at += 12 + int.from_bytes(buffer.data[at : at + 4], "big")
        if not kind.isalpha():
            raise _DamagedError
    buffer.need(at)
    return at


def _jpeg_end(buffer: _Buffer) -> int:
    at = 2
    while True:
        buffer.need(at + 2)
        mark, kind = buffer.data[at : at + 2]
        if mark != 0xFF:
            raise _DamagedError
        if kind == _END_OF_IMAGE:
            return at + 2
        if kind == _FILL or kind in _ALONE:
            at += 1 if kind == _FILL else 2
            continue
        buffer.need(at + 4)
        at += 2 + int.from_bytes(buffer.data[at + 2 : at + 4], "big")
        if kind == _START_OF_SCAN:
            at = _scan_end(buffer, at)


def _scan_end(buffer: _Buffer, at: int) -> int:
    """Position of the first marker behind the coded data that starts at ``at``."""
    buffer.need(at)
    while (match := _SCAN_END.search(buffer.data, at)) is None:
        at = max(at, len(buffer.data) - 1)  # the last byte may be the FF of a marker
        buffer.need(len(buffer.data) + 1)
    return match.start()
