from __future__ import annotations

from binascii import crc_hqx

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.compression.errors import FrameError
from headwater.compression.frame import Frame, FrameCodec, read_bundle_id

ID = bytes(range(32))
CODEC = FrameCodec(ID, modes=16, groups=4)
HEARD = FrameCodec(ID, modes=16, groups=4, opinions=9)
FRAMES = st.builds(Frame, st.integers(0, 15), st.integers(1, 4), st.binary(max_size=100))
OPINIONS = st.builds(Frame, st.integers(0, 15), st.integers(1, 4), st.binary(max_size=9), st.integers(0, 8))


@given(FRAMES)
def test_both_forms_come_back_as_they_went(frame: Frame) -> None:
    for codec in (CODEC, HEARD):
        assert codec.unpack(codec.pack(frame)) == frame
        assert codec.unpack_file(codec.pack_file(frame)) == frame


@given(OPINIONS)
def test_an_opinion_is_one_byte_and_comes_back(frame: Frame) -> None:
    packed = HEARD.pack(frame)
    assert HEARD.unpack(packed) == frame
    assert HEARD.unpack_file(HEARD.pack_file(frame)) == frame
    assert len(packed) == len(HEARD.pack(Frame(frame.mode, frame.groups, frame.payload))) + 1


def test_an_opinion_that_the_bundle_has_not() -> None:
    for codec, opinion in ((HEARD, 9), (HEARD, -1), (CODEC, 0)):
        with pytest.raises(ValueError, match=f"opinion {opinion}; this bundle has {codec.opinions}"):
            codec.pack(Frame(0, 4, b"x", opinion))
    more = FrameCodec(ID, modes=16, groups=4, opinions=10)
    with pytest.raises(FrameError, match="opinion is 9; this bundle has 0 to 8"):
        HEARD.unpack(more.pack(Frame(0, 4, b"x", 9)))
    crc = crc_hqx(ID + b"\x80", 0xFFFF)
    with pytest.raises(FrameError, match="opinion is missing"):
        HEARD.unpack(b"\x80" + crc.to_bytes(2, "little"))
    with pytest.raises(ValueError, match="257 opinions"):
        FrameCodec(ID, 1, 1, 257)


def test_the_header_is_as_small_as_was_promised() -> None:
    assert len(CODEC.pack(Frame(3, 4, b""))) == 3
    assert len(CODEC.pack(Frame(3, 2, b""))) == 4
    assert len(CODEC.pack_file(Frame(3, 4, b""))) == 11
    assert len(CODEC.pack_file(Frame(3, 2, b""))) == 12


def test_the_bytes_are_those_of_the_documented_layout() -> None:
    crc = crc_hqx(ID + b"\x05" + b"payload", 0xFFFF)
    assert CODEC.pack(Frame(5, 4, b"payload")) == b"\x05" + crc.to_bytes(2, "little") + b"payload"
    crc = crc_hqx(ID + b"\x45\x03" + b"payload", 0xFFFF)
    stream = b"\x45\x03" + crc.to_bytes(2, "little") + b"payload"
    assert CODEC.pack(Frame(5, 3, b"payload")) == stream
    assert CODEC.pack_file(Frame(5, 3, b"payload")) == b"HW\x01" + ID[:5] + stream
    crc = crc_hqx(ID + b"\xc5\x03" + b"\x08payload", 0xFFFF)
    assert HEARD.pack(Frame(5, 3, b"payload", 8)) == b"\xc5\x03" + crc.to_bytes(2, "little") + b"\x08payload"


def test_the_checksum_is_the_named_one() -> None:
    assert crc_hqx(b"123456789", 0xFFFF) == 0x29B1  # the catalogue's check value of CRC-16/IBM-3740


def test_a_frame_of_another_bundle_is_refused() -> None:
    other = FrameCodec(bytes(reversed(ID)), modes=16, groups=4)
    sibling = FrameCodec(ID[:-1] + b"\xff", modes=16, groups=4)  # the same first five bytes
    frame = Frame(1, 4, b"some payload")
    with pytest.raises(FrameError, match="damaged or of another bundle"):
        other.unpack(CODEC.pack(frame))
    with pytest.raises(FrameError, match="of the bundle 0001020304; this one is 1f1e1d1c1b"):
        other.unpack_file(CODEC.pack_file(frame))
    with pytest.raises(FrameError, match="damaged or of another bundle"):
        sibling.unpack_file(CODEC.pack_file(frame))


def test_the_bundle_can_be_read_off_a_file() -> None:
    assert read_bundle_id(CODEC.pack_file(Frame(0, 4, b"x"))) == ID[:5]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\x00", "has 1 bytes; its header alone has 3"),
        (b"\x00\x00", "has 2 bytes; its header alone has 3"),
        (b"\x40\x01\x00", "has 3 bytes; its header alone has 4"),
        (b"\x80\x00\x00", "begins with 0x80; want a mode from 0 to 15, bit 7 clear"),
        (b"\x10\x00\x00", "begins with 0x10; want a mode from 0 to 15"),
        (b"\x40\x00\x00\x00", "a partial one of 0 groups; want 1 to 3"),
        (b"\x40\x04\x00\x00", "a partial one of 4 groups; want 1 to 3"),
        (b"\x00\x00\x00", "checksum is 0x0000, want 0x"),
    ],
)
def test_what_is_no_frame_is_refused_with_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        CODEC.unpack(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has 0 bytes; a self-contained one has at least 11"),
        (b"HW\x01" + ID[:4], "has 7 bytes"),
        (b"PK\x01" + ID[:5], r"begins with b'PK', not b'HW'"),
        (b"HW\x02" + ID[:5], "has version 2; this headwater reads version 1"),
        (b"HW\x01" + ID[:5], "is empty"),
    ],
)
def test_what_is_no_self_contained_frame_is_refused_with_a_reason(data: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        CODEC.unpack_file(data)


@pytest.mark.parametrize(("mode", "groups"), [(16, 4), (-1, 4), (0, 0), (0, 5)])
def test_what_the_bundle_has_not_cannot_be_packed(mode: int, groups: int) -> None:
    with pytest.raises(ValueError, match=f"mode {mode} with {groups} groups; want 0 to 15 with 1 to 4"):
        CODEC.pack(Frame(mode, groups, b""))


@pytest.mark.parametrize(
    ("bundle_id", "modes", "groups"), [(ID[:5], 1, 1), (ID, 0, 1), (ID, 65, 1), (ID, 1, 0), (ID, 1, 256)]
)
def test_a_codec_out_of_range_cannot_be_made(bundle_id: bytes, modes: int, groups: int) -> None:
    with pytest.raises(ValueError, match="want 32, 1 to 64, 1 to 255"):
        FrameCodec(bundle_id, modes, groups)


def test_the_limits_of_modes_and_groups() -> None:
    codec = FrameCodec(ID, 64, 255)
    for frame in (Frame(63, 255, b"a"), Frame(63, 254, b"a"), Frame(0, 1, b"a")):
        assert codec.unpack(codec.pack(frame)) == frame
    only = FrameCodec(ID, 1, 1)
    assert only.unpack(only.pack(Frame(0, 1, b"a"))) == Frame(0, 1, b"a")
    with pytest.raises(FrameError, match="partial"):
        only.unpack(b"\x40\x01\x00\x00")
