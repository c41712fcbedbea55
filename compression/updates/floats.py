"""Floats to bytes without loss: their bytes sorted by significance, and each such plane compressed if that helps.

The exponents of an update's values are alike and their mantissas are noise; mixed as they lie in memory, a general
compressor finds little. Apart, the plane of exponents shrinks to about a third and the others are left alone (the idea
of ZipNN, arXiv:2411.05239). A number's sign is moved behind its mantissa first, so that the exponent is a whole byte.

    one plane, most significant first: 4 bytes, its length, the highest bit set if it is zstandard; its bytes
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import zstandard

from headwater.compression.errors import UpdateError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

LEVEL = 3
COMPRESSED = 1 << 31
_LENGTH = struct.Struct("<I")
_BITS: dict[int, type[np.unsignedinteger[Any]]] = {2: np.uint16, 4: np.uint32}


def encode_floats(values: NDArray[np.floating[Any]]) -> bytes:
    """Encode values [n] of float16 or float32."""
    bits = values.view(_BITS[values.itemsize])
    rotated = (bits << 1) | (bits >> (8 * values.itemsize - 1))
    planes = rotated.astype(rotated.dtype.newbyteorder(">")).view(np.uint8).reshape(-1, values.itemsize).T
    return b"".join(part for plane in planes for part in _plane(plane.tobytes()))


def _plane(plane: bytes) -> Iterator[bytes]:
    shrunk = zstandard.ZstdCompressor(level=LEVEL).compress(plane)
    if len(shrunk) < len(plane):
        yield _LENGTH.pack(len(shrunk) | COMPRESSED)
        yield shrunk
    else:
        yield _LENGTH.pack(len(plane))
        yield plane


def decode_floats(data: bytes, dtype: type[np.floating[Any]], count: int) -> NDArray[np.floating[Any]]:
    """Decode `count` values; raises `UpdateError` unless the data is exactly these."""
    size = np.dtype(dtype).itemsize
    planes, at = np.empty((count, size), np.uint8), 0
    for i in range(size):
        if len(data) - at < _LENGTH.size:
            raise UpdateError(f"{len(data)} bytes are not {count} floats: they are cut off")
        length = _LENGTH.unpack_from(data, at)[0]
        at += _LENGTH.size
        end = at + (length & ~COMPRESSED)
        planes[:, i] = np.frombuffer(_read_plane(data[at:end], count, zstd=bool(length & COMPRESSED)), np.uint8)
        at = end
    if at != len(data):
        raise UpdateError(f"{len(data)} bytes are not {count} floats, which end at {at}")
    unsigned = np.dtype(_BITS[size])
    rotated = planes.view(unsigned.newbyteorder(">")).astype(unsigned).ravel()
    return cast("NDArray[np.floating[Any]]", ((rotated >> 1) | (rotated << (8 * size - 1))).view(dtype))


def _read_plane(data: bytes, count: int, *, zstd: bool) -> bytes:
    """A plane of `count` bytes. What zstandard's header claims is checked before room is made for it."""
    if zstd:
        try:
            if zstandard.get_frame_parameters(data).content_size != count:
                raise UpdateError(f"a plane of an update is said not to have the {count} bytes that it has to have")
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=count, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise UpdateError(f"a plane of an update is damaged: {error}") from error
    if len(data) != count:
        raise UpdateError(f"a plane of an update has {len(data)} bytes; want {count}")
    return data
