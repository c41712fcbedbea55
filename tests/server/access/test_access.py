"""A whole server with TLS: who gets through a handshake, how a device is enrolled and renews, and what ends with it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from headwater.compression.errors import SettingsError
from headwater.protos import access_pb2 as pb
from headwater.protos import access_pb2_grpc, edge_pb2, edge_pb2_grpc
from headwater.server.access import access, tokens
from headwater.server.access.access import Access
from headwater.server.access.authority import SERVER_DAYS, Authority
from headwater.server.access.credentials import ServerCredentials
from headwater.server.access.register import Register
from tests.server.access import material
from tests.server.edges import Edge, Talk, assert_answers, edge


def its_access(running: Edge) -> Access:
    assert running.server.access is not None
    return running.server.access


def enrolment(running: Edge) -> grpc.aio.Channel:
    """A channel to the other listener, without a certificate."""
    assert running.addresses.enrol is not None
    return material.channel(running.addresses.enrol, its_access(running).authority, None)


async def failed(call: Any) -> tuple[grpc.StatusCode, str]:  # noqa: ANN401 - any unary call
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def described(channel: grpc.aio.Channel) -> None:
    """Call something; raises what became of it."""
    stub: Any = edge_pb2_grpc.EdgeStub(channel)
    await stub.Describe(edge_pb2.DescribeRequest(), timeout=10)


async def test_every_service_is_behind_mutual_tls(tmp_path: Path) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        async with Talk(running) as talk:
            await talk.frame(1)
            assert_answers(await talk.answer(), talk.bundle, 1, 0)
        health: Any = health_pb2_grpc.HealthStub(running.channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service="headwater.v1.Edge"), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        await described(running.channel)


@pytest.mark.parametrize("shown", ["nothing", "another authority's", "an expired one", "the server's own"])
async def test_no_handshake_without_a_certificate_of_the_authority(tmp_path: Path, shown: str) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        authority = its_access(running).authority
        long_ago = datetime.now(UTC) - timedelta(days=40)
        certificates = {
            "nothing": None,
            "another authority's": material.member(material.stranger(tmp_path)),
            "an expired one": material.member(authority, now=long_ago),
            "the server's own": authority.make_server(),
        }
        async with material.channel(running.addresses.grpc, authority, certificates[shown]) as channel:
            code, _ = await failed(described(channel))
        assert code is grpc.StatusCode.UNAVAILABLE
        await described(running.channel)


async def test_without_tls_nobody_talks_to_a_server_that_has_it(tmp_path: Path) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        for address in (running.addresses.grpc, running.addresses.enrol):
            assert address is not None
            async with grpc.aio.insecure_channel(address) as channel:
                code, _ = await failed(described(channel))
                assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_device_s_certificate_does_not_make_a_server(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path)
    stolen = material.member(authority).pair
    server = grpc.aio.server()
    port = server.add_secure_port(
        "127.0.0.1:0",
        grpc.ssl_server_credentials([(stolen.key, stolen.certificate)], authority.pem, require_client_auth=True),
    )
    await server.start()
    try:
        async with material.channel(f"127.0.0.1:{port}", authority, material.member(authority, "victim")) as channel:
            code, detail = await failed(described(channel))
        assert (code, "CERTIFICATE_VERIFY_FAILED" in detail) == (grpc.StatusCode.UNAVAILABLE, True)
    finally:
        await server.stop(None)


async def test_a_token_gets_a_certificate_that_opens_the_main_port(tmp_path: Path) -> None:
    async with edge(tls=True, state=tmp_path) as running, enrolment(running) as channel:
        stub: Any = access_pb2_grpc.EnrolmentStub(channel)
        own = await stub.Authority(pb.AuthorityRequest(), timeout=10)
        assert own.certificate == its_access(running).authority.pem
        asked = pb.EnrolRequest(
            secret=tokens.mint(its_access(running).register), signing_request=material.request(), name="pole-7"
        )
        made = await stub.Enrol(asked, timeout=10)
        assert made.name == "pole-7"
        pair = material.Pair(material.member(its_access(running).authority).pair.key, made.certificate)
        async with material.channel(running.addresses.grpc, its_access(running).authority, pair) as own_channel:
            await described(own_channel)
        later = material.request(ec.generate_private_key(ec.SECP256R1()))
        asked.signing_request = later
        code, detail = await failed(stub.Enrol(asked, timeout=10))
        assert (code, "used already, for pole-7" in detail) == (grpc.StatusCode.UNAUTHENTICATED, True)
        assert asked.secret.hex() not in detail


async def test_the_enrolment_listener_has_nothing_else(tmp_path: Path) -> None:
    async with edge(tls=True, state=tmp_path) as running, enrolment(running) as channel:
        code, _ = await failed(described(channel))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        stub: Any = access_pb2_grpc.IdentityStub(channel)
        code, _ = await failed(stub.Renew(pb.RenewRequest(signing_request=material.request()), timeout=10))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        enrol: Any = access_pb2_grpc.EnrolmentStub(channel)
        code, _ = await failed(enrol.Enrol(pb.EnrolRequest(name="x" * (1 << 15)), timeout=10))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        code, detail = await failed(enrol.Enrol(pb.EnrolRequest(secret=bytes(16), name="x"), timeout=10))
        assert (code, "no such token" in detail) == (grpc.StatusCode.UNAUTHENTICATED, True)
        secret = tokens.mint(its_access(running).register)
        code, detail = await failed(enrol.Enrol(pb.EnrolRequest(secret=secret, name="x"), timeout=10))
        assert (code, "signing request" in detail) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_a_renewal_goes_by_the_certificate_before_and_by_the_name_of_now(tmp_path: Path) -> None:
    async with edge(tls=True, state=tmp_path, certificate_days=90) as running:
        register, authority = its_access(running).register, its_access(running).authority
        member = material.enrolled(register, authority, "old")
        register.rename("old", "new")
        async with material.channel(running.addresses.grpc, authority, member) as channel:
            stub: Any = access_pb2_grpc.IdentityStub(channel)
            made = await stub.Renew(pb.RenewRequest(signing_request=material.request()), timeout=10)
            code, _ = await failed(stub.Renew(pb.RenewRequest(signing_request=b"nonsense"), timeout=10))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert made.name == "new"
        days = (made.renew_unix_s - datetime.now(UTC).timestamp()) / 86400
        assert days == pytest.approx(60, abs=0.1), "at two thirds of its life"
        (entry,) = [one for one in register.entries() if one.name == "new"]
        assert entry.serial == member.issued.serial, "the new one was not used yet"
        register.revoke("new")
        async with material.channel(running.addresses.grpc, authority, member) as channel:
            stub = access_pb2_grpc.IdentityStub(channel)
            code, _ = await failed(stub.Renew(pb.RenewRequest(signing_request=material.request()), timeout=10))
            assert code in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


async def test_on_loopback_without_tls_there_is_nothing_to_renew() -> None:
    async with edge() as running:
        assert (running.server.access, running.addresses.enrol) == (None, None)
        stub: Any = access_pb2_grpc.IdentityStub(running.channel)
        code, detail = await failed(stub.Renew(pb.RenewRequest(signing_request=material.request()), timeout=10))
        assert (code, "no TLS" in detail) == (grpc.StatusCode.FAILED_PRECONDITION, True)


async def test_a_ring_has_the_server_look_at_once(tmp_path: Path) -> None:
    async with edge(tls=True, state=tmp_path) as running, Talk(running) as talk:
        with Register.open(tmp_path) as command:
            assert command.revoke("cam") == 1
        access.tell(tmp_path)
        code, detail = await talk.status()
        assert code in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
        assert "revoked" in detail


async def test_a_stream_ends_when_its_certificate_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with edge(tls=True, state=tmp_path) as running, Talk(running) as talk:
        running.server.guard.review()
        await talk.frame(1)
        assert_answers(await talk.answer(), talk.bundle, 1, 0)
        later = time.time() + 30 * 86400
        monkeypatch.setattr("headwater.server.access.register.time.time", lambda: later)
        running.server.guard.review()
        code, detail = await talk.status()
        assert (code, "it has expired" in detail) == (grpc.StatusCode.UNAUTHENTICATED, True)
        monkeypatch.undo()


async def test_a_register_that_is_locked_by_another_process_lets_in_who_was_here_before(tmp_path: Path) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        await described(running.channel)
        new = material.enrolled(its_access(running).register, its_access(running).authority, "new")
        with Register.open(tmp_path) as command, command.change():
            await described(running.channel)
            async with material.channel(running.addresses.grpc, its_access(running).authority, new) as channel:
                code, _ = await failed(described(channel))
                assert code is not grpc.StatusCode.OK
        async with material.channel(running.addresses.grpc, its_access(running).authority, new) as channel:
            await described(channel)


async def test_a_renamed_device_s_stream_ends_and_goes_on_under_the_new_name(tmp_path: Path) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        async with Talk(running) as talk:
            with Register.open(tmp_path) as command:
                command.rename("cam", "pole-7")
            access.tell(tmp_path)
            code, detail = await talk.status()
            assert (code, "pole-7 now; connect again" in detail) == (grpc.StatusCode.UNAVAILABLE, True)
        async with Talk(running) as talk:
            await talk.frame(1)
            assert_answers(await talk.answer(), talk.bundle, 1, 0)
            assert running.server.guard.present == {"pole-7"}
    with Register.open(tmp_path) as after:
        (entry,) = after.entries()
        assert (entry.name, entry.seen is None) == ("pole-7", False)


async def test_an_enrolment_that_is_refused_is_counted(tmp_path: Path) -> None:
    async with edge(tls=True, state=tmp_path) as running, enrolment(running) as channel:
        stub: Any = access_pb2_grpc.EnrolmentStub(channel)
        for _ in range(3):
            await failed(stub.Enrol(pb.EnrolRequest(secret=bytes(16)), timeout=10))
        registry = running.server.metrics.registry
        assert registry.get_sample_value("headwater_denied_total", {"reason": "enrolment"}) == 3


@contextmanager
def taken() -> Iterator[str]:
    """An address that is in use."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def test_an_enrolment_address_that_is_taken_names_its_flag(tmp_path: Path) -> None:
    with taken() as address, pytest.raises(SettingsError, match="--enrol"):
        async with edge(tls=True, state=tmp_path, enrol=address):
            pass


def test_the_server_makes_a_new_certificate_at_half_of_its_life(tmp_path: Path) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    credentials = ServerCredentials(Authority.open(tmp_path), now=lambda: now)
    first = credentials._current(mutual=True)
    now += timedelta(days=SERVER_DAYS / 2 - 1)
    assert credentials._current(mutual=True) is first
    now += timedelta(days=1)
    assert credentials._current(mutual=True) is not first
