"""Frames in parts: split at group ends, joined in order, and refused in any other."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.compression.errors import FrameError
from headwater.compression.frame import Frame, FrameCodec
from headwater.compression.parts import Joiner, split
from tests import tiny

ID = bytes(range(32))
CODEC = FrameCodec(ID, modes=16, groups=4, opinions=9)
LIMIT = 2000

SIZES = st.lists(st.integers(0, 60), min_size=4, max_size=4)


OPINION = st.none() | st.integers(0, 8)


def coded(sizes: list[int], groups: int = 4, opinion: int | None = None) -> tuple[Frame, list[int]]:
    """A frame whose groups have these sizes."""
    ends = list(accumulate(sizes))
    return Frame(5, groups, np.random.default_rng(sizes).bytes(ends[-1])[: ends[groups - 1]], opinion), ends


def cut_up(frame: Frame, ends: list[int], least_bytes: int = 40) -> list[bytes]:
    """What travels of each part."""
    return [part.data for part in split(CODEC, frame, ends, least_bytes)]


def join(parts: list[bytes], groups: int = 4) -> Joiner:
    joiner = Joiner(CODEC, groups, LIMIT)
    for part in parts:
        assert not joiner.complete
        joiner.add(part)
    return joiner


@given(SIZES, st.integers(1, 4), st.integers(0, 100), OPINION)
def test_parts_come_back_as_the_frame_that_went(sizes: list[int], groups: int, least: int, opinion: int | None) -> None:
    frame, ends = coded(sizes, groups, opinion)
    parts = cut_up(frame, ends, least)
    joiner = join(parts, groups)
    assert joiner.complete
    assert joiner.frame == frame
    assert joiner.size == sum(map(len, parts))


@given(SIZES, st.integers(0, 30), OPINION)
def test_every_beginning_is_the_frame_cut_there(sizes: list[int], least: int, opinion: int | None) -> None:
    frame, ends = coded(sizes, opinion=opinion)
    parts = cut_up(frame, ends, least)
    for count in range(1, len(parts)):
        so_far = join(parts[:count]).frame
        assert so_far is not None
        assert so_far == Frame(frame.mode, so_far.groups, frame.payload[: ends[so_far.groups - 1]], opinion)


@given(SIZES, st.integers(1, 100))
def test_no_part_is_smaller_than_was_asked_for_unless_it_is_the_only_one(sizes: list[int], least: int) -> None:
    frame, ends = coded(sizes)
    parts = cut_up(frame, ends, least)
    payloads = [len(part) - (4 if part[0] & 0x40 else 3) for part in parts]
    assert sum(payloads) == len(frame.payload)
    assert len(parts) == 1 or min(payloads) >= least


def test_a_frame_too_small_to_split_is_the_frame_itself() -> None:
    frame, ends = coded([10, 10, 10, 10])
    assert split(CODEC, frame, ends) == [(4, CODEC.pack(frame))]


def test_as_many_parts_as_groups() -> None:
    frame, ends = coded([50, 41, 0, 60])
    assert [part.groups for part in split(CODEC, frame, ends, 0)] == [1, 2, 3, 4]
    parts = split(CODEC, frame, ends)
    assert [part.groups for part in parts] == [1, 2, 4]
    assert [part.data[:2] for part in parts[:2]] == [b"\x45\x01", b"\x45\x02"]
    assert parts[2].data[0] == 0x05  # the last one has no partial flag


def test_the_first_part_is_a_cut_frame_and_the_last_one_s_checksum_the_whole_frame_s() -> None:
    frame, ends = coded([50, 50, 50, 50])
    parts = cut_up(frame, ends)
    assert CODEC.unpack(parts[0]) == Frame(5, 1, frame.payload[:50])
    assert parts[-1][1:3] == CODEC.pack(frame)[1:3]


def test_only_the_first_part_brings_the_opinion(parts: list[bytes]) -> None:
    frame, ends = coded([50, 50, 50, 50], opinion=7)
    told = cut_up(frame, ends)
    assert [part[0] & 0x80 for part in told] == [0x80, 0, 0, 0]
    assert [len(part) for part in told] == [55, 54, 54, 53]
    joiner = join(told[:1])
    refused(joiner, parts[1], "checksum")
    assert joiner.frame is not None
    refused(joiner, CODEC.pack(Frame(5, 2, b"x", 7), joiner.frame.body), "only the first part of a frame does")


def test_ends_of_another_frame_are_refused() -> None:
    frame, ends = coded([5, 5, 5, 5])
    for wrong in (ends[:3], [*ends[:3], 21], []):
        with pytest.raises(ValueError, match="does not end as"):
            split(CODEC, frame, wrong)


def test_the_parts_of_a_real_frame_decode_group_by_group() -> None:
    bundle = tiny.bundle()
    mode = bundle.mode(1.0, 3).index
    encoded = bundle.coder().encode(tiny.symbols(bundle, 1, mode), mode)
    parts = split(bundle.frames(), tiny.frame(bundle, 1, mode), encoded.group_ends, 0)
    joiner = Joiner(bundle.frames(), 3, LIMIT)
    for groups, part in enumerate(parts, 1):
        joiner.add(part.data)
        assert joiner.frame == tiny.frame(bundle, 1, mode, groups)


# ---------------------------------------------------------------- what is no next part


@pytest.fixture
def parts() -> list[bytes]:
    frame, ends = coded([50, 50, 50, 50])
    return cut_up(frame, ends)


def refused(joiner: Joiner, data: bytes, message: str) -> None:
    """The part is refused and has changed nothing."""
    before = joiner.frame, joiner.size
    with pytest.raises(FrameError, match=message):
        joiner.add(data)
    assert (joiner.frame, joiner.size) == before


def test_a_part_that_was_lost_swapped_or_repeated_is_noticed(parts: list[bytes]) -> None:
    for taken in range(4):
        joiner = join(parts[:taken])
        for number in (number for number in range(4) if number != taken):
            refused(joiner, parts[number], "checksum")
        joiner.add(parts[taken])


def test_a_part_of_another_frame_is_noticed(parts: list[bytes]) -> None:
    other, ends = coded([50, 50, 50, 51])
    refused(join(parts[:1]), cut_up(other, ends)[1], "checksum")


def test_a_part_with_a_right_checksum_must_still_go_on_from_there(parts: list[bytes]) -> None:
    joiner = join(parts[:2])
    before = joiner.frame.payload if joiner.frame else b""
    refused(joiner, CODEC.pack(Frame(6, 3, b"x"), before), "is of mode 6; the frame began in mode 5")
    refused(joiner, CODEC.pack(Frame(5, 2, b"x"), before), "goes to group 2; 2 groups are there already")
    refused(joiner, CODEC.pack(Frame(5, 1, b"x"), before), "goes to group 1; 2 groups are there already")
    refused(Joiner(CODEC, 2, LIMIT), CODEC.pack(Frame(5, 3, b"x")), "goes to group 3; the frame has 2")


def test_nothing_comes_after_the_last_part(parts: list[bytes]) -> None:
    joiner = join(parts)
    assert joiner.frame is not None
    refused(joiner, CODEC.pack(Frame(5, 4, b"more"), joiner.frame.payload), "4 groups are there already")


def test_all_parts_together_are_bounded(parts: list[bytes]) -> None:
    joiner = Joiner(CODEC, 4, sum(map(len, parts)) - 1)
    for part in parts[:3]:
        joiner.add(part)
    refused(joiner, parts[3], "the parts have 215 bytes with this one; at most 214 are read")


@pytest.mark.parametrize("groups", [0, 5, -1, 2**31])
def test_a_frame_of_groups_that_the_bundle_has_not(groups: int) -> None:
    with pytest.raises(FrameError, match=f"in {groups} channel groups; this bundle has 1 to 4"):
        Joiner(CODEC, groups, LIMIT)


def test_every_flipped_bit_and_truncation_of_every_part_is_noticed(parts: list[bytes]) -> None:
    for number, part in enumerate(parts):
        for bit in range(8 * len(part)):
            damaged = bytearray(part)
            damaged[bit // 8] ^= 1 << bit % 8
            refused(join(parts[:number]), bytes(damaged), ".")
        for end in range(len(part)):
            refused(join(parts[:number]), part[:end], ".")


CHUNKS = st.one_of(
    st.binary(max_size=80),
    st.integers(0, 3),  # one of the frame's own parts
    st.builds(Frame, st.integers(5, 6), st.integers(1, 4), st.binary(max_size=900)),  # with a right checksum
)


@given(st.integers(-1, 6), st.lists(CHUNKS, max_size=12))
def test_any_bytes_give_a_frame_or_a_frame_error_and_stay_within_the_bound(
    groups: int, chunks: list[bytes | int | Frame]
) -> None:
    frame, ends = coded([50, 50, 50, 50])
    own = cut_up(frame, ends)
    try:
        joiner = Joiner(CODEC, groups, LIMIT)
    except FrameError:
        assert not 1 <= groups <= 4
        return
    added = b""
    for chunk in chunks:
        before = b"" if joiner.frame is None else joiner.frame.payload
        data = (
            own[chunk] if isinstance(chunk, int) else CODEC.pack(chunk, before) if isinstance(chunk, Frame) else chunk
        )
        reached = joiner.frame.groups if joiner.frame else 0
        try:
            joiner.add(data)
        except FrameError:
            continue
        added += data
        assert joiner.frame is not None
        assert reached < joiner.frame.groups <= groups
        assert len(joiner.frame.payload) < joiner.size == len(added) <= LIMIT
        assert joiner.frame.payload.startswith(before)
        assert CODEC.unpack(CODEC.pack(joiner.frame)) == joiner.frame
