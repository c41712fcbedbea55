"""Bytes from anywhere: each gives symbols or `FrameError`, in time and memory that the bytes have no say in."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import time
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headwater.compression.coder import Coder, Encoded
from headwater.compression.errors import FrameError
from headwater.compression.frame import Frame, FrameCodec, read_bundle_id
from headwater.compression.rans import Lane
from tests.compression.priors import Prior, laplace_prior, random_prior

ID = bytes(range(32))
CODEC = FrameCodec(ID, modes=1, groups=3)
LANES = pytest.mark.parametrize("lanes", [1, 2])


@cache
def _prior(lanes: int) -> Prior:
    return laplace_prior([0.3, 0.6, 1.0, 1.4], 5, 5, [1, 2, 4], lanes=lanes)


@cache
def _coders(lanes: int) -> tuple[Coder, Coder]:
    return _prior(lanes).coder("c"), _prior(lanes).coder("python")


@cache
def _encoded(lanes: int) -> Encoded:
    """A frame with escapes in it."""
    symbols = _prior(lanes).draw(np.random.default_rng(lanes), 0)
    symbols[0, 0, :3] = (-32768, 32767, 31)
    symbols[3, 4, 4] = -31
    return _coders(lanes)[0].encode(symbols, 0)


def _outcome(coder: Coder, payload: bytes, groups: int) -> np.ndarray | str:
    """Symbols or the error's text; anything else fails the test."""
    try:
        symbols = coder.decode(payload, 0, groups)
    except FrameError as error:
        return str(error)
    assert symbols.shape == (coder.tables.channels_of(0, groups), 5, 5)
    return symbols


def _both(lanes: int, payload: bytes, groups: int) -> np.ndarray | str:
    """What both implementations make of it, alone and in a batch: the same."""
    ours, reference = (_outcome(coder, payload, groups) for coder in _coders(lanes))
    assert type(ours) is type(reference)
    assert np.array_equal(ours, reference)
    for coder in _coders(lanes):
        latents, errors = coder.decode_batch([payload], [0], [groups])
        if isinstance(ours, str):
            assert str(errors[0]) == ours
            assert not latents.any()
        else:
            assert errors == [None]
            assert np.array_equal(latents[0, : len(ours)], ours.astype(np.float32) / 4)
    return ours


@LANES
@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(1, 3))
@example(b"\xff" * 200, 3)
@example(b"\x00" * 200, 3)
@example(b"\x00" * 7 + b"\x80", 3)
@example(b"\xff\xff\xff\x7f" * 50, 3)
def test_random_bytes(lanes: int, payload: bytes, groups: int) -> None:
    _both(lanes, payload, groups)


@LANES
def test_every_truncation(lanes: int) -> None:
    payload = _encoded(lanes).payload
    for end in range(len(payload)):
        for groups in (1, 2, 3):
            _both(lanes, payload[:end], groups)


@LANES
def test_every_flipped_byte(lanes: int) -> None:
    payload = _encoded(lanes).payload
    for at in range(len(payload)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = payload[:at] + bytes((payload[at] ^ flip,)) + payload[at + 1 :]
            for groups in (1, 3):
                _both(lanes, damaged, groups)


@LANES
def test_bytes_after_a_whole_frame_are_noticed(lanes: int) -> None:
    payload = _encoded(lanes).payload
    for tail in (b"\x00", b"\xff", b"\x00" * 4, b"\xff" * 4, b"\x00" * 400):
        assert isinstance(_both(lanes, payload + tail, 3), str)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.binary(max_size=80))
def test_random_bytes_against_random_tables(seed: int, payload: bytes) -> None:
    rng = np.random.default_rng(seed)
    prior = random_prior(rng)
    mode, groups = int(rng.integers(prior.tables.modes)), int(rng.integers(1, len(prior.tables.group_ends) + 1))
    ours, reference = (prior.coder(name).decode_batch([payload], [mode], [groups]) for name in ("c", "python"))
    assert np.array_equal(ours[0], reference[0])
    assert [str(error) for error in ours[1]] == [str(error) for error in reference[1]]


@pytest.mark.parametrize("bits", range(18, 32))
def test_an_escape_longer_than_any_distance(bits: int) -> None:
    assert "outside int16" in str(_both(1, _escape(bits, 0, 0), 3))


