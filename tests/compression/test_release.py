"""A release is what the holder of the key has signed, or an error."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headwater.compression.errors import SignatureError
from headwater.compression.release import Release, Signer, heard
from headwater.compression.signature import verify
from headwater.compression.trust import KeyList, Trust
from tests import tiny

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
RELEASE = Release(7, bytes(range(32)), "solar", size=1000, issued=1_700_000_000, expires=1_800_000_000)


def test_round_trip() -> None:
    assert Release.read(RELEASE.signed(KEY), KEY.public_key()) == RELEASE
    back = Release(1 << 63, bytes(32), "größe", 1 << 40, 0, 1 << 63, back=True)
    assert Release.read(back.signed(KEY), OTHER.public_key(), KEY.public_key()) == back


def test_the_bytes_are_as_the_page_says() -> None:
    data = RELEASE.signed(KEY)
    assert data[:12] == b"HWR\x02" + bytes(7) + b"\x07"
    assert data[12:28].hex() == "000000006553f100" + "000000006b49d200"
    assert data[28:36] == (1000).to_bytes(8, "big")
    assert data[36:68] == bytes(range(32))
    assert data[68:74] == b"\0solar"
    assert len(data) == 74 + 76


def test_any_byte_changed_or_cut_off() -> None:
    data = RELEASE.signed(KEY)
    for at in range(len(data)):
        for hurt in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
            with pytest.raises(SignatureError):
                Release.read(hurt, KEY.public_key())


def test_another_s_key() -> None:
    with pytest.raises(SignatureError, match="not by the trusted key"):
        Release.read(RELEASE.signed(KEY), Ed25519PrivateKey.generate().public_key())


def test_lists_of_keys_come_first() -> None:
    keys = KeyList(1, 1 << 40, (KEY.public_key(),), (OTHER.public_key(),)).signed(KEY)
    trust, release = heard(RELEASE.signed(OTHER, keys), Trust.anchored(KEY.public_key()))
    assert trust.chain == keys
    assert Release.read(release, *trust.newest.release) == RELEASE


def test_a_signer_says_how_long_and_how_much() -> None:
    bundle = tiny.bundle()
    release = Release.read(Signer(KEY, valid_days=2).release(9, bundle, back=True), KEY.public_key())
    assert (release.serial, release.bundle_id, release.name, release.back) == (9, bundle.id, "tiny", True)
    assert release.expires - release.issued == 2 * 24 * 3600
    assert release.size == len(bundle.manifest_bytes) + sum(len(bundle.read(name)) for name in bundle.manifest.files)


def test_a_signer_signs_bundles_once() -> None:
    signed = Signer(KEY).signed(tiny.bundle())
    verify(signed.manifest_bytes, signed.signature, KEY.public_key())
    assert Signer(KEY).signed(signed) is signed
    again = Signer(OTHER).signed(signed)
    verify(again.manifest_bytes, again.signature, OTHER.public_key())


def test_a_key_that_the_lists_do_not_name_signs_nothing() -> None:
    keys = KeyList(1, 1 << 40, (KEY.public_key(),), (OTHER.public_key(),)).signed(KEY)
    assert Signer(OTHER, keys).release(1, tiny.bundle()).startswith(keys)
    with pytest.raises(SignatureError, match="may sign no releases by list 1"):
        Signer(KEY, keys)
