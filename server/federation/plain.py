"""Flower messages made by hand, for strategies of Flower that aggregate what never was a message of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict

from headwater.protos.flower import SERVER_NODE, acting_as

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHT = "num-examples"
"""The name under which Flower's strategies look for a weight."""


def reply(node: int, values: NDArray[np.float32], weight: float) -> Message:
    """A reply to a train message, of one array."""
    content = RecordDict(
        {"arrays": ArrayRecord({"values": Array(values)}), "metrics": MetricRecord({WEIGHT: float(weight)})}
    )
    with acting_as(0, node):
        return Message(content, SERVER_NODE, MessageType.TRAIN)


def arrays_of(record: ArrayRecord | None) -> list[NDArray[Any]]:
    """The arrays of a record that an aggregation gave."""
    assert record is not None
    return record.to_numpy_ndarrays()
