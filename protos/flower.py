"""Flower's messages as bytes, and what of Flower's own inside is needed for that: here and nowhere else.

A message travels in two parts:

    envelope    Flower's protobuf `Message` without its content: whose it is, where it goes, how long it lives, and an
                error if it is one. Small; it rides in the offer or the opening of a transfer.
    content     1 byte     0 as it is, 1 zstandard
                the rest   Flower's protobuf `RecordDict`, empty for an error

The content does not say for whom it is: what is sent to a hundred devices is one blob. It is the same bytes each time
for the same records. Nothing here is pickled, and what comes from others is checked: :func:`unpack` gives a message or
raises, within the time and memory that its limit allows: what is packed grows to :data:`MOST_GROWTH` times its size or
:data:`FREE_BYTES`, and an array has the bytes that its header speaks of, so that reading it makes no room for others.

Flower's public API has no way to bytes and back, nor to call an app outside its own processes; so this module uses
``flwr.common.serde``, ``flwr.app.message.message.make_message`` and ``flwr.supercore.task_identity`` of the pinned
version, and its tests fail when one of them changes.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read while flwr is imported

import numpy as np
import zstandard
from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from flwr.app.message.message import make_message
from flwr.clientapp import ClientApp
from flwr.common import serde, serde_utils
from flwr.common.constant import ErrorCode, SType
from flwr.proto.message_pb2 import Context as ContextProto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.recorddict_pb2 import Array as ArrayProto
from flwr.proto.recorddict_pb2 import ArrayRecord as ArrayRecordProto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto
from flwr.supercore.task_identity import TaskIdentity
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage
from numpy.typing import NDArray

from headwater.compression.errors import LearningError
from headwater.protos.nodes import SERVER_NODE, node_id

__all__ = [
    "SERVER_NODE",
    "Parcel",
    "acting_as",
    "address",
    "as_reply",
    "call",
    "content_of",
    "context_from_bytes",
    "context_to_bytes",
    "envelope_of",
    "error_reply",
    "from_record",
    "is_expired",
    "node_id",
    "pack",
    "to_record",
    "unpack",
]

MOST_BYTES = 1 << 30
"""Of a content when it is unpacked, unless told otherwise."""
MOST_GROWTH, FREE_BYTES = 64, 16 << 20
"""What a packed content may become: so many times its bytes, and so many bytes whatever it has."""
_SIDE = rb"(0|[1-9]\d{0,17})"
_ARRAY = re.compile(
    rb"\x93NUMPY\x01\x00(?P<bytes>..)"
    rb"{'descr': '(?P<dtype>[<>|=]?[biufcSUVMm]\d{1,9}(\[\w{1,9}\])?)', 'fortran_order': (True|False), "
    rb"'shape': \((?P<shape>|" + _SIDE + rb",|" + _SIDE + rb"(, " + _SIDE + rb"){1,63})\), } *\n",
    re.DOTALL,
)
"""How numpy's format 1 begins (numpy.lib.format), for arrays without objects or fields."""
_PLAIN, _ZSTD = b"\x00", b"\x01"
_LEVEL = 1  # more gains floats nothing
_PROBE_BYTES, _WORTH = 1 << 16, 0.9  # plain floats lose 8 %, which is not worth the time at both ends
_TASK = 1
_LENGTH_DELIMITED = 2  # wire type of protobuf
Why = Literal["raised", "refused", "expired", "damaged"]
_CODES: dict[Why, int] = {
    "raised": ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
    "refused": ErrorCode.NODE_UNAVAILABLE,
    "expired": ErrorCode.MESSAGE_UNAVAILABLE,
    "damaged": ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
}
"""Why there is no reply, in Flower's numbers."""


@dataclass(frozen=True)
class Parcel:
    """A message on its way."""

    envelope: bytes
    content: bytes


def pack(message: Message) -> Parcel:
    """The message as bytes."""
    return Parcel(envelope_of(message), content_of(message))


def envelope_of(message: Message) -> bytes:
    """All of it but the content."""
    envelope = MessageProto(metadata=serde_utils.metadata_to_proto(message.metadata))
    if message.has_error():
        envelope.error.CopyFrom(serde_utils.error_to_proto(message.error))
    return envelope.SerializeToString(deterministic=True)


def content_of(message: Message) -> bytes:
    """The content alone: for messages that share their records, the same bytes."""
    if not message.has_content():
        return _PLAIN
    return _squeezed(b"".join([_PLAIN, *_records(message.content)]))


