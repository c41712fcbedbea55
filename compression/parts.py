r"""A frame in parts: what a slow link has carried by the deadline can be answered already.

The first part is the frame cut after its first groups. A later one brings the groups since the part before: it has the
header and the checksum of the frame cut after *its* groups, but of the payload only what no earlier part has carried:

    offset  bytes  field
    0       1      bits 0-5 mode index | bit 6 partial: groups are still missing after this part | bit 7 opinion,
                   in the first part only
    1       0 / 1  only if partial: how many channel groups are there with this part
    1 / 2   2      CRC-16 of the cut frame: over the bundle's id, the bytes before it, and what stands behind it
                   *from the frame's beginning*, so that it is right only after exactly the bytes that this part
                   continues
    3 / 4   0 / 1  the opinion
    ...     ...    payload of this part

So parts that are lost, repeated, swapped or of another frame are noticed by what follows them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from headwater.compression.errors import FrameError
from headwater.compression.frame import Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.compression.frame import FrameCodec

LEAST_PART_BYTES = 40
"""Payload of a part at least: each also costs a header, and some 30 bytes of protobuf, gRPC and HTTP/2."""


class Part(NamedTuple):
    """One part of a frame."""

    groups: int
    """Channel groups that are there with it."""
    data: bytes
    """What travels; see above."""


def split(
    codec: FrameCodec, frame: Frame, group_ends: Sequence[int], least_bytes: int = LEAST_PART_BYTES
) -> list[Part]:
    """Split a frame at the ends of channel groups.

    Args:
        codec: of the frame's bundle.
        frame: the whole frame, or one that was cut.
        group_ends: [G] of :class:`~headwater.compression.coder.Encoded`.
        least_bytes: a part with a smaller payload is joined with its neighbour.

    Returns:
        The parts in order; the data of a single one is the frame as `pack` gives it.

    Raises:
        ValueError: if ``group_ends`` are not of this frame.
    """
    size = len(frame.payload)
    if len(group_ends) < frame.groups or group_ends[frame.groups - 1] != size:
        raise ValueError(f"a payload of {size} bytes in {frame.groups} groups does not end as {list(group_ends)} say")
    parts: list[Part] = []
    begin = 0
    for groups, end in enumerate(group_ends[: frame.groups], 1):
        if groups == frame.groups or min(end - begin, size - end) >= least_bytes:
            piece = Frame(frame.mode, groups, frame.payload[begin:end], None if parts else frame.opinion)
            before = replace(frame, payload=frame.payload[:begin]).body if parts else b""
            parts.append(Part(groups, codec.pack(piece, before)))
            begin = end
    return parts


class Joiner:
    """Puts the parts of one frame together, in the order in which they were made.

    Whatever bytes come, :meth:`add` takes them or raises :class:`FrameError`, and at most ``max_bytes`` are kept. What
    was refused changes nothing: :attr:`frame` is still the sound beginning.
    """

    def __init__(self, codec: FrameCodec, groups: int, max_bytes: int) -> None:
        """Begin a frame of so many channel groups in all; raises :class:`FrameError` if the bundle has fewer."""
        if not 1 <= groups <= codec.groups:
            raise FrameError(f"the frame is to come in {groups} channel groups; this bundle has 1 to {codec.groups}")
        self.groups = groups
        self.frame: Frame | None = None
        """What has come so far, a frame of its own; None before the first part."""
        self.size = 0
        """Bytes of all parts so far, headers included."""
        self._codec = codec
        self._max_bytes = max_bytes

    @property
    def complete(self) -> bool:
        """Whether all groups are there."""
        return self.frame is not None and self.frame.groups == self.groups

    def add(self, data: bytes) -> None:
        """Take the next part; raises :class:`FrameError` if these bytes are not the next part of this frame."""
        if self.size + len(data) > self._max_bytes:
            raise FrameError(
                f"the parts have {self.size + len(data)} bytes with this one; at most {self._max_bytes} are read"
            )
        so_far = self.frame
        part = self._codec.unpack(data, b"" if so_far is None else so_far.body)
        if part.groups > self.groups:
            raise FrameError(f"the part goes to group {part.groups}; the frame has {self.groups}")
        if so_far is not None and part.mode != so_far.mode:
            raise FrameError(f"the part is of mode {part.mode}; the frame began in mode {so_far.mode}")
        if so_far is not None and part.groups <= so_far.groups:
            raise FrameError(f"the part goes to group {part.groups}; {so_far.groups} groups are there already")
        if so_far is not None and part.opinion is not None:
            raise FrameError("the part brings an opinion; only the first part of a frame does")
        self.size += len(data)
        payload = b"" if so_far is None else so_far.payload
        opinion = part.opinion if so_far is None else so_far.opinion
        self.frame = Frame(part.mode, part.groups, payload + part.payload, opinion)
