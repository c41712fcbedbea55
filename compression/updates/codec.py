"""Updates of a model to bytes and back.

    encoded = encode(delta, layout, Scheme("ternary", keep=1 / 400), base=version)
    residual = {name: delta[name] - encoded.decoded[name] for name in delta}    # goes into the sender's next update
    update = decode(encoded.data, layout)                                       # update.arrays are encoded.decoded

An update in bytes, little-endian; docs/updates.md has what follows the header:

    0   2  "HU"
    2   1  version, 1
    3   1  values: place in VALUES
    4   8  keep, float64
    12  1  length of base, 0 to 32
    13     base
           4  CRC-32 over layout, mask, all before and all after it
           body: integers (`_encode_integers`) or floats (`_encode_floats`)

Decoding is total: any bytes give an update or an `UpdateError`, in time and memory that only the layout decides.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.errors import UpdateError
from headwater.compression.updates import factors, flat, steps
from headwater.compression.updates.adaptive import HAS_SIGNS, HAS_SIZES, HAS_ZEROS
from headwater.compression.updates.flat import Arrays, Mask
from headwater.compression.updates.floats import FORMATS
from headwater.compression.updates.integers import decode_integers, encode_integers
from headwater.compression.updates.quantise import largest, quantise
from headwater.compression.updates.scheme import VALUES, Scheme

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwater.compression.updates.layout import Layout

    Live = NDArray[np.uint8] | None

MAGIC = b"HU"
VERSION = 1
MAX_BASE = 32
_HEADER = struct.Struct("<2sBBdB")
_CHECK = struct.Struct("<I")
_TOP = struct.Struct("<h")
_LENGTHS = struct.Struct("<II")
_WHOLE = HAS_ZEROS | HAS_SIGNS | HAS_SIZES
_ALPHABETS = {"int8": _WHOLE, "ternary": HAS_ZEROS | HAS_SIGNS, "sign": HAS_SIGNS, "factors": _WHOLE}


@dataclass(frozen=True)
class Encoded:
    """An update as bytes, and what its receivers will see."""

    data: bytes
    decoded: Arrays
    """Exactly what `decode` gives; the sender keeps ``delta - decoded`` for its next update."""


@dataclass(frozen=True)
class Update:
    """What `decode` found."""

    base: bytes
    """The version of the model that the update is relative to, as its sender named it."""
    scheme: Scheme
    arrays: Arrays
    """Every array of the layout."""


def encode(delta: Arrays, layout: Layout, scheme: Scheme, *, base: bytes, mask: Mask | None = None) -> Encoded:
    """Encode an update.

    Args:
        delta: float32 arrays of the layout's names and shapes, all finite.
        layout: of the network that was trained, at its width.
        scheme: what becomes of the values.
        base: the version that the update is relative to, at most 32 bytes.
        mask: for some or all arrays, False at coordinates that both ends know to be zero. These cost nothing and are
            decoded as zero, whatever they are in delta; `Scheme.keep` is a share of the others.

    Raises:
        UpdateError: if arrays are not the layout's, not float32, or not finite, or the base is too long.
    """
    if len(base) > MAX_BASE:
        raise UpdateError(f"the base of an update has {len(base)} bytes; want {MAX_BASE} at most")
    values, live = flat.join(delta, layout), flat.live(layout, mask)
    if live is not None:
        values[live == 0] = 0
    if scheme.keep < 1 and scheme.values != "factors":
        there = values.size if live is None else np.count_nonzero(live)
        values[~largest(values, max(1, round(scheme.keep * there)))] = 0
    if scheme.values in FORMATS:
        body, decoded = _encode_floats(values, layout, scheme, live)
    else:
        body, decoded = _encode_integers(values, layout, scheme, live)
    header = _HEADER.pack(MAGIC, VERSION, VALUES.index(scheme.values), scheme.keep, len(base)) + base
    check = _CHECK.pack(_crc(header, body, layout, live))
    return Encoded(header + check + body, flat.shape(decoded, layout))


def decode(data: bytes, layout: Layout, *, mask: Mask | None = None) -> Update:
    """Decode an update.

    Args:
        data: what `encode` gave.
        layout: the very layout that it was given.
        mask: the very mask.

    Raises:
        UpdateError: if the data is no update, is damaged, was made for another layout or mask, or is not finite.
    """
    live = flat.live(layout, mask)
    header, check, body = _split(data)
    if _CHECK.pack(_crc(header, body, layout, live)) != check:
        raise UpdateError("an update is damaged, or was made for another layout or mask: its checksum is wrong")
    _, _, values, keep, _ = _HEADER.unpack_from(header)
    if values >= len(VALUES):
        raise UpdateError(f"an update has values of kind {values}; this version knows 0 to {len(VALUES) - 1}")
    scheme = Scheme(VALUES[values], keep)
    read = _decode_floats if scheme.values in FORMATS else _decode_integers
    with np.errstate(over="ignore"):  # a step may be too large for its integers; what overflows is found here
        decoded = read(body, layout, scheme, live)
    if not np.isfinite(decoded).all():
        raise UpdateError("an update has values that are not finite")
    return Update(header[_HEADER.size :], scheme, flat.shape(decoded, layout))


def _split(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Header with base, checksum, body."""
    if len(data) < _HEADER.size or data[:2] != MAGIC:
        raise UpdateError(f"{len(data)} bytes are no update: they do not begin with a header")
    _, version, _, _, base = _HEADER.unpack_from(data)
    end = _HEADER.size + base
    if version != VERSION:
        raise UpdateError(f"an update is of version {version}; this headwater reads version {VERSION}")
    if base > MAX_BASE or len(data) < end + _CHECK.size:
        raise UpdateError(f"{len(data)} bytes are no update: they are cut off within the header")
    return data[:end], data[end : end + _CHECK.size], data[end + _CHECK.size :]


