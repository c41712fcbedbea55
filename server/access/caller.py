"""Who calls: what a call's own connection proves, before any of its bytes is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class Caller:
    """The holder of the key of a certificate that the server's own authority signed.

    That says nothing yet about whether it may come in: the register knows which certificates are in force.
    """

    device: str
    """The name in the certificate."""
    serial: str
    """The certificate's number, in hexadecimal."""


def caller_of(context: Context) -> Caller | None:
    """Who calls; None on a connection without TLS, which comes from this very machine."""
    certificates = context.auth_context().get("x509_pem_cert")
    return None if not certificates else read(next(iter(certificates)))


@lru_cache(4096)
def read(pem: bytes) -> Caller:
    """Whom a certificate names; TLS has checked it."""
    certificate = x509.load_pem_x509_certificate(pem)
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Caller(str(name.value), serial_of(certificate))


def serial_of(certificate: x509.Certificate) -> str:
    """The number of a certificate as the register writes it."""
    return format(certificate.serial_number, "040x")
