"""Flower's messages as bytes and back, whatever bytes; an app's call, whatever the app."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import zstandard
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common import serde

from headwater.compression.errors import LearningError
from headwater.protos import flower
from headwater.protos.flower import (
    SERVER_NODE,
    Parcel,
    acting_as,
    call,
    context_from_bytes,
    context_to_bytes,
    from_record,
    node_id,
    pack,
    to_record,
    unpack,
)

CAM = node_id("cam")


def records(floats: int = 1000) -> RecordDict:
    return RecordDict(
        {
            "arrays": ArrayRecord({"b": Array(np.arange(floats, dtype=np.float32)), "a": Array(np.ones((2, 0)))}),
            "metrics": MetricRecord({"loss": 0.5, "steps": [1, 2]}),
            "config": ConfigRecord({"base": b"\x00\x01", "names": ["x", "y"], "deep": True, "none": []}),
        }
    )


def message(content: RecordDict | None = None) -> Message:
    with acting_as(7):
        return Message(records() if content is None else content, CAM, "train", group_id="3", ttl=60.0)


def assert_same(one: RecordDict, other: RecordDict) -> None:
    assert list(one) == list(other)
    assert one.config_records == other.config_records
    assert one.metric_records == other.metric_records
    for name, arrays in one.array_records.items():
        assert list(arrays) == list(other.array_records[name])
        for key, array in arrays.items():
            np.testing.assert_array_equal(array.numpy(), other.array_records[name][key].numpy())


def test_a_message_comes_back_as_it_was() -> None:
    sent = message()
    got = unpack(pack(sent))
    assert_same(sent.content, got.content)
    about = got.metadata
    assert (about.run_id, about.src_node_id, about.dst_node_id) == (7, SERVER_NODE, CAM)
    assert (about.group_id, about.message_type, about.ttl) == ("3", "train", 60.0)
    assert about.created_at == sent.metadata.created_at


def test_an_error_comes_back_without_content() -> None:
    got = unpack(pack(Message(Error(2, "no memory"), reply_to=message())))
    assert (got.has_content(), got.error.code, got.error.reason) == (False, 2, "no memory")


def test_the_same_records_are_the_same_bytes_whoever_they_are_for() -> None:
    with acting_as(8):
        other = Message(records(), node_id("other"), "evaluate")
    assert pack(message()).content == pack(other).content
    assert len(pack(message()).envelope) < 200


def test_what_gets_smaller_is_squeezed_and_what_does_not_travels_as_it_is() -> None:
    noise = RecordDict({"up": ConfigRecord({"update": random.Random(1).randbytes(300_000)})})
    assert pack(message(noise)).content[0] == 0
    assert_same(unpack(pack(message(noise))).content, noise)
    zeros = RecordDict({"up": ConfigRecord({"update": bytes(300_000)})})
    assert len(pack(message(zeros)).content) < 1000
    assert_same(unpack(pack(message(zeros))).content, zeros)


def test_any_bytes_are_a_message_or_an_error() -> None:
    right = pack(message(records(20)))
    rng = random.Random(3)
    wrong = [
        Parcel(b"", right.content),
        Parcel(right.envelope, b""),
        Parcel(right.envelope, b"\x02" + right.content[1:]),
    ]
    for _ in range(400):
        parts = [bytearray(right.envelope), bytearray(right.content)]
        part = parts[rng.randrange(2)]
        if rng.random() < 0.5:
            part[rng.randrange(len(part))] ^= 1 << rng.randrange(8)
        else:
            del part[rng.randrange(len(part)) :]
        wrong.append(Parcel(bytes(parts[0]), bytes(parts[1])))
    for parcel in wrong:
        try:
            unpack(parcel)
        except LearningError:
            continue
    for parcel in wrong[:3]:
        with pytest.raises(LearningError):
            unpack(parcel)


def test_a_content_that_would_become_huge_is_refused_before_it_does() -> None:
    bomb = b"\x01" + zstandard.ZstdCompressor().compress(bytes(10_000_000))
    with pytest.raises(LearningError, match="10000000 bytes, more than 1000"):
        unpack(Parcel(pack(message()).envelope, bomb), most_bytes=1000)
    unsaid = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    with pytest.raises(LearningError):
        unpack(Parcel(pack(message()).envelope, b"\x01" + unsaid))
    with pytest.raises(LearningError, match="more than 10"):
        unpack(pack(message()), most_bytes=10)


def test_contents_are_the_bytes_that_flower_itself_makes() -> None:
    for each in (
        records(),
        RecordDict(),
        RecordDict({"empty": ArrayRecord(), "z": MetricRecord(), "a": ConfigRecord()}),
    ):
        content = pack(message(each)).content
        plain = zstandard.ZstdDecompressor().decompress(content[1:]) if content[0] else content[1:]
        assert plain == serde.recorddict_to_proto(each).SerializeToString(deterministic=True)


def test_a_context_comes_back_as_it_was() -> None:
    context = Context(7, CAM, {"rate": 0.5, "on": True}, records(), {"rounds": 3}, series_id=2)
    got = context_from_bytes(context_to_bytes(context))
    assert (got.run_id, got.node_id, got.node_config, got.run_config) == (7, CAM, context.node_config, {"rounds": 3})
    assert_same(got.state, context.state)
    assert context_to_bytes(got) == context_to_bytes(context)
    with pytest.raises(LearningError, match="no context"):
        context_from_bytes(b"\xff\xff\xff")


def context() -> Context:
    return Context(7, CAM, {}, RecordDict(), {})


def test_an_app_is_called_as_its_node_and_what_it_says_is_a_reply() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        context.state["seen"] = ConfigRecord({"node": context.node_id})
        return Message(RecordDict({"m": MetricRecord({"n": 1})}), reply_to=message)

    own, sent = context(), message()
    sent.metadata.__dict__["_message_id"] = "m1"
    with acting_as(9):
        reply = call(app, sent, own)
        assert Message(RecordDict(), CAM, "query").metadata.run_id == 9
    assert own.state["seen"]["node"] == CAM
    about = reply.metadata
    assert (about.src_node_id, about.dst_node_id, about.reply_to_message_id) == (CAM, SERVER_NODE, "m1")
    assert (about.run_id, about.group_id) == (7, "3")


def test_whatever_an_app_raises_is_its_reply() -> None:
    def broken(_: Message, __: Context) -> Message:
        raise MemoryError("too wide")

    reply = call(broken, message(), context())
    assert (reply.error.code, reply.error.reason) == (2, "<class 'MemoryError'>:<'too wide'>")
    wrong = call(lambda _, __: 3, message(), context())  # type: ignore[arg-type, return-value]
    assert "returned int" in (wrong.error.reason or "")
    unknown = call(ClientApp(), message(), context())
    assert "No train function" in (unknown.error.reason or "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"(500,)", b"(999,)"),  # a number that would be read past the end of the bytes
        (b"(500,)", b"(9*9,)"),
        (b"(500,)", b"500,  "),
        (b"'<f8'", b"'|O8'"),
        (b", }", b",  "),
        (b"NUMPY\x01", b"NUMPY\x03"),
        (b"NUMPY", b"NUMPX"),
    ],
)
def test_an_array_that_is_not_what_its_header_says_is_refused(old: bytes, new: bytes) -> None:
    sent = message(RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(500))})}))
    parcel = pack(sent)
    plain = b"\x00" + zstandard.decompress(parcel.content[1:])
    assert_same(unpack(Parcel(parcel.envelope, plain)).content, sent.content)
    with pytest.raises(LearningError, match="the array 'w'"):
        unpack(Parcel(parcel.envelope, plain.replace(old, new, 1)))


def test_arrays_of_every_kind_come_back() -> None:
    kinds = [np.zeros(()), np.ones((2, 0)), np.ones((1,) * 9, np.bool_), np.asfortranarray(np.ones((3, 4), np.float16))]
    kinds += [
        np.arange(3, dtype=">i4"),
        np.array(["ab", "c"]),
        np.array([b"x"]),
        np.zeros(2, "M8[ns]"),
        np.ones(2) * 1j,
    ]
    content = RecordDict({"all": ArrayRecord({str(i): Array(kind) for i, kind in enumerate(kinds)})})
    assert_same(unpack(pack(message(content))).content, content)


def test_records_hold_what_flower_itself_would_write_and_read() -> None:
    kinds = {
        "none": np.zeros((0, 3), np.float32),
        "one": np.array(2.5, np.float16),
        "some": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "turned": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "every other": np.arange(9, dtype=np.uint8)[::2],
        "bits": np.array([True, False]),
    }
    record, plain = to_record(kinds), ArrayRecord({name: Array(kind) for name, kind in kinds.items()})
    for name, kind in kinds.items():
        np.testing.assert_array_equal(record[name].numpy(), kind)
        if kind.flags.c_contiguous:
            assert (record[name].data, record[name].shape) == (plain[name].data, plain[name].shape)
        assert record[name].dtype == plain[name].dtype
        for one in (from_record(record)[name], from_record(plain)[name]):
            np.testing.assert_array_equal(one, kind)
            assert one.dtype == kind.dtype
            assert one.flags.writeable


def test_what_shrinks_beyond_all_measure_travels_as_it_is() -> None:
    """A receiver makes room for sixty-four times what came, not for a thousand times."""
    zeros = RecordDict({"up": ConfigRecord({"update": bytes(flower.FREE_BYTES + 1)})})
    parcel = pack(message(zeros))
    assert parcel.content[0] == 0
    assert_same(unpack(parcel).content, zeros)
    bomb = b"\x01" + zstandard.compress(parcel.content[1:])
    with pytest.raises(LearningError, match="more than"):
        unpack(Parcel(parcel.envelope, bomb))


def test_node_ids_are_stable_distinct_and_never_the_servers() -> None:
    assert CAM == 4052428441476138793
    ids = {node_id(f"cam-{number}") for number in range(1000)}
    assert len(ids) == 1000
    assert all(SERVER_NODE < one < 1 << 63 for one in ids)


def test_flower_reports_nothing_home() -> None:
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
