"""Targets: what a frame or an update is made of. Each says of any bytes whether they were taken, or fails.

Where a checksum stands in the way, the first byte of an input says whether to put the right one in: what a hostile
device would do.
"""

from __future__ import annotations

import struct
from functools import cache

import numpy as np

from headwater.compression.coder import Coder
from headwater.compression.errors import FrameError, UpdateError
from headwater.compression.frame import Frame, FrameCodec
from headwater.compression.parts import Joiner, split
from headwater.compression.updates import Scheme, codec, decode, encode, flat
from headwater.compression.updates.integers import decode_integers, encode_integers
from headwater.compression.updates.scheme import VALUES
from tests.compression.priors import laplace_prior, random_prior
from tests.compression.updates.deltas import LAYOUT, delta_of, mask_of

CODEC = FrameCodec(bytes(range(32)), modes=5, groups=4, opinions=3)
PRIORS = 16
"""How many sets of tables the coder's inputs choose from."""
MASK = mask_of(LAYOUT)
SIDES = np.array([[3, 5, 7], [1, 4, 3], [2, 2, 1]], np.uint32)


# ---------------------------------------------------------------- frame


def frame(data: bytes) -> bool:
    """Byte 0: 0 as it is, 1 self-contained, 2 with the right checksum; the rest is the frame."""
    how, data = data[:1], data[1:]
    unpack, pack = (CODEC.unpack_file, CODEC.pack_file) if how == b"\x01" else (CODEC.unpack, CODEC.pack)
    try:
        got = unpack(_checked(data) if how == b"\x02" else data)
    except FrameError:
        return False
    assert unpack(pack(got)) == got
    assert got.mode < CODEC.modes
    assert 1 <= got.groups <= CODEC.groups
    return True


def frame_seeds() -> list[bytes]:
    frames = [Frame(0, 4, b"payload"), Frame(3, 2, b"cut", opinion=1), Frame(4, 4, b"")]
    packed = [b"\x00" + CODEC.pack(each) for each in frames] + [b"\x01" + CODEC.pack_file(each) for each in frames]
    return packed + [b"\x02" + data[1:] for data in packed[:3]]


def _checked(data: bytes) -> bytes:
    """The stream form with the checksum that its other bytes want."""
    size = 2 if data[:1] and data[0] & 0x40 else 1
    header, body = data[:size], data[size + 2 :]
    return header + struct.pack("<H", CODEC._crc(header, b"", body)) + body


def parts(data: bytes) -> bool:
    """Parts of one frame, each with its length before it, the checksums put right."""
    joiner = Joiner(CODEC, CODEC.groups, max_bytes=64)
    while data:
        size, part, data = data[0], data[1 : 1 + data[0]], data[1 + data[0] :]
        before, kept = joiner.frame, joiner.size
        try:
            joiner.add(_continued(part, b"" if before is None else before.body) if size % 2 else part)
        except FrameError:
            assert (joiner.frame, joiner.size) == (before, kept)
            continue
        assert joiner.frame is not None
        assert len(joiner.frame.payload) <= joiner.size <= 64
    return joiner.frame is not None


def parts_seeds() -> list[bytes]:
    whole = Frame(2, 4, b"one two three four", opinion=2)
    made = split(CODEC, whole, (4, 8, 14, 18), least_bytes=1)
    return [b"".join(bytes((len(part.data),)) + part.data for part in chosen) for chosen in (made, made[:2], made[1:])]


def _continued(data: bytes, before: bytes) -> bytes:
    size = 2 if data[:1] and data[0] & 0x40 else 1
    header, body = data[:size], data[size + 2 :]
    return header + struct.pack("<H", CODEC._crc(header, before, body)) + body


# ---------------------------------------------------------------- coder


@cache
def coders(number: int) -> tuple[Coder, Coder]:
    """C and Python with one set of tables."""
    prior = (
        laplace_prior([0.3, 0.6, 1.0, 1.4], 5, 5, [1, 2, 4], lanes=1 + number % 2)
        if number < 2
        else random_prior(np.random.default_rng(number))
    )
    return prior.coder("c"), prior.coder("python")


