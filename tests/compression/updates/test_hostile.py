"""Bytes from anywhere: each gives an update or `UpdateError`, in time and memory that the bytes have no say in."""

from __future__ import annotations

import resource
import struct
import subprocess
import sys
import time
import zlib
from functools import cache

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.compression.errors import UpdateError
from headwater.compression.updates import Layout, Scheme, codec, decode, encode, flat
from headwater.compression.updates.floats import FORMATS
from headwater.compression.updates.integers import decode_integers, encode_integers
from tests.compression.updates.deltas import LAYOUT, delta_of, mask_of

SCHEMES = [
    Scheme("float32"),
    Scheme("float32", 0.1),
    Scheme("float16", 0.1),
    Scheme("int8"),
    Scheme("int8", 0.1),
    Scheme("ternary", 0.1),
    Scheme("sign"),
    Scheme("factors", 0.1),
    Scheme("factors"),
]
EACH = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


@cache
def _data(scheme: Scheme) -> bytes:
    return encode(delta_of(LAYOUT), LAYOUT, scheme, base=b"version").data


def _signed(data: bytes) -> bytes:
    """With the checksum that such an update has to have: what a hostile device would send."""
    end = 13 + data[12]
    body = data[end + 4 :]
    return data[:end] + struct.pack("<I", codec._crc(data[:end], body, LAYOUT, None)) + body


def _decode(data: bytes) -> None:
    """An update of the layout, finite, or `UpdateError`; anything else fails the test."""
    try:
        update = decode(data, LAYOUT)
    except UpdateError:
        return
    assert {name: array.shape for name, array in update.arrays.items()} == LAYOUT.shapes
    assert all(np.isfinite(array).all() for array in update.arrays.values())


@EACH
def test_every_truncation_is_noticed(scheme: Scheme) -> None:
    data = _data(scheme)
    for end in range(len(data)):
        with pytest.raises(UpdateError):
            decode(data[:end], LAYOUT)


@EACH
def test_every_flipped_bit_is_noticed(scheme: Scheme) -> None:
    data = _data(scheme)
    for bit in range(8 * min(len(data), 100)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UpdateError):
            decode(bytes(damaged), LAYOUT)


@EACH
def test_every_truncation_with_a_right_checksum(scheme: Scheme) -> None:
    data = _data(scheme)
    for end in range(13 + data[12] + 4, len(data)):
        with pytest.raises(UpdateError):
            decode(_signed(data[:end]), LAYOUT)


@EACH
def test_every_flipped_byte_with_a_right_checksum(scheme: Scheme) -> None:
    data = _data(scheme)
    for at in range(min(len(data), 300)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = data[:at] + bytes((data[at] ^ flip,)) + data[at + 1 :]
            if at != 12 and not 20 <= at < 24:  # the length of the base, which moves the checksum, and the checksum
                damaged = _signed(damaged)
            _decode(damaged)


@EACH
def test_bytes_after_an_update_are_noticed(scheme: Scheme) -> None:
    for tail in (b"\x00", b"\x00" * 4, b"\xff" * 8):
        with pytest.raises(UpdateError):
            decode(_signed(_data(scheme) + tail), LAYOUT)


@settings(deadline=None)
@given(st.binary(max_size=120), st.sampled_from(range(8)), st.floats(allow_nan=True))
def test_random_bodies_behind_a_right_header(body: bytes, values: int, keep: float) -> None:
    header = struct.pack("<2sBBdB", b"HU", 1, values, keep, 0)
    _decode(_signed(header + bytes(4) + body))


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_random_bytes_are_no_update(data: bytes) -> None:
    with pytest.raises(UpdateError):
        decode(data, LAYOUT)


def test_another_layout_mask_or_version() -> None:
    data = _data(Scheme("int8"))
    same_size = Layout({"other": (LAYOUT.size,)})
    mask = mask_of(LAYOUT)
    for layout, known in ((same_size, None), (LAYOUT, mask), (LAYOUT.at(0.5), None)):
        with pytest.raises(UpdateError, match="another layout or mask"):
            decode(data, layout, mask=known)
    with pytest.raises(UpdateError, match="version 2"):
        decode(data[:2] + b"\x02" + data[3:], LAYOUT)
    masked = encode(delta_of(LAYOUT), LAYOUT, Scheme("int8"), base=b"", mask=mask).data
    with pytest.raises(UpdateError, match="another layout or mask"):
        decode(masked, LAYOUT, mask={name: ~each for name, each in mask.items()})


@pytest.mark.parametrize("mask", [{"a": np.ones(3, np.bool_)}, {"no": np.ones(1, np.bool_)}, {"a": np.ones((1, 1))}])
def test_a_mask_of_something_else(mask: dict[str, np.ndarray]) -> None:
    for call in (
        lambda: encode(delta_of(LAYOUT), LAYOUT, Scheme(), base=b"", mask=mask),
        lambda: decode(b"", LAYOUT, mask=mask),
    ):
        with pytest.raises(UpdateError, match="the mask of"):
            call()


@pytest.mark.parametrize(("exponent", "fits"), [(-16, False), (-15, True), (15, True), (16, False), (127, False)])
def test_exponents_that_no_finite_value_has_are_refused(exponent: int, fits: bool) -> None:
    """A float32 has every exponent that an int8 but -128 has, which is not coded; a float16 has fewer."""
    sides = flat.sides(LAYOUT, 7)
    coded = encode_integers(np.full(LAYOUT.size, exponent, np.int8), None, sides)
    rests = FORMATS["float16"].encode_rests(np.zeros(LAYOUT.size, np.uint16))
    body = struct.pack("<II", 0, len(coded)) + coded + rests
    data = _signed(struct.pack("<2sBBdB", b"HU", 1, 1, 1.0, 0) + bytes(4) + body)
    if fits:
        assert decode(data, LAYOUT).arrays["norm"][0] == (2.0**exponent if exponent > -15 else 0)
        return
    with pytest.raises(UpdateError, match="not finite"):
        decode(data, LAYOUT)


def test_steps_that_overflow_are_refused() -> None:
    for top, message in ((127 * 4, "not finite"), (127 * 4 + 1, "impossible steps"), (-32768, "impossible steps")):
        data = bytearray(_data(Scheme("int8")))
        data[24:26] = struct.pack("<h", top)
        with pytest.raises(UpdateError, match=message):
            decode(_signed(bytes(data)), LAYOUT)


def test_a_plane_that_claims_to_be_large_makes_no_room() -> None:
    bomb = zstandard.compress(bytes(1 << 28))
    unknown = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(10))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for plane in (bomb, unknown, b"", b"\x28\xb5\x2f\xfd" + b"\xff" * 20):
        data = struct.pack("<I", len(plane) | 1 << 31) + plane
        with pytest.raises(UpdateError, match="plane"):
            FORMATS["float32"].decode_rests(data * 3, 10)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB


