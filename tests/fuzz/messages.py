"""Target: what a device sends back in a federated round, as Flower's messages."""

from __future__ import annotations

import contextlib
import math

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from headwater.compression.errors import LearningError
from headwater.compression.updates import Scheme, encode
from headwater.protos.flower import Parcel, acting_as, node_id, pack, unpack
from headwater.server.federation.checks import Asked, Refused, read
from headwater.server.federation.outline import Outline
from tests.compression.updates.deltas import LAYOUT, delta_of

OUTLINE = Outline.of(LAYOUT)
BASE = bytes(4).hex()
ASKED = Asked(node_id("cam"), "cam", BASE)


def message(data: bytes) -> bool:
    """A reply: 2 bytes with the length of its envelope, the envelope, the content."""
    size = int.from_bytes(data[:2], "little")
    try:
        got = unpack(Parcel(data[2 : 2 + size], data[2 + size :]))
    except LearningError:
        return False
    again = unpack(pack(got))
    assert (again.metadata.message_id, again.has_error()) == (got.metadata.message_id, got.has_error())
    if not got.has_error():
        for record in got.content.array_records.values():  # an app reads them without asking whether it may
            assert all(array.numpy().size >= 0 for array in record.values())
    with contextlib.suppress(Refused):
        contribution, nonce = read(got, ASKED, OUTLINE, lambda _: False)
        assert nonce
        assert math.isfinite(contribution.examples)
    return True


def message_seeds() -> list[bytes]:
    update = encode(delta_of(LAYOUT), LAYOUT, Scheme("int8"), base=bytes.fromhex(BASE)).data
    up = ConfigRecord({"base": BASE, "width": 1.0, "part": "all", "nonce": "n1", "update": update})
    metrics = MetricRecord({"num-examples": 40, "loss": 0.5})
    gathered = ArrayRecord({"scores": Array(np.arange(6, dtype=np.float32).reshape(2, 3))})
    with acting_as(7):
        asked = Message(RecordDict(), ASKED.node, "train", group_id="3", ttl=60.0)
        sent = Message(RecordDict({"up": up, "metrics": metrics, "scores": gathered}), ASKED.node, "train")
        small = Message(RecordDict({"a": ConfigRecord({"x": [1, 2], "y": ["z"], "b": True})}), ASKED.node, "query")
        zeros = Message(RecordDict({"a": ArrayRecord({"w": Array(np.zeros(500))})}), ASKED.node, "train")
        failed = Message(Error(2, "no memory"), reply_to=asked)
    return [_bytes(pack(each)) for each in (sent, small, zeros, failed)]


def _bytes(parcel: Parcel) -> bytes:
    return len(parcel.envelope).to_bytes(2, "little") + parcel.envelope + parcel.content