def coder(data: bytes) -> bool:
    """Byte 0 chooses tables, 1 the mode, 2 the groups; the rest is the payload. C and Python make the same of it."""
    if len(data) < 3:
        return False
    pair = coders(data[0] % PRIORS)
    tables = pair[0].tables
    mode, groups, payload = data[1] % tables.modes, 1 + data[2] % len(tables.group_ends), data[3:]
    outcomes = [_decoded(each, payload, mode, groups) for each in pair]
    assert type(outcomes[0]) is type(outcomes[1])
    assert np.array_equal(outcomes[0], outcomes[1])
    batches = [each.decode_batch([payload, payload], [mode, mode], [groups, 1]) for each in pair]
    assert np.array_equal(batches[0][0], batches[1][0])
    assert list(map(str, batches[0][1])) == list(map(str, batches[1][1]))
    if isinstance(outcomes[0], str):
        assert str(batches[0][1][0]) == outcomes[0]
    elif len(outcomes[0]) == tables.mode_channels[mode]:  # what decodes whole is what an encoder writes, byte for byte
        again = pair[0].encode(outcomes[0], mode)
        assert again == pair[1].encode(outcomes[0], mode)
        assert np.array_equal(pair[0].decode(again.payload, mode), outcomes[0])
    return not isinstance(outcomes[0], str)


def coder_seeds() -> list[bytes]:
    found = []
    for number in range(4):
        ours = coders(number)[0]
        rng = np.random.default_rng(number)
        symbols = rng.integers(-3, 4, ours._shapes[0]).astype(np.int16)
        symbols.flat[:2] = (-32768, 32767)
        found.append(bytes((number, 0, 255 // len(ours.tables.group_ends))) + ours.encode(symbols, 0).payload)
    return found


def _decoded(ours: Coder, payload: bytes, mode: int, groups: int) -> np.ndarray | str:
    try:
        return ours.decode(payload, mode, groups)
    except FrameError as error:
        return str(error)


# ---------------------------------------------------------------- updates


def update(data: bytes) -> bool:
    """Byte 0: bit 0 with the right checksum, bit 1 masked; the rest is the update."""
    how, data = data[0] if data else 0, data[1:]
    mask = MASK if how & 2 else None
    try:
        got = decode(_signed(data, masked=mask is not None) if how & 1 else data, LAYOUT, mask=mask)
    except UpdateError:
        return False
    assert {name: array.shape for name, array in got.arrays.items()} == LAYOUT.shapes
    assert all(np.isfinite(array).all() for array in got.arrays.values())
    return True


def update_seeds() -> list[bytes]:
    delta = delta_of(LAYOUT)
    made = [encode(delta, LAYOUT, Scheme(values), base=b"v1").data for values in VALUES]
    sparse = encode(delta, LAYOUT, Scheme("ternary", 0.05), base=b"", mask=MASK).data
    return [b"\x01" + data for data in made] + [b"\x03" + sparse, b"\x00" + made[0]]


def _signed(data: bytes, *, masked: bool) -> bytes:
    if len(data) < 13 or len(data) < 13 + data[12] + 4:
        return data
    end = 13 + data[12]
    live = flat.live(LAYOUT, MASK if masked else None)
    return data[:end] + struct.pack("<I", codec._crc(data[:end], data[end + 4 :], LAYOUT, live)) + data[end + 4 :]


def integers(data: bytes) -> bool:
    """Byte 0: masked or not; the rest are the integers of an update. C and Python make the same of them."""
    live = (np.arange(int((SIDES[:, 0] * SIDES[:, 1]).sum())) % 3 != 1).astype(np.uint8)
    masked = live if data[:1] == b"\x01" else None
    outcomes: list[object] = []
    for implementation in ("c", "python"):
        try:
            got = decode_integers(data[1:], masked, SIDES, implementation=implementation)  # type: ignore[arg-type]
        except UpdateError as error:
            outcomes.append(str(error))
            continue
        outcomes.append(got.tolist())
        assert encode_integers(got, masked, SIDES) == encode_integers(got, masked, SIDES, implementation="python")
    assert outcomes[0] == outcomes[1]
    return not isinstance(outcomes[0], str)


def integers_seeds() -> list[bytes]:
    values = np.array([0, 5, -3, 0, 127, 0, -127, 1, 0, 0, 2, 0, 0, 0, 0, -1, 1, 1, -1, 0, 1, 1, 0], np.int8)
    live = (np.arange(values.size) % 3 != 1).astype(np.uint8)
    masked = np.where(live, values, 0).astype(np.int8)
    return [b"\x00" + encode_integers(values, None, SIDES), b"\x01" + encode_integers(masked, live, SIDES)]
