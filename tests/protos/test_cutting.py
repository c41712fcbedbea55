"""Byte fields cut out of messages: what protobuf itself would read, and errors for anything else."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("flwr", reason="its messages are cut here; the extra [federated]")

from flwr.proto.recorddict_pb2 import Array, ArrayRecord, RecordDict

from headwater.protos.cutting import cut, varint

PATH = (1, 2, 1, 2, 4)
"""The data of the arrays of the array records of Flower's records."""


def records(*arrays: bytes) -> RecordDict:
    """Two array records with these, and one without any."""
    made = RecordDict()
    for number, data in enumerate(arrays):
        item = ArrayRecord.Item(key=f"a{number}", value=Array(dtype="<f4", shape=[number], stype="numpy", data=data))
        made.items.append(RecordDict.Item(key=str(number), array_record=ArrayRecord(items=[item, item])))
    made.items.append(RecordDict.Item(key="last"))
    return made


def test_what_is_cut_out_is_what_protobuf_reads_and_the_rest_is_the_message_without_it() -> None:
    whole = records(b"one" * 100, b"", b"three")
    rest, found = cut(memoryview(whole.SerializeToString()), PATH)
    assert [bytes(one) for one in found] == [b"one" * 100] * 2 + [b""] * 2 + [b"three"] * 2
    for item in whole.items:
        for array in item.array_record.items:
            array.value.ClearField("data")
    assert RecordDict.FromString(rest) == whole


def test_a_field_that_is_there_twice_is_an_error() -> None:
    twice = Array(data=b"1").SerializeToString() + Array(data=b"2").SerializeToString()
    with pytest.raises(ValueError, match="its field 4 is there 2 times"):
        cut(memoryview(twice), (4,))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x0a\x05abcd", "beyond the end"),
        (b"\x09abc", "beyond the end"),
        (b"\x0b", "kind 3"),
        (b"\x80", "no end"),
        (b"\x0a" + b"\xff" * 11, "no end"),
    ],
)
def test_what_is_no_message_is_an_error(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        cut(memoryview(data), PATH)


def test_any_bytes_are_cut_or_an_error() -> None:
    rng = random.Random(0)
    whole = bytearray(records(b"some bytes", b"more").SerializeToString())
    for _ in range(2000):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            rest, found = cut(memoryview(damaged), PATH)
        except ValueError:
            continue
        assert len(rest) + sum(map(len, found)) <= len(damaged)


@pytest.mark.parametrize(("value", "data"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")])
def test_numbers_are_written_seven_bits_a_byte(value: int, data: bytes) -> None:
    assert varint(value) == data
