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
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from headwater.compression.errors import SignatureError

MAGIC = b"HWS\x01"
KEY_ID_BYTES = 8
SIGNATURE_BYTES = len(MAGIC) + KEY_ID_BYTES + 64


def generate(path: Path) -> Path:
    """Write a new key pair: the private key to ``path`` (mode 0600), the public one to ``path`` + ``.pub`` (0644).

    Returns the path of the public key. Never replaces a key: raises :class:`SignatureError` if either file exists.
    """
    public_path = path.with_name(path.name + ".pub")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    if public_path.exists():
        raise SignatureError(f"{public_path} exists; a key is never replaced: choose another name or move it away.")
    _write_new(path, private, 0o600)
    _write_new(public_path, public, 0o644)
    return public_path


def sign(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """Sign a manifest's bytes; returns the bytes of ``manifest.sig``."""
    return MAGIC + key_id(key.public_key()) + key.sign(manifest)


def verify(manifest: bytes, signature: bytes | None, key: Ed25519PublicKey) -> None:
    """Return if ``signature`` over ``manifest`` is by ``key``; raises :class:`SignatureError` otherwise."""
    if signature is None:
        raise SignatureError("the bundle is not signed; `headwater bundle sign` signs it.")
    signer = signer_id(signature)
    if signer != key_id(key):
        raise SignatureError(
            f"the bundle is signed by the key {signer.hex()}, not by the trusted key {key_id(key).hex()}; "
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
    """Read a private key; raises :class:`SignatureError` if others can read the file too, or if it is no such key."""
    data = _read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise SignatureError(f"{path} is open to other users (mode {mode:o}); run `chmod 600 {path}` first.")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise SignatureError(f"{path} is no unencrypted private key in PEM: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{path} holds a key of another kind; `headwater bundle keygen` makes an Ed25519 pair.")
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """Read a public key; raises :class:`SignatureError` if the file is no Ed25519 public key."""
    try:
        key = serialization.load_pem_public_key(_read(path))
    except ValueError as error:
        raise SignatureError(f"{path} is no public key in PEM; give the file that ends in .pub: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SignatureError(f"{path} holds a key of another kind; `headwater bundle keygen` makes an Ed25519 pair.")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SignatureError(f"the key {path} cannot be read: {error.strerror}.") from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Create a file with its mode from the first byte on; one that exists is left as it is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise SignatureError(f"{path} exists; a key is never replaced: choose another name or move it away.") from error
    except OSError as error:
        raise SignatureError(f"the key {path} cannot be written: {error.strerror}.") from error
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)  # whatever the umask took away
        file.write(data)
