"""A release: the server's signed word that its devices are to use a bundle from now on.

    0   4   magic "HWR" and version 1
    4   8   serial, big-endian: rises with every release of a server, roll-backs too
    12  32  id of the bundle
    44  1   1 for a roll-back, to a bundle that is older than the one before; else 0
    45  n   name of the bundle, UTF-8, at most 200 bytes
    45+n 76 signature over all of that, as over a manifest (signature.py)

The bundle's own signature says who built it; a release says that it is the one to use *now*. Without it whoever stands
in the way could hand a device an old bundle, well signed once, whose faults are known. A device believes only serials
above the highest that it has followed, and goes back to an older bundle only for a release that says so.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from headwater.compression.errors import SignatureError
from headwater.compression.signature import SIGNATURE_BYTES, sign, verify

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAGIC = b"HWR\x01"
MAX_NAME_BYTES = 200
_HEAD = struct.Struct(">4sQ32sB")


@dataclass(frozen=True)
class Release:
    """Which bundle to use."""

    serial: int
    """Rises with every release."""
    bundle_id: bytes
    """Full id, 32 bytes."""
    name: str
    """The bundle's."""
    back: bool = False
    """It is older than the one before, and that is meant."""

    def signed(self, key: Ed25519PrivateKey) -> bytes:
        """As it travels."""
        statement = _HEAD.pack(MAGIC, self.serial, self.bundle_id, self.back) + self.name.encode()
        return statement + sign(statement, key)

    @classmethod
    def read(cls, data: bytes, key: Ed25519PublicKey) -> Self:
        """Check and read; raises :class:`SignatureError` for anything that the holder of ``key`` has not signed."""
        statement, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
        if not _HEAD.size <= len(statement) <= _HEAD.size + MAX_NAME_BYTES or not statement.startswith(MAGIC):
            raise SignatureError(f"{len(data)} bytes beginning with {data[:4].hex() or 'nothing'} are no release")
        verify(statement, signature, key)
        _, serial, bundle_id, back = _HEAD.unpack_from(statement)
        try:
            return cls(serial, bundle_id, statement[_HEAD.size :].decode(), bool(back))
        except UnicodeDecodeError as error:
            raise SignatureError("the release names its bundle in bytes that are no text") from error
