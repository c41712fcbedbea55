"""What server and device have to agree on before they trust each other: a token, and the names in certificates.

A token is what an operator carries from the server to a device, as 68 letters of base64url::

    0   1   version 1
    1   2   port where the server enrols, big-endian
    3   32  pin: SHA-256 of the public key (SubjectPublicKeyInfo, DER) of the server's certificate authority
    35  16  secret: random; the server keeps its hash only

The pin lets the device know the server before it says the secret, the secret lets the server know the device before it
signs its certificate. Neither needs a certificate from anybody else.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Self

from headwater.compression.errors import IdentityError

if TYPE_CHECKING:
    from cryptography import x509

SERVER_NAME = "server.headwater.internal"
"""What every server's certificate names, whatever its address: a device knows its server by the authority that signed,
so that a server may move, and be reached by several addresses and through tunnels. The authority signs no other
server."""
DEFAULT_PORT = 50051
"""Where a server takes frames if nobody says otherwise."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""What a device may be called."""
VERSION = 1
SECRET_BYTES = 16
_LAYOUT = struct.Struct(f">BH32s{SECRET_BYTES}s")


def pin_of(authority: x509.Certificate) -> bytes:
    """What a token says of a certificate authority, 32 bytes."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415 - seldom needed

    key = authority.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(key).digest()


def check_name(name: str) -> str:
    """Return the name of a device; raises :class:`IdentityError` for one that a device cannot have."""
    if not NAME.fullmatch(name):
        raise IdentityError(
            f"{name!r} is no name for a device; it has 1 to 63 letters, digits, dots, dashes and underscores, "
            "and begins with a letter or digit: give it one with --name"
        )
    return name


@dataclass(frozen=True)
class Token:
    """A device's ticket into a fleet, for one use."""

    port: int
    """Where the server enrols."""
    pin: bytes
    """Of its authority, see :func:`pin_of`."""
    secret: bytes = field(repr=False)
    """16 random bytes."""

    def text(self) -> str:
        """As an operator carries it."""
        return base64.urlsafe_b64encode(_LAYOUT.pack(VERSION, self.port, self.pin, self.secret)).decode()

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a token; raises :class:`IdentityError`, whose text does not repeat it."""
        try:
            data = base64.b64decode(text.strip(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        if len(data) != _LAYOUT.size or data[0] != VERSION:
            raise IdentityError(
                f"this is no enrolment token: it has {len(text.strip())} letters, and a token of version {VERSION} has "
                "68 of base64; copy all that `headwater server devices token` printed"
            )
        _, port, pin, secret = _LAYOUT.unpack(data)
        return cls(port, pin, secret)
