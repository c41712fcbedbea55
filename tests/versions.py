"""Versions of the tiny bundle, as a roll-out has them: each later than the one before, with a golden input, signed."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headwater.compression.bundle import Bundle, to_safetensors
from headwater.compression.inference import session
from headwater.compression.manifest import head_file
from headwater.compression.release import Signer
from headwater.compression.signature import sign
from tests import tiny

if TYPE_CHECKING:
    from pathlib import Path

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key()
SIGNER = Signer(KEY)


@cache
def version(number: int, name: str = "tiny") -> Bundle:
    """The bundle of a number from 0: other weights and answers than the others."""
    source = tiny.bundle(name, seed=number)
    files = {each: source.read(each) for each in source.manifest.files}
    files["golden.safetensors"] = golden(source)
    made = dataclasses.replace(source.manifest, created=f"2026-01-01T00:{number:02}:00+00:00")
    return signed(Bundle.build(made, files))


def golden(bundle: Bundle, off: float = 0.0) -> bytes:
    """The file of two images and what each head makes of them; ``off`` by so much."""
    images = np.stack([tiny.image(seed) for seed in (0, 4)])
    arrays: dict[str, np.ndarray] = {"image": images}
    for width in tiny.WIDTHS:
        head = session(bundle.read(head_file(width)))
        latents = [head.run(["latent"], {"image": image[np.newaxis]})[0] for image in images]
        arrays[f"latent_{width:g}"] = np.concatenate(latents) + np.float32(off)
    return to_safetensors(arrays)


def broken(number: int) -> Bundle:
    """The same with a golden input that no device can compute."""
    return signed(version(number).with_file("golden.safetensors", golden(version(number), off=5.0)))


def signed(bundle: Bundle, key: Ed25519PrivateKey = KEY) -> Bundle:
    return bundle.signed(sign(bundle.manifest_bytes, key))


def release(bundle: Bundle, serial: int, *, back: bool = False, key: Ed25519PrivateKey = KEY) -> bytes:
    return Signer(key).release(serial, bundle, back=back)


def write_keys(folder: Path) -> tuple[Path, Path]:
    """The private and the public key as files."""
    private, public = folder / "release.key", folder / "release.key.pub"
    private.write_bytes(
        KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    private.chmod(0o600)
    public.write_bytes(PUBLIC.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    return private, public