def test_a_length_past_the_end() -> None:
    for length in (5, 2**31 - 1, 2**32 - 1):
        with pytest.raises(UpdateError):
            FORMATS["float32"].decode_rests(struct.pack("<I", length) + b"1234", 4)
        header = struct.pack("<2sBBdB", b"HU", 1, 0, 1.0, 0)
        with pytest.raises(UpdateError, match="cut off"):
            decode(_signed(header + bytes(4) + struct.pack("<II", length, length) + b"1234"), LAYOUT)


def test_a_long_body_costs_no_more_than_a_short_one() -> None:
    sides = np.array([[3, 4, 7]], np.uint32)
    data, begin = b"\xff\xff\xff\x7f" * (4 << 20), time.thread_time()
    with pytest.raises(UpdateError):
        decode_integers(data, None, sides)
    assert time.thread_time() - begin < 0.05


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([1, 2, 3, 7]), st.booleans())
def test_c_and_python_make_the_same_of_any_bytes(data: bytes, alphabet: int, masked: bool) -> None:
    sides = np.array([[3, 5, alphabet], [1, 4, 7]], np.uint32)
    live = (np.arange(19) % 3 != 1).astype(np.uint8) if masked else None
    outcomes: list[object] = []
    for implementation in ("c", "python"):
        try:
            outcomes.append(decode_integers(data, live, sides, implementation=implementation).tolist())  # type: ignore[arg-type]
        except UpdateError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_the_c_coder_checks_its_arguments() -> None:
    from headwater.compression import _rans

    values, none = np.zeros(6, np.int8), np.zeros(0, np.uint8)
    for sides in ([[2, 2, 7]], [[2, 4, 7]], [[2**32 - 1, 2**32 - 1, 7]], [[2, 3, 7], [2**31, 2, 7]]):
        with pytest.raises(ValueError, match="differ in length"):
            _rans.encode_values(values, none, np.array(sides, np.uint32))
        with pytest.raises(ValueError, match="differ in length"):
            _rans.decode_values(b"", none, np.array(sides, np.uint32), values)
    with pytest.raises(ValueError, match="differ in length"):
        _rans.encode_values(values, np.ones(5, np.uint8), np.array([[2, 3, 7]], np.uint32))
    assert zlib.crc32(encode_integers(values, None, np.array([[2, 3, 7]], np.uint32)))


_CLAIMS = """
import resource, struct
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from headwater.compression.errors import UpdateError
from headwater.compression.updates import codec, decode
from tests.compression.updates.deltas import LAYOUT
for size in (2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1):
    for claim in (struct.pack("<Q", size), struct.pack(">Q", size)):
        for values in range(5):
            header = struct.pack("<2sBBdB", b"HU", 1, values, 1.0, 0)
            for body in (claim, claim * 2, bytes(4) + claim, bytes(8) + claim, bytes(2) + claim * 3):
                try:
                    decode(header + struct.pack("<I", codec._crc(header, body, LAYOUT, None)) + body, LAYOUT)
                except UpdateError:
                    pass
print("survived")
"""


def test_claims_of_sizes_of_2_to_the_31_and_more() -> None:
    """Whatever is read as a size allocates nothing. The process has 2 GiB in all."""
    done = subprocess.run([sys.executable, "-c", _CLAIMS], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("survived\n", "")
