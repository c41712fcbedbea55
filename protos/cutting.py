"""Large byte fields cut out of a protobuf message before it is parsed: protobuf copies them twice, this not once.

A field is ``tag value``; the tag is a varint, ``number << 3 | kind``. Of kind 2 (bytes, strings, messages) the value is
a varint and so many bytes; of kind 0 a varint; of kinds 1 and 5 eight and four bytes. No other kind is in use any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

LENGTH_DELIMITED = 2
_FIXED = {1: 8, 5: 4}
_LONGEST_VARINT = 10


class _Field(NamedTuple):
    """One field of a message; where its tag begins, where that ends, and where its bytes begin and end."""

    number: int
    kind: int
    start: int
    tag_end: int
    begin: int
    end: int


def cut(data: memoryview, path: Sequence[int]) -> tuple[bytes, list[memoryview]]:
    """The message without the byte fields at the end of a path, and what they hold.

    Args:
        data: the message; untrusted.
        path: numbers of message fields, from the outermost on, and that of the byte field in the innermost.

    Returns:
        The rest, as bytes of such a message; of each innermost message, in order, the field's bytes, empty if it has
        none.

    Raises ValueError where the bytes are no message, or an innermost one has the field twice.
    """
    rest: list[bytes | memoryview] = []
    found: list[memoryview] = []
    for field in _fields(data):
        value = data[field.begin : field.end]
        if field.number != path[0] or field.kind != LENGTH_DELIMITED:
            rest.append(data[field.start : field.end])
        elif len(path) == 1:
            found.append(value)
        else:
            inner, within = cut(value, path[1:])
            rest += [data[field.start : field.tag_end], varint(len(inner)), inner]
            found += within
    if len(path) == 1 and len(found) != 1:
        if found:
            raise ValueError(f"its field {path[0]} is there {len(found)} times")
        found = [data[:0]]
    return b"".join(rest), found


def varint(value: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, the lowest first."""
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _fields(data: memoryview) -> Iterator[_Field]:
    at = 0
    while at < len(data):
        tag, tag_end = _number(data, at)
        kind = tag & 7
        begin = tag_end
        if kind == LENGTH_DELIMITED:
            size, begin = _number(data, tag_end)
            end = begin + size
        elif kind == 0:
            _, end = _number(data, tag_end)
        elif kind in _FIXED:
            end = tag_end + _FIXED[kind]
        else:
            raise ValueError(f"a field of kind {kind} at byte {at}")
        if end > len(data):
            raise ValueError(f"a field at byte {at} goes beyond the end")
        yield _Field(tag >> 3, kind, at, tag_end, begin, end)
        at = end


def _number(data: memoryview, at: int) -> tuple[int, int]:
    """The varint there, and where it ends."""
    value = 0
    for place, byte in enumerate(data[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError(f"a number at byte {at} has no end")
