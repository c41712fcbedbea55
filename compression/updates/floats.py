"""Floats without loss: their exponents are integers for the coder, the rest goes into planes that may be compressed.

The exponents of an update's values are alike, in rows and columns even more so, and their mantissas are noise (the
observation of ZipNN, arXiv:2411.05239). So a float is split into its exponent, a small integer, and the rest: mantissa
and behind it the sign. The rests are sorted by significance, all highest bytes first, and a plane of these is
compressed if that helps, as it does where values are differences of rounded numbers.

    one plane, most significant first: 4 bytes, its length, the highest bit set if it is zstandard; its bytes
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import zstandard

from headwater.compression.errors import UpdateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEVEL = 3
COMPRESSED = 1 << 31
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Format:
    """A kind of float."""

    dtype: np.dtype[Any]
    bits: np.dtype[Any]
    mantissa: int
    """Bits of the mantissa."""
    bias: int
    """Of the exponent, which is largest, and not that of a finite number, at 2 * bias + 1."""
    planes: int
    """Bytes of mantissa and sign."""

    def split(self, values: NDArray[np.floating[Any]]) -> tuple[NDArray[np.int8], NDArray[np.unsignedinteger[Any]]]:
        """Exponents less the bias, int8 [n], and rests [n], of finite values [n]."""
        bits = values.view(self.bits)
        exponents = (bits >> self.mantissa & (2 * self.bias + 1)).astype(np.int16) - self.bias
        mantissas, signs = bits & ((1 << self.mantissa) - 1), bits >> (8 * values.itemsize - 1)
        rests: NDArray[np.unsignedinteger[Any]] = (mantissas << 1 | signs).astype(self.bits)
        return exponents.astype(np.int8), rests

    def join(self, exponents: NDArray[np.int8], rests: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.float32]:
        """The values [n] as float32; raises `UpdateError` for an exponent that no finite value has."""
        raised = exponents.astype(np.int16) + self.bias
        if ((raised < 0) | (raised > 2 * self.bias)).any():
            raise UpdateError("an update has values that are not finite")
        sign = (rests & 1) << (8 * self.bits.itemsize - 1)
        bits = raised.astype(self.bits) << self.mantissa | rests >> 1 | sign
        values: NDArray[np.float32] = bits.astype(self.bits).view(self.dtype).astype(np.float32)
        return values

    def encode_rests(self, rests: NDArray[np.unsignedinteger[Any]]) -> bytes:
        """Rests [n] as planes."""
        columns = rests.astype(rests.dtype.newbyteorder(">")).view(np.uint8).reshape(rests.size, rests.itemsize).T
        return b"".join(part for plane in columns[-self.planes :] for part in _plane(plane.tobytes()))

    def decode_rests(self, data: bytes, count: int) -> NDArray[np.unsignedinteger[Any]]:
        """The rests [count]; raises `UpdateError` unless the data is exactly these."""
        columns, at = np.zeros((count, self.bits.itemsize), np.uint8), 0
        for i in range(-self.planes, 0):
            if len(data) - at < _LENGTH.size:
                raise UpdateError(f"{len(data)} bytes are not {count} floats: they are cut off")
            length = _LENGTH.unpack_from(data, at)[0]
            at += _LENGTH.size
            end = at + (length & ~COMPRESSED)
            columns[:, i] = np.frombuffer(_read_plane(data[at:end], count, zstd=bool(length & COMPRESSED)), np.uint8)
            at = end
        if at != len(data):
            raise UpdateError(f"{len(data)} bytes are not {count} floats, which end at {at}")
        return columns.view(self.bits.newbyteorder(">")).astype(self.bits).ravel()


FORMATS = {
    "float32": Format(np.dtype(np.float32), np.dtype(np.uint32), mantissa=23, bias=127, planes=3),
    "float16": Format(np.dtype(np.float16), np.dtype(np.uint16), mantissa=10, bias=15, planes=2),
}


def _plane(plane: bytes) -> Iterator[bytes]:
    shrunk = zstandard.ZstdCompressor(level=LEVEL).compress(plane)
    if len(shrunk) < len(plane):
        yield _LENGTH.pack(len(shrunk) | COMPRESSED)
        yield shrunk
    else:
        yield _LENGTH.pack(len(plane))
        yield plane


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