def unpack(parcel: Parcel, most_bytes: int = MOST_BYTES) -> Message:
    """The message that these bytes are; raises :class:`LearningError` if they are none, or more than `most_bytes`."""
    with _checked("message"):
        envelope = MessageProto.FromString(parcel.envelope)
        if not envelope.HasField("metadata"):
            raise ValueError("its envelope has no metadata")
        metadata = serde_utils.metadata_from_proto(envelope.metadata)
        if envelope.HasField("error"):
            return make_message(metadata, error=serde_utils.error_from_proto(envelope.error))
        return make_message(metadata, content=_records_from_bytes(_unsqueezed(parcel.content, most_bytes)))


def address(message: Message, run_id: int, message_id: str) -> Message:
    """The message as the server sends it in a run, under its number for life."""
    message.metadata.__dict__.update(_run_id=run_id, _message_id=message_id, _src_node_id=SERVER_NODE)
    return message


def as_reply(reply: Message, to: Message) -> Message:
    """The reply, whatever it says about itself, as one to this message from the node that this went to."""
    asked = to.metadata
    reply.metadata.__dict__.update(
        _run_id=asked.run_id,
        _message_id=f"{asked.message_id}-reply",
        _src_node_id=asked.dst_node_id,
        _dst_node_id=asked.src_node_id,
        _reply_to_message_id=asked.message_id,
        _group_id=asked.group_id,
        _message_type=asked.message_type,
    )
    return reply


def context_to_bytes(context: Context) -> bytes:
    """What a node knows, as bytes: the same for the same context."""
    without = Context(context.run_id, context.node_id, context.node_config, RecordDict(), context.run_config)
    rest = serde.context_to_proto(without)
    rest.ClearField("state")
    state = _within(ContextProto, "state", _records(context.state))
    return b"".join([rest.SerializeToString(deterministic=True), *state])


def context_from_bytes(data: bytes) -> Context:
    """The other way round; raises :class:`LearningError` for bytes that are none."""
    with _checked("context"):
        return serde.context_from_proto(ContextProto.FromString(data))


def call(app: ClientApp | Callable[[Message, Context], Message], message: Message, context: Context) -> Message:
    """Have an app answer a message; it may change the context. An exception of the app becomes an error reply."""
    with acting_as(message.metadata.run_id, context.node_id):
        try:
            reply: object = app(message, context)
        except Exception as error:  # noqa: BLE001 - whatever an app raises is its reply
            return error_reply(message, f"{type(error)}:<'{error}'>")
        if not isinstance(reply, Message):
            return error_reply(message, f"the app returned {type(reply).__name__}; a ClientApp returns a Message")
        return reply


def error_reply(message: Message, reason: str, why: Why = "raised") -> Message:
    """A reply that says why there is none."""
    return Message(Error(code=_CODES[why], reason=reason), reply_to=message)


def is_expired(reply: Message) -> bool:
    """Whether a reply says that there is none, since the message's time has passed."""
    return reply.has_error() and reply.error.code == _CODES["expired"]


@contextmanager
def acting_as(run_id: int, node: int = SERVER_NODE) -> Iterator[None]:
    """Be this node in this run: messages that are made inside are its own."""
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)  # noqa: SLF001 - unset raises
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = _TASK, run_id, node
    try:
        yield
    finally:
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before  # noqa: SLF001 - the same


def to_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Arrays by name as Flower's record, which has each as a file of numpy's."""
    return ArrayRecord({name: _array(array) for name, array in arrays.items()})


def from_record(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """The other way round, in the record's order."""
    return {name: _numpy(array) for name, array in record.items()}


# Flower has numpy write and read each array: a network has a hundred, mostly small ones, in the same few shapes each
# time, and their headers take several times as long as what is in them.


def _array(array: NDArray[Any]) -> Array:
    data = _header(array.dtype, array.shape) + array.tobytes()
    return Array(str(array.dtype), array.shape, SType.NUMPY, data)


def _numpy(array: Array) -> NDArray[Any]:
    if array.stype == SType.NUMPY:
        header = _header(np.dtype(array.dtype), array.shape)
        if array.data.startswith(header):
            return np.frombuffer(array.data, array.dtype, offset=len(header)).reshape(array.shape).copy()
    return array.numpy()  # whoever made it writes headers in another way