def _crc(header: bytes, body: bytes, layout: Layout, live: Live) -> int:
    """Over the layout as compact JSON, the mask as bits, header and body."""
    names = json.dumps(list(layout.shapes.items()), separators=(",", ":"))
    check = zlib.crc32(names.encode())
    if live is not None:
        check = zlib.crc32(np.packbits(live).tobytes(), check)
    return zlib.crc32(body, zlib.crc32(header, check))


# ----------------------------------------------------------------------------------------------------------- integers


def _encode_integers(
    values: NDArray[np.float32], layout: Layout, scheme: Scheme, live: Live
) -> tuple[bytes, NDArray[np.float32]]:
    """The largest step, 2 bytes, then all integers and after them, as an array more, the differences of the steps."""
    if scheme.values == "factors":
        top, differences, integers = factors.quantise(values, layout, scheme.keep, live)
    else:
        lives = None if live is None else flat.cut(live, layout)
        top, differences, integers = quantise(flat.cut(values, layout), scheme.values, lives)
    coded = encode_integers(np.concatenate([*integers, differences]), *_with_steps(layout, scheme, live))
    return _TOP.pack(top) + coded, _scaled(integers, steps.unpack(top, differences), layout, scheme, live)


def _decode_integers(body: bytes, layout: Layout, scheme: Scheme, live: Live) -> NDArray[np.float32]:
    if len(body) < _TOP.size:
        raise UpdateError("an update is cut off before its integers")
    integers = decode_integers(body[_TOP.size :], *_with_steps(layout, scheme, live))
    count = integers.size - len(layout.shapes)
    parts = factors.cut(integers[:count], layout) if scheme.values == "factors" else flat.cut(integers[:count], layout)
    try:
        sizes = steps.unpack(_TOP.unpack_from(body)[0], integers[count:])
    except ValueError as error:
        raise UpdateError(f"an update has impossible steps: {error}") from error
    return _scaled(parts, sizes, layout, scheme, live)


def _with_steps(layout: Layout, scheme: Scheme, live: Live) -> tuple[Live, NDArray[np.uint32]]:
    """What is live, and the sides, of all arrays and the steps after them."""
    count, alphabet = len(layout.shapes), _ALPHABETS[scheme.values]
    if scheme.values == "factors":
        sides, alive = factors.sides(layout, alphabet), factors.alive(layout, live)
    else:
        sides, alive = flat.sides(layout, alphabet), live
    of_steps = np.array([[1, count, _WHOLE]], np.uint32)
    return None if alive is None else np.concatenate([alive, np.ones(count, np.uint8)]), np.concatenate(
        [sides, of_steps]
    )


def _scaled(
    integers: list[NDArray[np.int8]], sizes: NDArray[np.float32], layout: Layout, scheme: Scheme, live: Live
) -> NDArray[np.float32]:
    if scheme.values == "factors":
        return factors.scaled(integers, sizes, layout, live)
    return np.concatenate([part.astype(np.float32) * size for part, size in zip(integers, sizes, strict=True)])


# ------------------------------------------------------------------------------------------------------------- floats


def _encode_floats(
    values: NDArray[np.float32], layout: Layout, scheme: Scheme, live: Live
) -> tuple[bytes, NDArray[np.float32]]:
    """Flags, which coordinates are there, none if all live ones are; exponents; the rest of the floats in planes."""
    kind = FORMATS[scheme.values]
    largest_finite = float(np.finfo(kind.dtype).max)
    floats = np.clip(values, -largest_finite, largest_finite).astype(kind.dtype)
    there = floats.view(kind.bits) != 0  # -0.0 is there too
    flags = b""
    if np.count_nonzero(there) < (there.size if live is None else np.count_nonzero(live)):
        flags = encode_integers(there.view(np.int8), live, flat.sides(layout, HAS_ZEROS))
    exponents, rests = kind.split(floats)
    exponents[~there] = 0
    coded = encode_integers(exponents, there.view(np.uint8), flat.sides(layout, _ALPHABETS["int8"]))
    lengths = _LENGTHS.pack(len(flags), len(coded))
    return lengths + flags + coded + kind.encode_rests(rests[there]), floats.astype(np.float32)


def _decode_floats(body: bytes, layout: Layout, scheme: Scheme, live: Live) -> NDArray[np.float32]:
    sizes = _LENGTHS.unpack_from(body) if len(body) >= _LENGTHS.size else (0, 0)
    flags_end = _LENGTHS.size + sizes[0]
    end = flags_end + sizes[1]
    if len(body) < end:
        raise UpdateError("an update is cut off before its floats")
    there = np.ones(layout.size, np.bool_) if live is None else live.view(np.bool_)
    if flags_end > _LENGTHS.size:
        there = decode_integers(body[_LENGTHS.size : flags_end], live, flat.sides(layout, HAS_ZEROS)).view(np.bool_)
    exponents = decode_integers(body[flags_end:end], there.view(np.uint8), flat.sides(layout, _ALPHABETS["int8"]))
    kind = FORMATS[scheme.values]
    values = np.zeros(layout.size, np.float32)
    values[there] = kind.join(exponents[there], kind.decode_rests(body[end:], int(np.count_nonzero(there))))
    return values
