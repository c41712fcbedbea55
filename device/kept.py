"""A kept frame: what goes into the spool, and from there to a server's archive."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from headwater.protos import edge_pb2 as pb

if TYPE_CHECKING:
    from headwater.device.record import Result

ID_BYTES = 16


@dataclass(frozen=True)
class KeptFrame:
    """A frame to be kept."""

    session: int
    """The link's, with which the sequence number is unique."""
    sequence: int
    captured_unix_ms: int
    """By the device's clock; data, nothing is timed by it."""
    bundle_id: bytes
    """Full id, 32 bytes."""
    data: bytes
    """The frame in its self-contained form."""
    local_answer: str = ""
    """What the device said by itself, see :func:`answer_json`."""
    name: str = ""
    """The picture's."""
    id: bytes = field(default_factory=lambda: os.urandom(ID_BYTES))

    def message(self) -> pb.KeptFrame:
        """As it travels."""
        return pb.KeptFrame(
            id=self.id,
            session=self.session,
            sequence=self.sequence,
            captured_unix_ms=max(self.captured_unix_ms, 0),  # a clock may say that it is before 1970
            bundle_id=self.bundle_id,
            data=self.data,
            local_answer=self.local_answer,
            name=self.name,
        )


def parse(message: bytes) -> pb.KeptFrame | None:
    """Read what was serialized; None if it is damaged so that no server would take it."""
    try:
        frame = pb.KeptFrame.FromString(message)
    except DecodeError:
        return None
    sound = len(frame.id) == ID_BYTES and len(frame.bundle_id) == 32 and frame.data
    return frame if sound and max(frame.sequence, frame.captured_unix_ms) < 1 << 63 else None


def answer_json(results: Mapping[str, Result]) -> str:
    """An answer in few bytes: ``{"defect":{"functional":0.9812,"defective":0.0188}}``; empty for none."""
    plain = {task: {label: round(score, 4) for label, score in one.scores.items()} for task, one in results.items()}
    return json.dumps(plain, separators=(",", ":"), ensure_ascii=False) if plain else ""
