"""What a message takes on the wire: the bytes that TCP carries for it, counted without sending any.

    HTTP/2 DATA frame: header 9 ── gRPC: compressed flag 1, length 4 ── protobuf: DeviceMessage or ServerMessage
                                                                        └── 1, varint ── FeatureFrame or Answer

Beside that, HTTP/2 gives back the window that a message has used: one WINDOW_UPDATE for the stream and one for the
connection, 13 bytes each. gRPC does not send them alone but with the next thing that it writes, and several in one: so
a side adds :data:`ACK_BYTES` to what it writes if it has received anything since it wrote last. A device whose frames
are each answered before the next one therefore pays them for every frame, and one that hears nothing does not.

What a connection takes to open and to close depends on names and addresses; `calibrate.py` measures it. The bytes of
TCP's and IP's own headers are not counted, as they are not by the proxy (simulations/link.py).

All sizes in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ACK_BYTES = 26
"""Of the two WINDOW_UPDATE frames that go with a write, if anything was received since the last one."""
_ENVELOPE = 9 + 5
"""HTTP/2's header and gRPC's."""
_SCORE_BYTES = 4
_SHORT_ID = 5


@dataclass(frozen=True)
class Timing:
    """What an answer says that it took; a larger number takes more bytes to say."""

    queue_us: int = 300
    decode_us: int = 100
    run_us: int = 2000
    batch: int = 1
    queue_depth: int = 0


def frame_bytes(size: int, sequence: int, deadline_ms: int = 0, tasks: Sequence[str] = ()) -> int:
    """Of a frame on its way up, without :data:`ACK_BYTES`.

    Args:
        size: of the frame with its header, as records and bundles count it.
        sequence: its number in its session.
        deadline_ms: that is left when it is written, 0 for none.
        tasks: that are asked for by name.
    """
    inner = _number(sequence) + _text(size) + _number(deadline_ms) + sum(_text(len(task)) for task in tasks)
    return _ENVELOPE + _text(inner)


def answer_bytes(outputs: Mapping[str, int], sequence: int, timing: Timing | None = None, groups_used: int = 1) -> int:
    """Of the answer on its way down, without :data:`ACK_BYTES`.

    Args:
        outputs: how many labels each task has that is answered.
        sequence: of the frame.
        timing: what the answer says of it.
        groups_used: channel groups that it was made from.
    """
    results = sum(_text(_text(len(task)) + _text(_SCORE_BYTES * labels)) for task, labels in outputs.items())
    inner = _number(sequence) + 2 + results + _timing(timing or Timing()) + _text(_SHORT_ID) + _number(groups_used)
    return _ENVELOPE + _text(inner)


def _timing(timing: Timing) -> int:
    said = (timing.queue_us, timing.decode_us, timing.run_us, timing.batch, timing.queue_depth)
    return _text(sum(map(_number, said)))


def _number(value: int) -> int:
    """A field that holds a number: its tag and a varint; nothing for 0."""
    return 1 + _varint(value) if value else 0


def _text(size: int) -> int:
    """A field that holds so many bytes: its tag, their count and they."""
    return 1 + _varint(size) + size


def _varint(value: int) -> int:
    return max((value.bit_length() + 6) // 7, 1)
