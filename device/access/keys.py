"""What a device has to do with keys: make one, ask for a certificate, and see that it is the right one."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from headwater.compression.errors import IdentityError


def make_key() -> str:
    """A new private key, ECDSA over P-256, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def signing_request(key: str) -> bytes:
    """A request to sign a key's public half, PKCS#10, PEM; it names nobody, for the server knows better."""
    private = load_pem_private_key(key.encode(), password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(private, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def check_certified(certificate: bytes, key: str, authority: str) -> str:
    """The certificate as text; raises :class:`IdentityError` if it is not for this key and by this authority."""
    private = load_pem_private_key(key.encode(), password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    try:
        signed = x509.load_pem_x509_certificate(certificate)
        signed.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.encode()))
        matches = signed.public_key() == private.public_key()
    except Exception as error:  # whatever is wrong with it: cryptography has many words for that
        raise IdentityError(f"the server sent no certificate of its authority: {error}") from error
    if not matches:
        raise IdentityError("the server sent a certificate for another key")
    return certificate.decode()
