r"""The frame: a coded latent with what a decoder has to know, in as few bytes as can be.

A payload may be 30 bytes, so what never changes on a stream (bundle, version, group layout) is agreed once, and the
header of the stream form is 3 bytes, 4 for a frame that was cut:

    offset  bytes  field
    0       1      bits 0-5 mode index | bit 6 partial | bit 7 opinion
    1       0 / 1  only if partial: how many channel groups are there, 1 to G - 1
    1 / 2   2      CRC-16, little-endian
    3 / 4   0 / 1  only if opinion: what the device itself makes of the picture, an index (exits.py)
    ...     ...    payload (coder.py)

The self-contained form, for files and unary calls, says whose frame it is; at most 12 bytes before the payload:

    0       2      magic "HW"
    2       1      version, 1
    3       5      first 5 bytes of the bundle's id
    8       ...    the stream form

The CRC-16 (polynomial 0x1021, start 0xFFFF, not reflected: CRC-16/IBM-3740) runs over the bundle's whole id, the bytes
before the CRC in the stream form, and those behind it. So a frame of another bundle is refused even where its bytes
would decode.
"""

from __future__ import annotations

import struct
from binascii import crc_hqx
from dataclasses import dataclass

from headwater.compression.errors import FrameError

MAGIC = b"HW"
VERSION = 1
ID_BYTES = 5
"""Bytes of a bundle's id in the self-contained form."""
MAX_MODES = 64

_PARTIAL = 0x40
_OPINION = 0x80
_PREAMBLE = struct.Struct(f"<2sB{ID_BYTES}s")
_CRC = struct.Struct("<H")


@dataclass(frozen=True, slots=True)
class Frame:
    """A coded latent."""

    mode: int
    """Index into the manifest's modes."""
    groups: int
    """Channel groups in the payload: G, or fewer where it was cut at the end of a group."""
    payload: bytes
    opinion: int | None = None
    """What the local exit made of the picture: an index into the bundle's opinions; None where the device says none."""

    @property
    def body(self) -> bytes:
        """The bytes behind the CRC: opinion and payload."""
        return self.payload if self.opinion is None else bytes((self.opinion,)) + self.payload


class FrameCodec:
    """Packs and unpacks the frames of one bundle."""

    def __init__(self, bundle_id: bytes, modes: int, groups: int, opinions: int = 0) -> None:
        """Bind to a bundle.

        Args:
            bundle_id: the whole id, 32 bytes.
            modes: M, 1 to 64.
            groups: G, 1 to 255.
            opinions: how many the bundle knows, up to 256; 0 where devices say none.

        Raises:
            ValueError: if one of them is out of range.
        """
        if not (len(bundle_id) == 32 and 1 <= modes <= MAX_MODES and 1 <= groups <= 255 and 0 <= opinions <= 256):
            raise ValueError(
                f"an id of {len(bundle_id)} bytes, {modes} modes, {groups} groups, {opinions} opinions; "
                f"want 32, 1 to {MAX_MODES}, 1 to 255, 0 to 256"
            )
        self.modes = modes
        self.groups = groups
        self.opinions = opinions
        self._preamble = _PREAMBLE.pack(MAGIC, VERSION, bundle_id[:ID_BYTES])
        self._id_crc = crc_hqx(bundle_id, 0xFFFF)

    def pack(self, frame: Frame, before: bytes = b"") -> bytes:
        """The stream form; raises ValueError for a mode, a number of groups or an opinion that the bundle has not.

        ``before`` is the body that earlier parts of the frame have carried (parts.py): the checksum covers it too.
        """
        if not (0 <= frame.mode < self.modes and 1 <= frame.groups <= self.groups):
            raise ValueError(
                f"mode {frame.mode} with {frame.groups} groups; want 0 to {self.modes - 1} with 1 to {self.groups}"
            )
        first = frame.mode
        if frame.opinion is not None:
            self._check_opinion(frame.opinion)
            first |= _OPINION
        partial = frame.groups < self.groups
        header, body = bytes((first | _PARTIAL, frame.groups)) if partial else bytes((first,)), frame.body
        return header + _CRC.pack(self._crc(header, before, body)) + body

    def unpack(self, data: bytes, before: bytes = b"") -> Frame:
        """Read the stream form; raises :class:`FrameError` on anything that `pack` of this bundle did not write."""
        if not data:
            raise FrameError("the frame is empty; a frame has at least 3 bytes")
        mode, size = data[0] & 0x3F, 2 if data[0] & _PARTIAL else 1
        if len(data) < size + _CRC.size:
            raise FrameError(f"the frame has {len(data)} bytes; its header alone has {size + _CRC.size}")
        has_opinion = bool(data[0] & _OPINION)
        if mode >= self.modes or (has_opinion and not self.opinions):
            said = "" if self.opinions else ", bit 7 clear: this bundle knows no opinions"
            raise FrameError(f"the frame begins with 0x{data[0]:02x}; want a mode from 0 to {self.modes - 1}{said}")
        groups = data[1] if size == 2 else self.groups
        if size == 2 and not 1 <= groups < self.groups:
            raise FrameError(f"the frame is a partial one of {groups} groups; want 1 to {self.groups - 1}")
        header, body = data[:size], data[size + _CRC.size :]
        (found,), wanted = _CRC.unpack_from(data, size), self._crc(header, before, body)
        if found != wanted:
            raise FrameError(
                f"the frame's checksum is 0x{found:04x}, want 0x{wanted:04x}: it is damaged or of another bundle"
            )
        if not has_opinion:
            return Frame(mode, groups, body)
        if not body or body[0] >= self.opinions:
            said = f"is {body[0]}" if body else "is missing"
            raise FrameError(f"the frame's opinion {said}; this bundle has 0 to {self.opinions - 1}")
        return Frame(mode, groups, body[1:], body[0])

    def pack_file(self, frame: Frame) -> bytes:
        """The self-contained form; raises ValueError as `pack` does."""
        return self._preamble + self.pack(frame)

    def unpack_file(self, data: bytes) -> Frame:
        """Read the self-contained form; raises :class:`FrameError` if it is none, or of another bundle."""
        bundle_id, own = read_bundle_id(data), self._preamble[-ID_BYTES:]
        if bundle_id != own:
            raise FrameError(f"the frame is of the bundle {bundle_id.hex()}; this one is {own.hex()}")
        return self.unpack(data[_PREAMBLE.size :])

    def _check_opinion(self, opinion: int) -> None:
        if not 0 <= opinion < self.opinions:
            raise ValueError(f"opinion {opinion}; this bundle has {self.opinions}, from 0 on")

    def _crc(self, header: bytes, before: bytes, body: bytes) -> int:
        return crc_hqx(body, crc_hqx(before, crc_hqx(header, self._id_crc)))


def read_bundle_id(data: bytes) -> bytes:
    """The first 5 bytes of the id of the bundle that a self-contained frame names; raises :class:`FrameError`."""
    if len(data) < _PREAMBLE.size:
        raise FrameError(f"the frame has {len(data)} bytes; a self-contained one has at least {_PREAMBLE.size + 3}")
    magic, version, bundle_id = _PREAMBLE.unpack_from(data)
    if magic != MAGIC:
        raise FrameError(
            f"the frame begins with {magic!r}, not {MAGIC!r}: it is not a self-contained frame of headwater"
        )
    if version != VERSION:
        raise FrameError(f"the frame has version {version}; this headwater reads version {VERSION}")
    return bytes(bundle_id)
