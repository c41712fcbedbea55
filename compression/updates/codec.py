"""Updates of a model to bytes and back: `encode` and `decode`.

    encoded = encode(delta, layout, Scheme("ternary", keep=1 / 400), base=version)
    residual = {name: delta[name] - encoded.decoded[name] for name in delta}     # into the sender's next update
    update = decode(encoded.data, layout)                                        # update.arrays are encoded.decoded

docs/updates.md has every byte.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import zstandard

from headwater.compression.errors import UpdateError
from headwater.compression.updates import steps
from headwater.compression.updates.quantise import largest, quantise
from headwater.compression.updates.scheme import VALUES, Scheme

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwater.compression.updates.layout import Layout

    Arrays = Mapping[str, NDArray[np.float32]]
    Mask = Mapping[str, NDArray[np.bool_]]

MAGIC = b"HU"
VERSION = 1
_HEADER = struct.Struct("<2sBBdB")


@dataclass(frozen=True)
class Encoded:
    """An update as bytes, and what its receivers will see."""

    data: bytes
    decoded: Mapping[str, NDArray[np.float32]]
    """Exactly what `decode` gives; the sender keeps ``delta - decoded`` for its next update."""


@dataclass(frozen=True)
class Update:
    """What `decode` found."""

    base: bytes
    """The version of the model that the update is relative to, as its sender named it."""
    scheme: Scheme
    arrays: Mapping[str, NDArray[np.float32]]
    """Of every array of the layout."""


def encode(delta: Arrays, layout: Layout, scheme: Scheme, *, base: bytes, mask: Mask | None = None) -> Encoded:
    """Encode an update.

    Args:
        delta: float32 arrays of the layout's names and shapes, all finite.
        layout: of the network that was trained, at its width.
        scheme: what becomes of the values.
        base: the version that the update is relative to, at most 32 bytes.
        mask: for some or all arrays, False for coordinates that both ends know to be zero: they are not sent,
            cost nothing, and are decoded as zero. `keep` is a share of the others.

    Raises:
        UpdateError: if arrays are not the layout's, not float32, or not finite.
    """
    layout.check(delta)
    flat = np.concatenate([np.asarray(delta[name], np.float32).ravel() for name in layout.shapes])
    if not np.isfinite(flat).all():
        raise UpdateError("an update has values that are not finite; it is not sent")
    live = _live(layout, mask)
    if live is not None:
        flat[~live] = 0
    count = max(1, round(scheme.keep * (flat.size if live is None else int(live.sum()))))
    if scheme.keep < 1:
        flat[~largest(flat, count)] = 0
    if scheme.values == "float16":
        flat = flat.astype(np.float16).astype(np.float32)
    elif scheme.values != "float32":
        parts = np.split(flat, np.cumsum([prod(shape) for shape in layout.shapes.values()])[:-1])
        flat = np.concatenate([_quantised(part, scheme) for part in parts])
        if live is not None:
            flat[~live] = 0
    body = zstandard.compress(flat.view(np.uint8).reshape(-1, 4).T.tobytes())
    header = _HEADER.pack(MAGIC, VERSION, VALUES.index(scheme.values), scheme.keep, len(base)) + base
    check = struct.pack("<I", _check(header, body, layout, live))
    return Encoded(header + check + body, _shaped(flat, layout))


def _quantised(part: NDArray[np.float32], scheme: Scheme) -> NDArray[np.float32]:
    code, symbols = quantise(part, scheme.values)
    return symbols * (np.float32(0) if code is None else steps.value(code))


def decode(data: bytes, layout: Layout, *, mask: Mask | None = None) -> Update:
    """Decode an update.

    Raises:
        UpdateError: for anything that `encode` did not write for this very layout and mask, or that is not finite.
    """
    live = _live(layout, mask)
    if len(data) < _HEADER.size or data[:3] != MAGIC + bytes((VERSION,)):
        raise UpdateError(f"{len(data)} bytes are no update of version {VERSION}")
    _, _, values, keep, size = _HEADER.unpack_from(data)
    end = _HEADER.size + size
    if len(data) < end + 4 or values >= len(VALUES):
        raise UpdateError(f"{len(data)} bytes are no update: they are cut off, or of unknown values")
    header, check, body = data[:end], data[end : end + 4], data[end + 4 :]
    if struct.pack("<I", _check(header, body, layout, live)) != check:
        raise UpdateError("an update is damaged, or was made for another layout or mask")
    try:
        planes = zstandard.ZstdDecompressor().decompress(body, max_output_size=4 * layout.size)
    except zstandard.ZstdError as error:
        raise UpdateError("an update is damaged") from error
    if len(planes) != 4 * layout.size:
        raise UpdateError("an update is damaged")
    flat = np.ascontiguousarray(np.frombuffer(planes, np.uint8).reshape(4, -1).T).view(np.float32).ravel()
    if not np.isfinite(flat).all():
        raise UpdateError("an update has values that are not finite")
    return Update(header[_HEADER.size :], Scheme(VALUES[values], keep), _shaped(flat, layout))


def _live(layout: Layout, mask: Mask | None) -> NDArray[np.bool_] | None:
    if mask is None:
        return None
    for name, each in mask.items():
        if each.shape != layout.shapes.get(name) or each.dtype != np.bool_:
            raise UpdateError(
                f"the mask of {name} is {each.dtype} {each.shape}; the array is {layout.shapes.get(name)}"
            )
    return np.concatenate([np.ravel(mask.get(name, np.ones(shape, np.bool_))) for name, shape in layout.shapes.items()])


def _check(header: bytes, body: bytes, layout: Layout, live: NDArray[np.bool_] | None) -> int:
    check = zlib.crc32(repr(list(layout.shapes.items())).encode())
    if live is not None:
        check = zlib.crc32(np.packbits(live).tobytes(), check)
    return zlib.crc32(body, zlib.crc32(header, check))


def _shaped(flat: NDArray[np.float32], layout: Layout) -> dict[str, NDArray[np.float32]]:
    ends = np.cumsum([prod(shape) for shape in layout.shapes.values()])
    return {n: part.reshape(s) for (n, s), part in zip(layout.shapes.items(), np.split(flat, ends[:-1]), strict=True)}
