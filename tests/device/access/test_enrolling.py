"""Enrolment from the device's end, at a real server: what it trusts, what it shows to whom, and what it keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from headwater.compression.enrolment import Token
from headwater.compression.errors import IdentityError, LinkError
from headwater.device.access.enrolling import enroll, with_port
from headwater.device.access.identity import Identities
from headwater.device.channel import describe
from headwater.protos import access_pb2 as pb
from headwater.protos import access_pb2_grpc
from headwater.server.access import tokens
from headwater.server.access.authority import Authority
from headwater.server.access.credentials import ServerCredentials
from tests import tiny
from tests.server.edges import Edge, edge


def token_of(running: Edge, name: str | None = None, now: float | None = None) -> Token:
    access = running.server.access
    assert access is not None
    assert running.addresses.enrol is not None
    port = int(running.addresses.enrol.rpartition(":")[2])
    return Token(port, access.authority.pin, tokens.mint(access.register, name, now))


@pytest.fixture
def identities(tmp_path: Path) -> Identities:
    return Identities.under(tmp_path / "device")


async def test_an_enrolled_device_is_let_in(tmp_path: Path, identities: Identities) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        servers = (running.addresses.grpc, "edge.local:50051")
        made = await enroll(identities, servers, token_of(running).text(), "pole-7")
        assert (made.device, made.servers) == ("pole-7", servers)
        assert identities.all() == [made]
        specs = await describe([running.addresses.grpc], tiny.bundle().id, channel=identities.channel)
        assert [spec.name for spec in specs] == [task.name for task in tiny.TASKS]


async def test_the_address_of_the_enrolment_is_not_the_server_s(tmp_path: Path, identities: Identities) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        token, wrong = token_of(running), running.addresses.enrol
        assert wrong is not None
        with pytest.raises(IdentityError, match="give the address that frames will go to"):
            await enroll(identities, [wrong], token.text(), "pole-7")
        assert identities.all() == []
        await enroll(identities, [running.addresses.grpc], token.text(), "pole-7")


async def test_a_server_with_a_new_authority_is_enrolled_at_again_by_its_old_address(
    tmp_path: Path, identities: Identities
) -> None:
    """As after a stolen key: the access folder was removed, and the server has made another."""
    before: list[str] = []
    for life in range(3):
        async with edge(tls=True, state=tmp_path / str(life)) as running:
            servers = [running.addresses.grpc, "edge.local:50051", *before]
            made = await enroll(identities, servers, token_of(running, "pole-7").text(), "pole-7")
            assert identities.all() == [made]
            assert identities.of("edge.local:50051") == made
            assert await describe(servers[:1], tiny.bundle().id, channel=identities.channel)
            before.append(running.addresses.grpc)


@pytest.mark.parametrize(
    ("kind", "why"),
    [("expired", "has expired"), ("used", "used already, for first"), ("unknown", "no such token")],
)
async def test_a_bad_token_enrols_nobody(tmp_path: Path, identities: Identities, kind: str, why: str) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        token = token_of(running, now=1e9 if kind == "expired" else None)
        if kind == "used":
            await enroll(Identities(tmp_path / "first"), [running.addresses.grpc], token.text(), "first")
        if kind == "unknown":
            token = Token(token.port, token.pin, bytes(16))
        with pytest.raises(IdentityError, match=why) as caught:
            await enroll(identities, [running.addresses.grpc], token.text(), "second")
        assert token.secret.hex() not in str(caught.value)
    assert identities.all() == []


class Impostor(access_pb2_grpc.EnrolmentServicer):
    """Stands where devices enrol, with an authority of its own or with somebody else's certificate of one."""

    def __init__(self, shown: bytes) -> None:
        self.shown = shown
        self.secrets: list[bytes] = []

    async def Authority(self, _: pb.AuthorityRequest, __: Any) -> pb.AuthorityReply:  # noqa: ANN401, N802 - gRPC's
        return pb.AuthorityReply(certificate=self.shown)

    async def Enrol(self, request: pb.EnrolRequest, _: Any) -> pb.Certified:  # noqa: ANN401, N802 - gRPC's
        self.secrets.append(request.secret)
        return pb.Certified(name="caught", certificate=b"")


@asynccontextmanager
async def standing_in(own: Authority, shown: bytes) -> AsyncIterator[tuple[Impostor, int]]:
    impostor, server = Impostor(shown), grpc.aio.server()
    access_pb2_grpc.add_EnrolmentServicer_to_server(impostor, server)
    port = server.add_secure_port("127.0.0.1:0", ServerCredentials(own).one_sided())
    await server.start()
    try:
        yield impostor, port
    finally:
        await server.stop(None)


@pytest.mark.parametrize("shows", ["its own authority", "the right authority", "nothing", "nonsense"])
async def test_an_impostor_never_sees_the_secret(tmp_path: Path, identities: Identities, shows: str) -> None:
    right, own = Authority.open(tmp_path / "right"), Authority.open(tmp_path / "own")
    shown = {"its own authority": own.pem, "the right authority": right.pem, "nothing": b"", "nonsense": b"x" * 100}
    async with standing_in(own, shown[shows]) as (impostor, port):
        token = Token(port, right.pin, bytes(16))
        with pytest.raises(
            (IdentityError, LinkError), match=r"not the one that made|not one that this|no certificate auth"
        ):
            await enroll(identities, ["127.0.0.1"], token.text(), "cam")
        assert impostor.secrets == []
    assert identities.all() == []


async def test_a_server_that_signs_nothing_useful_is_not_kept(tmp_path: Path, identities: Identities) -> None:
    own = Authority.open(tmp_path)
    async with standing_in(own, own.pem) as (impostor, port):
        with pytest.raises(IdentityError, match="no certificate of its authority"):
            await enroll(identities, ["127.0.0.1"], Token(port, own.pin, bytes(16)).text(), "cam")
        assert impostor.secrets == [bytes(16)]
    assert identities.all() == []


async def test_where_nobody_enrols_says_so(identities: Identities) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        with pytest.raises(LinkError, match="nobody enrols at 127"):
            await enroll(identities, ["127.0.0.1"], Token(port, bytes(32), bytes(16)).text(), "cam")
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("given", "whole"),
    [("edge", "edge:50051"), ("edge:1", "edge:1"), ("[::1]", "[::1]:50051"), ("[::1]:1", "[::1]:1")],
)
def test_with_port(given: str, whole: str) -> None:
    assert with_port(given) == whole
