"""Signatures of model bundles: Ed25519 (RFC 8032) over the bytes of ``manifest.json``.

The manifest holds the SHA-256 of every other file, so one signature vouches for the whole bundle. Layout of
``manifest.sig``, 76 bytes::

    0   4  magic "HWS" and version 1
    4   8  key id: the first 8 bytes of the SHA-256 of the raw public key; says which key, proves nothing
    12  64 the Ed25519 signature

A private key is an unencrypted PKCS#8 PEM file that only its owner can read; the public key stands beside it as
``<name>.pub``. Keep the private one on the machine that builds bundles and give the public one to servers and devices.
"""

import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from headwater.compression import keyfiles
from headwater.compression.errors import IdentityError, SignatureError

MAGIC = b"HWS\x01"
KEY_ID_BYTES = 8
SIGNATURE_BYTES = len(MAGIC) + KEY_ID_BYTES + 64


def generate(path: Path) -> Path:
    """Write a new key pair: the private key to ``path`` (mode 0600), the public one to ``path`` + ``.pub`` (0644).

    Returns the path of the public key. Never replaces a key: raises :class:`IdentityError` if either file exists.
    """
    public_path = path.with_name(path.name + ".pub")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    if public_path.exists():
        raise IdentityError(f"{public_path} exists; a key is never replaced: choose another name or move it away.")
    keyfiles.write_new(path, private, keyfiles.PRIVATE_MODE)
    keyfiles.write_new(public_path, public, keyfiles.PUBLIC_MODE)
    return public_path


def sign(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """Sign a manifest's bytes; returns the bytes of ``manifest.sig``."""
    return MAGIC + key_id(key.public_key()) + key.sign(manifest)


def verify(manifest: bytes, signature: bytes | None, *keys: Ed25519PublicKey) -> None:
    """Return if ``signature`` over ``manifest`` is by one of the keys; raises :class:`SignatureError` otherwise."""
    if signature is None:
        raise SignatureError("the bundle is not signed; `headwater bundle sign` signs it.")
    signer = signer_id(signature)
    key = next((each for each in keys if key_id(each) == signer), None)
    if key is None:
        trusted = " or ".join(key_id(each).hex() for each in keys) or "any, for none is"
        raise SignatureError(
            f"the bundle is signed by the key {signer.hex()}, not by the trusted key {trusted}; "
            "trust that key, or get the bundle from the holder of this one."
        )
    try:
        key.verify(signature[-64:], manifest)
    except InvalidSignature as error:
        raise SignatureError("the manifest is not the one that was signed; fetch the bundle again.") from error


def signer_id(signature: bytes) -> bytes:
    """Read the signing key's id (8 bytes) out of a signature; raises :class:`SignatureError` if it is none."""
    if len(signature) != SIGNATURE_BYTES or not signature.startswith(MAGIC):
        raise SignatureError(
            f"manifest.sig has {len(signature)} bytes beginning with {signature[:4].hex() or 'nothing'}; "
            f"a signature has {SIGNATURE_BYTES} beginning with {MAGIC.hex()}: sign the bundle again."
        )
    return signature[len(MAGIC) : len(MAGIC) + KEY_ID_BYTES]


def key_id(key: Ed25519PublicKey) -> bytes:
    """Name a public key by 8 bytes, the same ones on every machine."""
    return hashlib.sha256(key.public_bytes_raw()).digest()[:KEY_ID_BYTES]


def load_private(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises :class:`IdentityError` if others can read the file too, :class:`SignatureError` if it is no such key.
    """
    data = keyfiles.read_private(path)
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise SignatureError(f"{path} is no unencrypted private key in PEM: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{path} holds a key of another kind; `headwater bundle keygen` makes an Ed25519 pair.")
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """Read a public key.

    Raises :class:`IdentityError` if others can change the file, :class:`SignatureError` if it is no such key.
    """
    data = keyfiles.read_public(path)
    try:
        key = serialization.load_pem_public_key(data)
    except ValueError as error:
        raise SignatureError(f"{path} is no public key in PEM; give the file that ends in .pub: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"{path} holds a key of another kind; `headwater bundle keygen` makes an Ed25519 pair.")
    return key
