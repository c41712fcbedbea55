"""Enrolments that are to be refused, and what the enrolment's port said; shared with `benchmarks.attacks`."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from headwater.protos import access_pb2 as pb
from headwater.protos import access_pb2_grpc
from headwater.server.access import tokens
from headwater.server.access.authority import MAX_REQUEST_BYTES
from tests.security.offers import Tried
from tests.server.access import material
from tests.server.edges import TIMEOUT_S, edge

if TYPE_CHECKING:
    from headwater.server.access.access import Access

REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT}


def _signed(key: Any) -> bytes:  # noqa: ANN401 - of any kind
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def _of_another_key() -> bytes:
    """A request whose signature is not by the key that it is for."""
    request = x509.load_pem_x509_csr(material.request()).public_bytes(Encoding.DER)
    forged = x509.load_der_x509_csr(request[:-4] + bytes(one ^ 255 for one in request[-4:]))
    return forged.public_bytes(Encoding.PEM)


def to_try(access: Access) -> dict[str, pb.EnrolRequest]:
    """By what is wrong with it; with everything else as it should be."""
    register, good = access.register, material.request()
    used, withdrawn = tokens.mint(register), tokens.mint(register, "gate")
    tokens.spend(register, access.authority, used, good, "first", 30)
    register.revoke("first")
    with register.change():
        register.enter("gate", time.time())
    register.revoke("gate")
    expired = tokens.mint(register, now=time.time() - tokens.LIFE_S)

    def asked(secret: bytes | None = None, request: bytes = good, name: str = "new") -> pb.EnrolRequest:
        return pb.EnrolRequest(
            secret=tokens.mint(register) if secret is None else secret, signing_request=request, name=name
        )

    return {
        "a token that nobody made": asked(secrets.token_bytes(16)),
        "no token": asked(b""),
        "half a token": asked(tokens.mint(register)[:8]),
        "a token and more": asked(tokens.mint(register) + b"x"),
        "an expired token": asked(expired),
        "a used token": asked(used, _signed(ec.generate_private_key(ec.SECP256R1()))),
        "a withdrawn token": asked(withdrawn),
        "no request": asked(request=b""),
        "no PEM": asked(request=b"nonsense"),
        "a request by another key": asked(request=_of_another_key()),
        "an RSA key": asked(request=_signed(rsa.generate_private_key(65537, 2048))),
        "a key over P-384": asked(request=_signed(ec.generate_private_key(ec.SECP384R1()))),
        "a request of too many bytes": asked(request=good + b"\n" * MAX_REQUEST_BYTES),
        "no name": asked(name=""),
        "a path for a name": asked(name="../first"),
        "a name of 64 letters": asked(name="x" * 64),
        "another device's name": asked(name="first"),
    }


async def every_one(folder: Path) -> list[Tried]:
    """Try them at a running server, each on a connection of its own."""
    tried = []
    async with edge(tls=True, state=folder) as running:
        access = running.server.access
        assert access is not None
        assert running.addresses.enrol is not None
        for name, request in to_try(access).items():
            before = len(access.register.entries())
            async with material.channel(running.addresses.enrol, access.authority, None) as channel:
                code, said = await _enrolled(channel, request)
            tried.append(Tried(name, code in REFUSED and len(access.register.entries()) == before, f"{code}: {said}"))
        assert running.denied("enrolment") == len(tried), "each is counted"
    return tried


async def _enrolled(channel: grpc.aio.Channel, request: pb.EnrolRequest) -> tuple[grpc.StatusCode, str]:
    stub: Any = access_pb2_grpc.EnrolmentStub(channel)
    try:
        made = await stub.Enrol(request, timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, made.name
