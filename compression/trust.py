"""Whose releases are believed, and how that changes: lists of keys, each signed by the one before (TUF's root role).

A device is given one public key, its *anchor*. That is list 0: this key alone signs releases, and lists. Whoever holds
it can write list 1, and so on; a list names the keys of two roles:

    root       may sign the next list; kept in a drawer, used once a year
    release    may sign releases and bundles; used for each of them, so more easily lost

A release key that was stolen is worth nothing to a device that has heard of a list without it. Lists are sent with each
release (release.py), all of them from the first, some 250 bytes each: a device that slept through three hears of three.

    0    4   magic "HWK" and version 1
    4    4   number of the list, big-endian, from 1 without a gap
    8    8   end of its time, Unix seconds: no release is believed by it afterwards
    16   1   r, root keys, 1 to 8
    17   1   k, release keys, 1 to 8
    18   32(r+k)  the keys, Ed25519, raw
    .    1   signatures, 1 to 16
    .    76 each, over all before them (signature.py): one by a root key of the list before, one by one of its own
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from headwater.compression.errors import SignatureError
from headwater.compression.signature import SIGNATURE_BYTES, key_id, sign, verify

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    Keys = tuple[Ed25519PublicKey, ...]

MAGIC = b"HWK\x01"
MOST_KEYS, MOST_SIGNATURES = 8, 16
MOST_LISTS = 64
"""After so many the devices are to be given a new anchor."""
MAX_CHAIN_BYTES = 1 << 17
_HEAD = struct.Struct(">4sIQBB")
_KEY_BYTES = 32


@dataclass(frozen=True)
class KeyList:
    """Who may sign what from now on."""

    number: int
    expires: int
    """Unix seconds."""
    root: Keys
    release: Keys

    @property
    def statement(self) -> bytes:
        """What is signed."""
        keys = b"".join(key.public_bytes_raw() for key in (*self.root, *self.release))
        return _HEAD.pack(MAGIC, self.number, self.expires, len(self.root), len(self.release)) + keys

    def signed(self, *signers: Ed25519PrivateKey) -> bytes:
        """As it travels, signed by root keys of the list before and its own."""
        statement = self.statement
        return statement + bytes([len(signers)]) + b"".join(sign(statement, signer) for signer in signers)


@dataclass(frozen=True)
class Trust:
    """An anchor, and the lists that were heard of since."""

    lists: tuple[KeyList, ...]
    """The last one counts."""
    chain: bytes = b""
    """The lists as they travel, but for the anchor's."""

    @classmethod
    def anchored(cls, key: Ed25519PublicKey) -> Self:
        """What a device starts from."""
        return cls((KeyList(0, 1 << 62, (key,), (key,)),))

    @property
    def newest(self) -> KeyList:
        """The list that counts."""
        return self.lists[-1]

    def following(self, chain: bytes) -> Trust:
        """What is believed once this chain was heard; the same if it says nothing new.

        Raises:
            SignatureError: it is not signed by whom the list before says, or it is another one than was heard before.
        """
        trust, rest = self, chain
        while rest:
            new, statement, signatures, after = _read(rest)
            if new.number <= self.newest.number:
                self._check_known(new, statement)
            else:
                trust = trust._with(new, signatures, rest[: len(rest) - len(after)])
            rest = after
        return trust

    def _check_known(self, one: KeyList, statement: bytes) -> None:
        # Not what surrounds it: anybody can add a signature that nobody asked for.
        if not one.number or self.lists[one.number].statement != statement:
            raise SignatureError(
                f"list {one.number} of keys is another one than was heard before; a root key is in two hands"
            )

    def _with(self, new: KeyList, signatures: Sequence[bytes], data: bytes) -> Trust:
        """What is believed after one more list."""
        before = self.newest
        if new.number != before.number + 1:
            raise SignatureError(f"list {new.number} of keys came after {before.number}; each is to be heard")
        if new.number > MOST_LISTS:
            raise SignatureError(f"there are more than {MOST_LISTS} lists of keys; give the devices a new anchor")
        for keys, whose in ((before.root, f"of list {before.number}"), (new.root, "of its own")):
            if not _signed_by_one(new.statement, signatures, keys):
                raise SignatureError(f"list {new.number} of keys is signed by no root key {whose}")
        return Trust((*self.lists, new), self.chain + data)


def read_chain(data: bytes) -> tuple[bytes, bytes]:
    """Split what was sent into lists, unread, and what comes after them; raises :class:`SignatureError`."""
    rest = data
    while rest.startswith(MAGIC):
        if len(data) - len(rest) > MAX_CHAIN_BYTES:
            raise SignatureError(f"there are more than {MAX_CHAIN_BYTES} bytes of lists of keys; that is too many")
        *_, rest = _read(rest)
    return data[: len(data) - len(rest)], rest


def describe(chain: bytes) -> tuple[KeyList, ...]:
    """The lists of a chain, each checked against the one before; raises :class:`SignatureError`.

    This is the publisher's view: whether the first one is signed by the anchor is for devices to judge.
    """
    if not chain:
        return ()
    first, *_ = _read(chain)
    return Trust((KeyList(0, 0, first.root, ()),)).following(chain).lists[1:]


def next_list(chain: bytes, root: Keys, release: Keys, valid_days: float) -> KeyList:
    """The list to come after a chain, unsigned; raises :class:`SignatureError` for a chain that is none."""
    number = len(describe(chain)) + 1
    return KeyList(number, int(time.time() + valid_days * 24 * 3600), root, release)


def _read(data: bytes) -> tuple[KeyList, bytes, Sequence[bytes], bytes]:
    """The first list, its signed bytes, its signatures, and what comes after; nothing is checked but the form."""
    if len(data) < _HEAD.size or not data.startswith(MAGIC):
        raise SignatureError(f"{len(data)} bytes beginning with {data[:4].hex() or 'nothing'} are no list of keys")
    _, number, expires, roots, releases = _HEAD.unpack_from(data)
    end = _HEAD.size + _KEY_BYTES * (roots + releases)
    count = data[end] if len(data) > end else 0
    rest = end + 1 + count * SIGNATURE_BYTES
    keys_fit = 0 < roots <= MOST_KEYS and 0 < releases <= MOST_KEYS
    if not keys_fit or not 0 < count <= MOST_SIGNATURES or rest > len(data):
        raise SignatureError(f"{len(data)} bytes are no list of {roots} and {releases} keys with {count} signatures")
    raw = [data[at : at + _KEY_BYTES] for at in range(_HEAD.size, end, _KEY_BYTES)]
    keys = [Ed25519PublicKey.from_public_bytes(each) for each in raw]
    signatures = [data[at : at + SIGNATURE_BYTES] for at in range(end + 1, rest, SIGNATURE_BYTES)]
    return KeyList(number, expires, tuple(keys[:roots]), tuple(keys[roots:])), data[:end], signatures, data[rest:]


def _signed_by_one(statement: bytes, signatures: Sequence[bytes], keys: Collection[Ed25519PublicKey]) -> bool:
    ids = {key_id(key) for key in keys}
    for signature in signatures:
        if signature[4:12] not in ids:
            continue
        try:
            verify(statement, signature, *keys)
        except SignatureError:
            continue
        return True
    return False
