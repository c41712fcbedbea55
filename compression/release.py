"""A release: the signed word that devices are to use a bundle from now on.

It travels after the lists of keys that say who may sign it (trust.py), if there are any:

    0    4   magic "HWR" and version 2
    4    8   serial, big-endian: rises with every release of a server, roll-backs too
    12   8   when it was signed, Unix seconds
    20   8   end of its time, Unix seconds: nobody who has not followed it by then does
    28   8   bytes of the bundle's files, all together
    36   32  id of the bundle
    68   1   1 for a roll-back, to a bundle that is older than the one before; else 0
    69   n   name of the bundle, UTF-8, at most 200 bytes
    69+n 76  signature over all of that, as over a manifest (signature.py)

The bundle's own signature says who built it; a release says that it is the one to use *now*. What that is against, in
the words of The Update Framework (TUF, Samuel et al., CCS 2010):

    roll-back, replay   a device believes only serials above the highest that it has followed, and goes back to an older
                        bundle only for a release that says so
    freeze              a release ends; who is kept from hearing of a newer one knows it then
    endless data        nothing longer than the bundle is fetched
    mix and match       the bundle is named by its full id, which covers each of its files
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from headwater.compression.errors import SignatureError
from headwater.compression.signature import SIGNATURE_BYTES, key_id, sign, verify
from headwater.compression.trust import describe, read_chain

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from headwater.compression.bundle import Bundle
    from headwater.compression.trust import Trust

MAGIC = b"HWR\x02"
MAX_NAME_BYTES = 200
VALID_DAYS = 90.0
"""So long is a release to be believed, unless its signer says otherwise."""
_HEAD = struct.Struct(">4sQQQQ32sB")
_DAY_S = 24 * 3600


@dataclass(frozen=True)
class Release:
    """Which bundle to use."""

    serial: int
    """Rises with every release."""
    bundle_id: bytes
    """Full id, 32 bytes."""
    name: str
    """The bundle's."""
    size: int
    """Bytes of its files, all together."""
    issued: int
    """Unix seconds."""
    expires: int
    """Unix seconds."""
    back: bool = False
    """It is older than the one before, and that is meant."""

    def signed(self, key: Ed25519PrivateKey, chain: bytes = b"") -> bytes:
        """As it travels, after the lists that name its key."""
        facts = (self.serial, self.issued, self.expires, self.size, self.bundle_id, self.back)
        statement = _HEAD.pack(MAGIC, *facts) + self.name.encode()
        return chain + statement + sign(statement, key)

    @classmethod
    def read(cls, data: bytes, *keys: Ed25519PublicKey) -> Self:
        """Check and read, without lists before it; raises :class:`SignatureError` for what none of the keys signed."""
        verify(data[:-SIGNATURE_BYTES], _signature(data), *keys)
        return cls.unverified(data)

    @classmethod
    def unverified(cls, data: bytes) -> Self:
        """What a release says, whoever may have signed it: for the server, which hands it on.

        Raises :class:`SignatureError` for what is none; lists of keys may stand before it.
        """
        _, data = read_chain(data)
        _signature(data)
        statement = data[:-SIGNATURE_BYTES]
        _, serial, issued, expires, size, bundle_id, back = _HEAD.unpack_from(statement)
        try:
            name = statement[_HEAD.size :].decode()
        except UnicodeDecodeError as error:
            raise SignatureError("the release names its bundle in bytes that are no text") from error
        return cls(serial, bundle_id, name, size, issued, expires, bool(back))


def _signature(data: bytes) -> bytes:
    """The last bytes of what has the form of a release; raises :class:`SignatureError` for anything else."""
    size = len(data) - SIGNATURE_BYTES - _HEAD.size
    if not 0 <= size <= MAX_NAME_BYTES or not data.startswith(MAGIC):
        raise SignatureError(f"{len(data)} bytes beginning with {data[:4].hex() or 'nothing'} are no release")
    return data[-SIGNATURE_BYTES:]


def heard(data: bytes, trust: Trust) -> tuple[Trust, bytes]:
    """What is believed after the lists that came with a release, and the release, unread.

    Raises :class:`SignatureError`. A device follows the lists even where it does not follow the release.
    """
    chain, rest = read_chain(data)
    return trust.following(chain), rest


@dataclass(frozen=True)
class Signer:
    """Who signs releases and bundles, and for how long."""

    key: Ed25519PrivateKey
    chain: bytes = b""
    """The lists of keys that are sent along (trust.py); none where the key is the devices' anchor."""
    valid_days: float = VALID_DAYS

    def __post_init__(self) -> None:
        """Check the key against the lists; raises :class:`SignatureError`."""
        lists = describe(self.chain)
        own = key_id(self.key.public_key())
        if lists and own not in {key_id(key) for key in lists[-1].release}:
            raise SignatureError(
                f"the key {own.hex()} may sign no releases by list {lists[-1].number} of keys; "
                "give the key that it names, or write another list with `headwater bundle rotate`."
            )

    def release(self, serial: int, bundle: Bundle, *, back: bool = False) -> bytes:
        """A release of a bundle from now on, as it travels."""
        size = len(bundle.manifest_bytes) + sum(entry.size for entry in bundle.manifest.files.values())
        issued = int(time.time())
        expires = issued + int(self.valid_days * _DAY_S)
        return Release(serial, bundle.id, bundle.manifest.name, size, issued, expires, back).signed(
            self.key, self.chain
        )

    def signed(self, bundle: Bundle) -> Bundle:
        """The bundle with this signer's signature, if it has not got that already."""
        try:
            verify(bundle.manifest_bytes, bundle.signature, self.key.public_key())
        except SignatureError:
            return bundle.signed(sign(bundle.manifest_bytes, self.key))
        return bundle
