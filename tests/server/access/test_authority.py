"""The certificate authority: what it makes on first start, what it signs, and what it refuses."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from headwater.compression.enrolment import SERVER_NAME, pin_of
from headwater.compression.errors import IdentityError
from headwater.server.access.authority import Authority
from headwater.server.access.caller import Caller, read
from tests.server.access import material


def test_the_first_start_makes_a_private_key_and_later_ones_read_it(tmp_path: Path) -> None:
    first = Authority.open(tmp_path)
    folder = tmp_path / "access"
    assert sorted(path.name for path in folder.iterdir()) == ["ca.key", "ca.pem"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "ca.key").stat().st_mode) == 0o600
    again = Authority.open(tmp_path)
    assert (again.pem, again.pin) == (first.pem, first.pin)
    assert first.pin == pin_of(x509.load_pem_x509_certificate(first.pem))


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    Authority.open(tmp_path)
    (tmp_path / "access/ca.key").chmod(0o640)
    with pytest.raises(IdentityError, match="chmod 600"):
        Authority.open(tmp_path)


@pytest.mark.parametrize("name", ["ca.key", "ca.pem"])
def test_half_an_authority_is_not_made_whole_with_something_new(tmp_path: Path, name: str) -> None:
    Authority.open(tmp_path)
    (tmp_path / "access" / name).unlink()
    with pytest.raises(IdentityError, match=name):
        Authority.open(tmp_path)


def test_a_key_of_another_authority_is_noticed(tmp_path: Path) -> None:
    Authority.open(tmp_path)
    material.stranger(tmp_path)
    (tmp_path / "elsewhere/access/ca.key").replace(tmp_path / "access/ca.key")
    with pytest.raises(IdentityError, match="not the key"):
        Authority.open(tmp_path)


@pytest.mark.parametrize("name", ["ca.key", "ca.pem"])
def test_a_damaged_file_is_an_error_that_says_so(tmp_path: Path, name: str) -> None:
    Authority.open(tmp_path)
    (tmp_path / "access" / name).write_bytes(b"-----BEGIN nothing\n")
    with pytest.raises(IdentityError, match="backup"):
        Authority.open(tmp_path)


def test_a_device_s_certificate_is_for_asking_and_names_the_device(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path)
    issued = authority.sign_device(material.request(), "pole-7", days=30)
    certificate = x509.load_pem_x509_certificate(issued.pem)
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert list(purposes.value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert certificate.public_key() == material.device_key().public_key()
    assert read(issued.pem) == Caller("pole-7", issued.serial)
    assert certificate.fingerprint(hashes.SHA256()).hex() == issued.fingerprint
    assert issued.expires - issued.issued == pytest.approx(timedelta(days=30), abs=timedelta(seconds=1))
    assert certificate.not_valid_before_utc.year == 2020, "for boards whose clock is behind"


def test_the_server_s_certificate_passes_a_strict_verifier(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path)
    pair = authority.make_server()
    store = verification.Store([x509.load_pem_x509_certificate(authority.pem)])
    verifier = verification.PolicyBuilder().store(store).build_server_verifier(x509.DNSName(SERVER_NAME))
    chain = verifier.verify(x509.load_pem_x509_certificate(pair.certificate), [])
    assert len(chain) == 2
    assert authority.make_server().certificate != pair.certificate


def test_what_a_request_calls_itself_is_not_looked_at(tmp_path: Path) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, SERVER_NAME)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
    asked = builder.sign(material.device_key(), hashes.SHA256()).public_bytes(Encoding.PEM)
    certificate = x509.load_pem_x509_certificate(Authority.open(tmp_path).sign_device(asked, "cam", 1).pem)
    assert certificate.subject.rfc4514_string() == "CN=cam"
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def tampered() -> bytes:
    """A request whose signature is another key's."""
    asked = x509.load_pem_x509_csr(material.request())
    der = bytearray(asked.public_bytes(Encoding.DER))
    der[-5] ^= 1
    return x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)


def other_kind() -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "asked",
    [
        b"",
        b"nonsense",
        b"x" * 5000,
        tampered(),
        other_kind(),
        material.request(ec.generate_private_key(ec.SECP384R1())),
    ],
    ids=["empty", "nonsense", "long", "tampered", "ed25519", "p384"],
)
def test_a_bad_request_is_refused(tmp_path: Path, asked: bytes) -> None:
    with pytest.raises(IdentityError, match="signing request"):
        Authority.open(tmp_path).sign_device(asked, "cam", 1)


@pytest.mark.parametrize("name", ["", "a b", "../up", "-dash", "x" * 64, "new\nline", "caf\u00e9"])
def test_a_bad_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(IdentityError, match="no name"):
        Authority.open(tmp_path).sign_device(material.request(), name, 1)


def test_a_certificate_may_be_signed_at_another_time(tmp_path: Path) -> None:
    long_ago = datetime(2024, 1, 1, tzinfo=UTC)
    assert material.member(Authority.open(tmp_path), days=30, now=long_ago).issued.expires.year == 2024
