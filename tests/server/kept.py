"""Kept frames as a device delivers them."""

from __future__ import annotations

from typing import Any

from headwater.compression.bundle import Bundle
from headwater.protos import edge_pb2 as pb
from tests import tiny


def kept(bundle: Bundle, number: int, **changes: Any) -> pb.KeptFrame:  # noqa: ANN401 - fields of the message
    """The frame of a picture, with an id that is its number."""
    fields = {
        "id": number.to_bytes(16, "big"),
        "session": (1 << 63) + 5,
        "sequence": number,
        "captured_unix_ms": 1_700_000_000_000 + number,
        "bundle_id": bundle.id,
        "data": bundle.frames().pack_file(tiny.frame(bundle, number, 0)),
        "local_answer": '{"shape":{"left":0.7}}',
        "name": f"{number}.png",
    }
    return pb.KeptFrame(**{**fields, **changes})
