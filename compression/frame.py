r"""The frame: a coded latent with what a decoder has to know, in as few bytes as can be.

A payload may be 30 bytes, so what never changes on a stream (bundle, version, group layout) is agreed once, and the
header of the stream form is 3 bytes, 4 for a frame that was cut:

    offset  bytes  field
    0       1      bits 0-5 mode index | bit 6 partial | bit 7 always 0
    1       0 / 1  only if partial: how many channel groups are there, 1 to G - 1
    1 / 2   2      CRC-16, little-endian
    3 / 4   ...    payload (coder.py)

The self-contained form, for files and unary calls, says whose frame it is; at most 12 bytes before the payload:

    0       2      magic "HW"
    2       1      version, 1
    3       5      first 5 bytes of the bundle's id
    8       ...    the stream form

The CRC-16 (polynomial 0x1021, start 0xFFFF, not reflected: CRC-16/IBM-3740) runs over the bundle's whole id, the bytes
before the CRC in the stream form, and the payload. So a frame of another bundle is refused even where its bytes would
decode.
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
_RESERVED = 0x80
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


class FrameCodec:
    """Packs and unpacks the frames of one bundle."""

    def __init__(self, bundle_id: bytes, modes: int, groups: int) -> None:
        """Bind to a bundle.

        Args:
            bundle_id: the whole id, 32 bytes.
            modes: M, 1 to 64.
            groups: G, 1 to 255.

        Raises:
            ValueError: if one of them is out of range.
        """
        if len(bundle_id) != 32 or not 1 <= modes <= MAX_MODES or not 1 <= groups <= 255:
            raise ValueError(
                f"an id of {len(bundle_id)} bytes, {modes} modes, {groups} groups; want 32, 1 to {MAX_MODES}, 1 to 255"
            )
        self.modes = modes
        self.groups = groups
        self._preamble = _PREAMBLE.pack(MAGIC, VERSION, bundle_id[:ID_BYTES])
        self._id_crc = crc_hqx(bundle_id, 0xFFFF)

    def pack(self, frame: Frame, before: bytes = b"") -> bytes:
        """The stream form; raises ValueError for a mode or number of groups that the bundle has not.

        ``before`` is what earlier parts of the frame have carried (parts.py): the checksum covers it too.
        """
        if not (0 <= frame.mode < self.modes and 1 <= frame.groups <= self.groups):
            raise ValueError(
                f"mode {frame.mode} with {frame.groups} groups; want 0 to {self.modes - 1} with 1 to {self.groups}"
            )
        partial = frame.groups < self.groups
        header = bytes((frame.mode | _PARTIAL, frame.groups)) if partial else bytes((frame.mode,))
        return header + _CRC.pack(self._crc(header, before, frame.payload)) + frame.payload

    def unpack(self, data: bytes, before: bytes = b"") -> Frame:
        """Read the stream form; raises :class:`FrameError` on anything that `pack` of this bundle did not write."""
        if not data:
            raise FrameError("the frame is empty; a frame has at least 3 bytes")
        mode, size = data[0] & 0x3F, 2 if data[0] & _PARTIAL else 1
        if len(data) < size + _CRC.size:
            raise FrameError(f"the frame has {len(data)} bytes; its header alone has {size + _CRC.size}")
        if data[0] & _RESERVED or mode >= self.modes:
            raise FrameError(
                f"the frame begins with 0x{data[0]:02x}; want a mode from 0 to {self.modes - 1}, bit 7 clear"
            )
        groups = data[1] if size == 2 else self.groups
        if size == 2 and not 1 <= groups < self.groups:
            raise FrameError(f"the frame is a partial one of {groups} groups; want 1 to {self.groups - 1}")
        header, payload = data[:size], data[size + _CRC.size :]
        (found,), wanted = _CRC.unpack_from(data, size), self._crc(header, before, payload)
        if found != wanted:
            raise FrameError(
                f"the frame's checksum is 0x{found:04x}, want 0x{wanted:04x}: it is damaged or of another bundle"
            )
        return Frame(mode, groups, payload)

    def pack_file(self, frame: Frame) -> bytes:
        """The self-contained form; raises ValueError as `pack` does."""
        return self._preamble + self.pack(frame)

    def unpack_file(self, data: bytes) -> Frame:
        """Read the self-contained form; raises :class:`FrameError` if it is none, or of another bundle."""
        bundle_id, own = read_bundle_id(data), self._preamble[-ID_BYTES:]
        if bundle_id != own:
            raise FrameError(f"the frame is of the bundle {bundle_id.hex()}; this one is {own.hex()}")
        return self.unpack(data[_PREAMBLE.size :])

    def _crc(self, header: bytes, before: bytes, payload: bytes) -> int:
        return crc_hqx(payload, crc_hqx(before, crc_hqx(header, self._id_crc)))


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