def test_an_escape_just_past_int16() -> None:
    low, frequencies = _prior(1).tables.table(0, 0)
    high = low + frequencies.size - 2
    within = {32767: 2 * (32767 - high - 1), -32768: 2 * (32768 + low - 1) + 1}
    for symbol, distance in within.items():
        symbols = _both(1, _escape_to(distance), 3)
        assert isinstance(symbols, np.ndarray)
        assert symbols[0, 0, 0] == symbol
        assert "outside int16" in str(_both(1, _escape_to(distance + 2), 3))
    assert "outside int16" in str(_both(1, _escape_to(2**17 - 1), 3))


def _escape_to(distance: int) -> bytes:
    bits = distance.bit_length()
    return _escape(bits, distance - (1 << (bits - 1)), bits - 1)


def _escape(length: int, value: int, bits: int) -> bytes:
    """A payload that begins with ESCAPE, a length, and a value of so many bits, then likeliest symbols."""
    coder = _coders(1)[1]
    lane = Lane(0, [])
    if bits:
        lane.push_raw(value, bits)
    lane.push_raw(length, 5)
    table = coder._rans._tables(0)[0]  # type: ignore[attr-defined]
    lane.push(table.slots[table.escape])
    assert not lane.words
    return lane.state.to_bytes(8, "little").rstrip(b"\x00")


@LANES
@pytest.mark.parametrize("symbol", [-32768, 32767])
def test_a_frame_of_nothing_but_escapes(lanes: int, symbol: int) -> None:
    symbols = np.full((4, 5, 5), symbol, np.int16)
    ours, reference = (coder.encode(symbols, 0) for coder in _coders(lanes))
    assert ours == reference
    assert np.array_equal(_both(lanes, ours.payload, 3), symbols)


def test_a_long_payload_costs_no_more_than_a_short_one() -> None:
    """What is decoded depends on the tables; 64 MiB of payload for a latent of 100 symbols are not even read."""
    payload, coder = b"\xff\xff\xff\x7f" * (16 << 20), _coders(1)[0]
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    for groups in (1, 2, 3):
        assert isinstance(_outcome(coder, payload, groups), str | np.ndarray)
    assert time.thread_time() - begin < 0.05
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096  # KiB


_CLAIMS = """
import resource, struct, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from headwater.compression.errors import FrameError
from headwater.compression.frame import FrameCodec
from tests.compression.priors import laplace_prior
coder, codec = laplace_prior([0.5, 1.0], 4, 4, [1, 2]).coder("c"), FrameCodec(bytes(32), 1, 2)
for size in (2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1):
    for claim in (struct.pack("<Q", size), struct.pack(">Q", size), struct.pack("<QQ", size, size)):
        for prefix in (b"", b"\\x00", b"HW\\x01" + bytes(5), b"\\x40\\x01"):
            for decode in (codec.unpack, codec.unpack_file, lambda data: coder.decode(data, 0)):
                try:
                    decode(prefix + claim)
                except FrameError:
                    pass
print("survived")
"""


def test_claims_of_sizes_of_2_to_the_31_and_more() -> None:
    """No field of a frame is a size; whatever is read as one allocates nothing. The process has 2 GiB in all."""
    done = subprocess.run([sys.executable, "-c", _CLAIMS], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("survived\n", "")


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_random_bytes_are_no_frame(data: bytes) -> None:
    for unpack in (CODEC.unpack, CODEC.unpack_file):
        try:
            frame = unpack(data)
        except FrameError:
            continue
        assert unpack(data) == frame  # once in 65536 strings a checksum is right
    with contextlib.suppress(FrameError):
        assert read_bundle_id(data) == data[3:8]


@pytest.mark.parametrize("groups", [1, 3])
def test_every_flipped_bit_and_truncation_of_a_packed_frame_is_noticed(groups: int) -> None:
    encoded = _encoded(1)
    frame = Frame(0, groups, encoded.payload[: encoded.group_ends[groups - 1]])
    for pack, unpack in ((CODEC.pack, CODEC.unpack), (CODEC.pack_file, CODEC.unpack_file)):
        data = pack(frame)
        assert unpack(data) == frame
        for bit in range(8 * len(data)):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(FrameError):
                unpack(bytes(damaged))
        for end in range(len(data)):
            with pytest.raises(FrameError):
                unpack(data[:end])
