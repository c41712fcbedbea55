"""Signatures: what a key vouches for, what breaks it, and how key files are kept."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headwater.compression import signature
from headwater.compression.errors import IdentityError, SignatureError

MANIFEST = b'{"name": "solar"}\n'


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def test_a_signature_verifies(key: Ed25519PrivateKey) -> None:
    signed = signature.sign(MANIFEST, key)
    signature.verify(MANIFEST, signed, key.public_key())
    assert len(signed) == signature.SIGNATURE_BYTES == 76


def test_the_layout_is_fixed(key: Ed25519PrivateKey) -> None:
    # Ed25519 is deterministic, so a changed byte here is a changed format.
    assert signature.sign(MANIFEST, key).hex() == (
        "48575301" + "56475aa75463474c" + "d526defb0f0cf0d9d175c932da2710c1f6a46ece89e1f62c70bad89f7f80d65d"
        "cf98a8a25ec8388c4815ccd87b6dc995eae27673958bf2607ef0a356142dfe06"
    )


def test_every_flipped_byte_is_noticed(key: Ed25519PrivateKey) -> None:
    signed = signature.sign(MANIFEST, key)
    for position in range(len(signed)):
        changed = bytearray(signed)
        changed[position] ^= 1
        with pytest.raises(SignatureError):
            signature.verify(MANIFEST, bytes(changed), key.public_key())
    for position in range(len(MANIFEST)):
        altered = bytearray(MANIFEST)
        altered[position] ^= 1
        with pytest.raises(SignatureError, match="not the one that was signed"):
            signature.verify(bytes(altered), signed, key.public_key())


@pytest.mark.parametrize("length", range(0, 80, 7))
def test_any_other_length_is_no_signature(length: int, key: Ed25519PrivateKey) -> None:
    longer = signature.sign(MANIFEST, key) + b"abcd"
    with pytest.raises(SignatureError, match="sign the bundle again"):
        signature.verify(MANIFEST, longer[:length], key.public_key())


def test_an_unsigned_bundle_is_said_to_be(key: Ed25519PrivateKey) -> None:
    with pytest.raises(SignatureError, match="not signed"):
        signature.verify(MANIFEST, None, key.public_key())


def test_another_key_is_named(key: Ed25519PrivateKey) -> None:
    other = Ed25519PrivateKey.generate().public_key()
    with pytest.raises(SignatureError, match=f"by the key 56475aa75463474c, not .* {signature.key_id(other).hex()}"):
        signature.verify(MANIFEST, signature.sign(MANIFEST, key), other)


def test_of_several_keys_the_one_that_signed_counts(key: Ed25519PrivateKey) -> None:
    others = [Ed25519PrivateKey.generate().public_key() for _ in range(2)]
    signed = signature.sign(MANIFEST, key)
    signature.verify(MANIFEST, signed, others[0], key.public_key(), others[1])
    both = " or ".join(signature.key_id(other).hex() for other in others)
    with pytest.raises(SignatureError, match=f"not by the trusted key {both}"):
        signature.verify(MANIFEST, signed, *others)
    with pytest.raises(SignatureError, match="for none is"):
        signature.verify(MANIFEST, signed)


def test_a_key_pair_is_written_with_its_modes_and_read_again(tmp_path: Path) -> None:
    private = tmp_path / "keys" / "fleet"
    public = signature.generate(private)
    assert public == tmp_path / "keys" / "fleet.pub"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (private, public)] == [0o600, 0o644]
    signed = signature.sign(MANIFEST, signature.load_private(private))
    signature.verify(MANIFEST, signed, signature.load_public(public))


@pytest.mark.parametrize("existing", ["fleet", "fleet.pub"])
def test_a_key_is_never_replaced(existing: str, tmp_path: Path) -> None:
    (tmp_path / existing).write_text("precious")
    with pytest.raises(IdentityError, match=f"{existing} exists"):
        signature.generate(tmp_path / "fleet")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    private = tmp_path / "fleet"
    signature.generate(private)
    private.chmod(0o640)
    with pytest.raises(IdentityError, match=r"mode 640\); run `chmod 600"):
        signature.load_private(private)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(mode=0o600)
    path.write_text("no key")
    with pytest.raises(SignatureError, match="no unencrypted private key"):
        signature.load_private(path)
    with pytest.raises(SignatureError, match="no public key"):
        signature.load_public(path)
    with pytest.raises(IdentityError, match="cannot be read: No such file"):
        signature.load_public(tmp_path / "none")


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    other = x25519.X25519PrivateKey.generate()
    private, public = tmp_path / "x", tmp_path / "x.pub"
    private.touch(mode=0o600)
    private.write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        other.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(SignatureError, match="another kind"):
        signature.load_private(private)
    with pytest.raises(SignatureError, match="another kind"):
        signature.load_public(public)
