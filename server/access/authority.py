"""The fleet's own certificate authority: ECDSA over P-256 (FIPS 186-5), certificates after RFC 5280.

    STATE/access/ca.key   0600  the authority's key; who has it can be any device, and the server
    STATE/access/ca.pem         its certificate

It signs two kinds: for devices to ask with (clientAuth) and for its server to answer with (serverAuth). TLS holds each
to its purpose, so that a stolen device cannot pass for the server. The server's own key never touches the disk: each
start makes a new one.

Certificates begin long before they were signed, because a board without a battery for its clock wakes up in the past,
on the day when its image was built at the earliest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from headwater.compression import keyfiles
from headwater.compression.enrolment import SERVER_NAME, check_name, pin_of
from headwater.compression.errors import IdentityError
from headwater.server.access.caller import serial_of

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.x509.oid import ObjectIdentifier

FOLDER = "access"
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
"""When certificates begin to be valid."""
AUTHORITY_YEARS = 30
SERVER_DAYS = 90
"""A server that runs on makes a new certificate at half of that."""
MAX_REQUEST_BYTES = 4096


@dataclass(frozen=True)
class Issued:
    """A certificate that was signed."""

    device: str
    serial: str
    pem: bytes
    fingerprint: str
    """SHA-256 of the certificate, in hexadecimal."""
    issued: datetime
    expires: datetime


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate, PEM."""

    key: bytes = field(repr=False)
    certificate: bytes


class Authority:
    """Signs the certificates of one fleet."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key
        self.pem = certificate.public_bytes(Encoding.PEM)
        """Its own certificate."""
        self.pin = pin_of(certificate)
        """What devices know it by."""

    @classmethod
    def open(cls, state: Path) -> Self:
        """The authority of a server's state, made if there is none.

        Raises :class:`IdentityError` if one of its two files is missing, damaged or open to other users.
        """
        folder = state / FOLDER
        certificate, key = folder / "ca.pem", folder / "ca.key"
        if not certificate.exists() and not key.exists():
            cls._make(certificate, key)
        return cls._load(certificate, key)

    @classmethod
    def _make(cls, certificate: Path, key: Path) -> None:
        keyfiles.make_folder(key.parent)
        made = _self_signed()
        keyfiles.write(key, made.key, keyfiles.PRIVATE_MODE)
        keyfiles.write(certificate, made.certificate, keyfiles.PUBLIC_MODE)

    @classmethod
    def _load(cls, certificate: Path, key: Path) -> Self:
        try:
            loaded = load_pem_private_key(keyfiles.read_private(key), password=None)
            own = x509.load_pem_x509_certificate(keyfiles.read_public(certificate))
        except (ValueError, TypeError) as error:
            raise IdentityError(f"{key} or {certificate} is damaged: {error}; restore both from a backup") from error
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != own.public_key():
            raise IdentityError(f"{key} is not the key of {certificate}; restore both from the same backup")
        return cls(own, loaded)

    def sign_device(self, request: bytes, name: str, days: float, now: datetime | None = None) -> Issued:
        """Sign a device's request.

        Args:
            request: PKCS#10 signing request, PEM, for a P-256 key; what it says of names is not looked at.
            name: of the device.
            days: how long the certificate is valid.
            now: when it is signed; the clock's time if not given.

        Raises:
            IdentityError: the request is none, or the name is none for a device.
        """
        now = now or datetime.now(UTC)
        expires = now + timedelta(days=days)
        key = _requested_key(request)
        certificate = self._sign(check_name(name), key, ExtendedKeyUsageOID.CLIENT_AUTH, expires)
        pem, fingerprint = certificate.public_bytes(Encoding.PEM), certificate.fingerprint(hashes.SHA256()).hex()
        return Issued(name, serial_of(certificate), pem, fingerprint, now, certificate.not_valid_after_utc)

    def make_server(self, now: datetime | None = None) -> Pair:
        """A new key for the server, and its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        expires = (now or datetime.now(UTC)) + timedelta(days=SERVER_DAYS)
        certificate = self._sign(SERVER_NAME, key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH, expires)
        return Pair(_pem(key), certificate.public_bytes(Encoding.PEM))

    def _sign(
        self, name: str, key: ec.EllipticCurvePublicKey, purpose: ObjectIdentifier, expires: datetime
    ) -> x509.Certificate:
        builder = _begin(_named(name), self._certificate.subject, key, expires)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(signer, critical=False)
        if purpose == ExtendedKeyUsageOID.SERVER_AUTH:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _self_signed() -> Pair:
    """A new authority."""
    key, name = ec.generate_private_key(ec.SECP256R1()), _named("headwater fleet")
    expires = datetime.now(UTC) + timedelta(days=365.25 * AUTHORITY_YEARS)
    builder = _begin(name, name, key.public_key(), expires)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return Pair(_pem(key), builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, expires: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return builder.not_valid_before(BEGIN).not_valid_after(expires)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    if len(request) > MAX_REQUEST_BYTES:
        raise IdentityError(f"the signing request has {len(request)} bytes, of {MAX_REQUEST_BYTES} at most")
    try:
        read = x509.load_pem_x509_csr(request)
        key = read.public_key()
        signed = read.is_signature_valid
    except (ValueError, TypeError, InvalidSignature) as error:
        raise IdentityError(f"the signing request cannot be read: {error}") from error
    if not signed or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise IdentityError("the signing request is not signed with the P-256 key that it is for")
    return key


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