@lru_cache(maxsize=1024)
def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What numpy writes before an array in C order."""
    file = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue()


def _records(records: RecordDict) -> list[bytes]:
    """The bytes of ``serde.recorddict_to_proto``, in pieces: that copies each array five times, this never."""
    others = RecordDict({name: one for name, one in records.items() if not isinstance(one, ArrayRecord)})
    written = {item.key: item.SerializeToString(deterministic=True) for item in serde.recorddict_to_proto(others).items}
    pieces: list[bytes] = []
    for name, record in records.items():
        item = _array_record(name, record) if isinstance(record, ArrayRecord) else [written[name]]
        pieces += _within(RecordDictProto, "items", item)
    return pieces


def _array_record(name: str, record: ArrayRecord) -> list[bytes]:
    pieces: list[bytes] = []
    for key, array in record.items():
        about = ArrayProto(dtype=array.dtype, shape=array.shape, stype=array.stype).SerializeToString()
        value = [about, *_within(ArrayProto, "data", [array.data])]
        item = [ArrayRecordProto.Item(key=key).SerializeToString(), *_within(ArrayRecordProto.Item, "value", value)]
        pieces += _within(ArrayRecordProto, "items", item)
    key_alone = RecordDictProto.Item(key=name).SerializeToString()
    return [key_alone, *_within(RecordDictProto.Item, "array_record", pieces)]


def _within(kind: type[ProtoMessage], field: str, value: list[bytes]) -> list[bytes]:
    """A field of a protobuf message that is bytes or a message, by the bytes of its value."""
    number = kind.DESCRIPTOR.fields_by_name[field].number
    return [_varint(number << 3 | _LENGTH_DELIMITED) + _varint(sum(map(len, value))), *value]


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _records_from_bytes(data: bytes | memoryview) -> RecordDict:
    # It reads a view without a copy, whatever its stubs say.
    records = serde.recorddict_from_proto(RecordDictProto.FromString(cast("bytes", data)))
    for record in records.array_records.values():
        for name, array in record.items():
            _check_array(name, array)
    return records


def _check_array(name: str, array: Array) -> None:
    """Whether Flower would make an array of these bytes, of their own size: it believes the header that is in them."""
    if array.stype != "numpy.ndarray":
        raise ValueError(f"the array {name[:40]!r} is stored as {array.stype[:40]!r}")
    header = _ARRAY.match(array.data)
    if header is None or int.from_bytes(header["bytes"], "little") != header.end() - header.end("bytes"):
        raise ValueError(f"the array {name[:40]!r} does not begin as numpy's plain arrays do")
    dtype, shape = np.dtype(header["dtype"].decode()), [int(side) for side in re.findall(rb"\d+", header["shape"])]
    if math.prod(shape) * dtype.itemsize != len(array.data) - header.end():
        raise ValueError(f"the array {name[:40]!r} has other bytes than its shape {shape!s:.80} wants")


def _squeezed(plain: bytes) -> bytes:
    """The content of records that are marked as they are; without a copy where nothing is gained."""
    data = memoryview(plain)[1:]
    if _promises(data):
        small = zstandard.ZstdCompressor(_LEVEL).compress(data)
        if len(small) < len(data) <= _most_from(len(small)):
            return _ZSTD + small
    return plain


def _promises(data: memoryview) -> bool:
    """Whether a piece from the middle gets smaller: what is coded already is not read through for nothing."""
    middle = data[max(0, len(data) - _PROBE_BYTES) // 2 :][:_PROBE_BYTES]
    return len(zstandard.ZstdCompressor(_LEVEL).compress(middle)) < _WORTH * len(middle)


def _unsqueezed(content: bytes, most_bytes: int) -> bytes | memoryview:
    kind, data = content[:1], memoryview(content)[1:]
    if kind == _PLAIN:
        size = len(data)
    elif kind == _ZSTD:
        size, most_bytes = zstandard.frame_content_size(data), min(most_bytes, _most_from(len(data)))
    else:
        raise ValueError(f"its content begins with {kind!r}")
    if not 0 <= size <= most_bytes:
        raise ValueError(f"its content would have {size} bytes, more than {most_bytes}")
    return data if kind == _PLAIN else zstandard.ZstdDecompressor().decompress(data)


def _most_from(packed_bytes: int) -> int:
    return max(FREE_BYTES, MOST_GROWTH * packed_bytes)


@contextmanager
def _checked(what: str) -> Iterator[None]:
    """Turn what protobuf, zstandard and Flower make of wrong bytes into one error."""
    try:
        yield
    except (DecodeError, zstandard.ZstdError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LearningError(f"these bytes are no {what} of Flower: {error}") from error
