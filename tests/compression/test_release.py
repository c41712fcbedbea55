"""A release is what the holder of the key has signed, or an error."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headwater.compression.errors import SignatureError
from headwater.compression.release import Release

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RELEASE = Release(7, bytes(range(32)), "solar")


def test_round_trip() -> None:
    assert Release.read(RELEASE.signed(KEY), KEY.public_key()) == RELEASE
    back = Release(1 << 63, bytes(32), "größe", back=True)
    assert Release.read(back.signed(KEY), KEY.public_key()) == back


def test_the_bytes_are_as_the_page_says() -> None:
    data = RELEASE.signed(KEY)
    assert data[:12] == b"HWR\x01" + bytes(7) + b"\x07"
    assert data[12:44] == bytes(range(32))
    assert data[44:50] == b"\0solar"
    assert len(data) == 50 + 76


def test_any_byte_changed_or_cut_off() -> None:
    data = RELEASE.signed(KEY)
    for at in range(len(data)):
        for hurt in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
            with pytest.raises(SignatureError):
                Release.read(hurt, KEY.public_key())


def test_another_s_key() -> None:
    with pytest.raises(SignatureError, match="not by the trusted key"):
        Release.read(RELEASE.signed(KEY), Ed25519PrivateKey.generate().public_key())
