"""Certificates for tests: an authority in a folder, devices that it has signed, and channels that show them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from headwater.compression.enrolment import SERVER_NAME
from headwater.server.access.authority import Authority, Issued, Pair
from headwater.server.access.register import Register

TO_SERVER = (("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.use_local_subchannel_pool", 1))


@dataclass(frozen=True)
class Member:
    """A device with a certificate, whether the server knows it or not."""

    issued: Issued
    pair: Pair

    @property
    def name(self) -> str:
        return self.issued.device


@cache
def device_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def request(key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    """A signing request, PEM."""
    name = x509.Name([])
    signed = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key or device_key(), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM)


def member(authority: Authority, name: str = "cam", days: float = 30, now: datetime | None = None) -> Member:
    """Have the authority sign a device; with ``now`` long ago or negative ``days``, one that has expired."""
    issued = authority.sign_device(request(), name, days, now)
    key = device_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Member(issued, Pair(key, issued.pem))


def enrolled(register: Register, authority: Authority, name: str = "cam", days: float = 30) -> Member:
    """A device that the register knows."""
    made = member(authority, name, days)
    with register.change():
        register.enter(name, time.time())
        register.add(made.issued)
    return made


def channel(address: str, authority: Authority, shown: Pair | Member | None) -> grpc.aio.Channel:
    """A channel to a server of this authority that shows a certificate, or none."""
    pair = shown.pair if isinstance(shown, Member) else shown
    key, chain = (None, None) if pair is None else (pair.key, pair.certificate)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(authority.pem, key, chain), TO_SERVER)


def stranger(folder: Path) -> Authority:
    """Another fleet's authority."""
    return Authority.open(folder / "elsewhere")
