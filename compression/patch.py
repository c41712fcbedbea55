"""A bundle as one string of bytes: whole, or as what has changed since another bundle that the receiver has.

    0   4   magic "HWP" and version 1
    4   32  id of the bundle that this makes
    36  32  id of the bundle that it changes; zeros for none
    68      the manifest, the signature, then the files that the manifest lists in the order of their names, each as
            0  1  method, see below
            1  4  length of the file, little-endian
            5  4  length n of what follows
            9  n

Methods: 0, the old bundle's file as it is; 1, zstd; 2, zstd with the old file as dictionary; 3, 4 and 5, the difference
to the old file of the same length, byte by byte modulo 256, sorted by position modulo 1, 2 or 4, zstd; 6, left out: the
receiver does without the file.

The difference is for weights that moved a little: of a float's bytes the high ones stay (ZipNN and its like use the
same planes), an 8-bit weight moves by one. That beats the dictionary, which looks for longer things alike, by far, in a
quarter of its time, so that this is not tried where the length is the same. Nobody has to know where in a graph's bytes
a tensor begins, since positions are all that counts.

Reading is total: any bytes give the bundle of the id that they state, checked to the last file, or a `BundleError`, in
memory and time that the manifest's sizes bound.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import zstandard

from headwater.compression.bundle import MAX_FILE_BYTES, Bundle
from headwater.compression.errors import BundleError
from headwater.compression.manifest import MAX_MANIFEST_BYTES, Manifest, for_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAGIC = b"HWP\x01"
LEVEL = 9
"""Of zstd: 19 saves a tenth of a patch and takes thirty times as long."""
TRIAL_LEVEL = 1
"""Finds out which way is the shortest: all of them at the other level take four times as long."""
NO_BUNDLE = bytes(32)
MAX_SIGNATURE_BYTES = 4096
_HEADER = struct.Struct("<4s32s32s")
_ENTRY = struct.Struct("<BII")


class Method(IntEnum):
    """How a file is packed."""

    SAME = 0
    ZSTD = 1
    DICTIONARY = 2
    PLANES_1 = 3
    PLANES_2 = 4
    PLANES_4 = 5
    LEFT_OUT = 6


_PLANES = {Method.PLANES_1: 1, Method.PLANES_2: 2, Method.PLANES_4: 4}


@dataclass(frozen=True)
class Ids:
    """What a patch says of itself."""

    makes: bytes
    """Id of the bundle that it makes."""
    changes: bytes | None
    """Id of the bundle that the receiver must have; None for none."""


def make(new: Bundle, old: Bundle | None = None, *, device: bool = False) -> bytes:
    """Pack a bundle; the same bundles always give the same bytes (of one version of zstd).

    Args:
        new: the bundle.
        old: what the receiver has; None for nothing.
        device: leave out what only a server reads, and rely on none of that in ``old``.
    """
    had = {} if old is None else {"": old.manifest_bytes, **_files(old, device=device)}
    parts = [_HEADER.pack(MAGIC, new.id, NO_BUNDLE if old is None else old.id)]
    parts += [_pack(new.manifest_bytes, had.get("")), _pack(new.signature or b"", None)]
    have = _files(new, device=device)
    parts += [
        _pack(have[name], had.get(name)) if name in have else _entry(Method.LEFT_OUT, 0, b"")
        for name in sorted(new.manifest.files)
    ]
    return b"".join(parts)


def most_bytes(size: int) -> int:
    """The most that a bundle of so many bytes is ever packed in: zstd adds a little to what does not shrink."""
    return size + size // 128 + (1 << 16)


def read_ids(data: bytes) -> Ids:
    """Which bundles a patch is about; raises :class:`BundleError` for bytes that are none."""
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise BundleError(
            f"{len(data)} bytes beginning with {data[:4].hex() or 'nothing'} are no packed bundle; one begins with "
            f"{MAGIC.hex()} and has at least {_HEADER.size}"
        )
    _, makes, changes = _HEADER.unpack_from(data)
    return Ids(makes, None if changes == NO_BUNDLE else changes)


def apply(data: bytes, old: Bundle | None = None) -> Bundle:
    """Unpack a bundle, which is whole and checked; raises :class:`BundleError`.

    ``old`` must be the bundle that the patch changes, if it changes one; it may lack files that the patch leaves out.
    """
    ids = read_ids(data)
    if ids.changes is not None and (old is None or old.id != ids.changes):
        got = "none is there" if old is None else f"{old.short_id} is there"
        raise BundleError(f"the packed bundle changes {ids.changes[:5].hex()}, but {got}; fetch it whole")
    base = old if ids.changes is not None else None
    entries = _entries(data)
    manifest_bytes = _unpack(_next(entries), None if base is None else base.manifest_bytes, MAX_MANIFEST_BYTES)
    if hashlib.sha256(manifest_bytes).digest() != ids.makes:
        raise BundleError("the packed bundle's manifest is not the one that it names; fetch it again")
    signature = _unpack(_next(entries), None, MAX_SIGNATURE_BYTES)
    manifest = Manifest.from_json(manifest_bytes)
    files: dict[str, bytes] = {}
    for name in sorted(manifest.files):
        entry, size = _next(entries), manifest.files[name].size
        if entry.method == Method.LEFT_OUT and for_server(name):
            continue
        if entry.size != size or size > MAX_FILE_BYTES:
            raise BundleError(f"{name} is packed as {entry.size} bytes; the manifest says {size}; fetch it again")
        had = base.read(name) if base is not None and name in base else None
        files[name] = _unpack(entry, had, size)
    if next(entries, None) is not None:
        raise BundleError("there is something after the end of the packed bundle; fetch it again")
    return Bundle(manifest_bytes, files, signature or None, device=True)


# ---------------------------------------------------------------- one file


@dataclass(frozen=True)
class _Entry:
    method: int
    size: int
    data: bytes


def _files(bundle: Bundle, *, device: bool) -> dict[str, bytes]:
    names = [name for name in bundle.manifest.files if name in bundle and not (device and for_server(name))]
    return {name: bundle.read(name) for name in names}


def _pack(new: bytes, old: bytes | None) -> bytes:
    """The way to say it that is the shortest when each is tried quickly, said well."""
    if new == old:
        return _entry(Method.SAME, len(new), b"")
    ways: dict[Method, Callable[[int], bytes]] = {Method.ZSTD: partial(_deflate, new)}
    if old and new and len(new) != len(old):
        ways[Method.DICTIONARY] = partial(_with_dictionary, new, old)
    elif old and new:
        difference = np.subtract(_bytes(new), _bytes(old))  # modulo 256
        for method, planes in _PLANES.items():
            sorted_bytes = np.concatenate([difference[start::planes] for start in range(planes)]).tobytes()
            ways[method] = partial(_deflate, sorted_bytes)
    shortest = min(ways, key=lambda method: len(ways[method](TRIAL_LEVEL))) if len(ways) > 1 else Method.ZSTD
    return _entry(shortest, len(new), ways[shortest](LEVEL))


def _deflate(data: bytes, level: int) -> bytes:
    return zstandard.ZstdCompressor(level=level).compress(data)


def _with_dictionary(new: bytes, old: bytes, level: int) -> bytes:
    # The window has to reach back over the whole of the old file.
    log = min(max((len(new) + len(old)).bit_length(), 10), 27)
    parameters = zstandard.ZstdCompressionParameters.from_level(level, window_log=log, enable_ldm=True)
    return zstandard.ZstdCompressor(dict_data=_dictionary(old), compression_params=parameters).compress(new)


def _dictionary(old: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(old, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _entry(method: Method, size: int, data: bytes) -> bytes:
    return _ENTRY.pack(method, size, len(data)) + data


def _entries(data: bytes) -> Iterator[_Entry]:
    at = _HEADER.size
    while at < len(data):
        if len(data) - at < _ENTRY.size:
            raise _cut()
        method, size, length = _ENTRY.unpack_from(data, at)
        at += _ENTRY.size
        if len(data) - at < length:
            raise _cut()
        yield _Entry(method, size, data[at : at + length])
        at += length


def _next(entries: Iterator[_Entry]) -> _Entry:
    entry = next(entries, None)
    if entry is None:
        raise _cut()
    return entry


def _unpack(entry: _Entry, old: bytes | None, most: int) -> bytes:
    """The bytes of a file, at most so many."""
    if entry.size > most:
        raise BundleError(f"a file is packed as {entry.size} bytes; at most {most} are read; fetch the bundle again")
    if entry.method == Method.ZSTD:
        return _inflate(entry, None)
    if old is None:
        raise BundleError(
            f"a file is packed with method {entry.method}, which needs the old bundle's, and that is not here; "
            "fetch the bundle whole"
        )
    if entry.method == Method.SAME:
        return old
    if entry.method == Method.DICTIONARY:
        return _inflate(entry, _dictionary(old))
    return _undo_planes(entry, old)


def _undo_planes(entry: _Entry, old: bytes) -> bytes:
    planes = _PLANES.get(entry.method)  # type: ignore[call-overload]  # any number is looked up
    if planes is None or entry.size != len(old):
        raise BundleError(f"a file is packed with method {entry.method} for {entry.size} bytes; fetch the bundle again")
    sorted_bytes, difference = _bytes(_inflate(entry, None)), np.empty(entry.size, np.uint8)
    at = 0
    for start in range(planes):
        plane = difference[start::planes]
        plane[:] = sorted_bytes[at : at + len(plane)]
        at += len(plane)
    return np.add(difference, _bytes(old)).tobytes()


def _inflate(entry: _Entry, dictionary: zstandard.ZstdCompressionDict | None) -> bytes:
    try:
        claimed = zstandard.get_frame_parameters(entry.data).content_size
        if claimed != entry.size:  # it is what decompressing would allocate
            raise BundleError(f"a packed file claims {claimed} bytes, not {entry.size}; fetch the bundle again")
        data = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(entry.data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BundleError(f"a packed file is damaged: {error}; fetch the bundle again") from error
    if len(data) != entry.size:
        raise BundleError(f"a packed file gives {len(data)} bytes, not {entry.size}; fetch the bundle again")
    return data


def _bytes(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(data, np.uint8)


def _cut() -> BundleError:
    return BundleError("the packed bundle ends too early; fetch it again")
