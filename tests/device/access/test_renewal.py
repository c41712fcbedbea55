"""Renewal from the device's end, at a real server: in time, once, and without losing a frame."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from headwater.compression.errors import DeniedError, IdentityError
from headwater.device.access.identity import Identities, Identity
from headwater.device.access.renewal import Renewal, renew_if_due, renew_what_is_due
from headwater.device.channel import describe
from headwater.device.link import Link
from headwater.device.link_options import LinkOptions
from headwater.protos import edge_pb2 as pb
from headwater.server.access.caller import read
from headwater.server.access.register import Register
from tests import tiny
from tests.server.access import material
from tests.server.edges import Edge, edge, until

DUE = 1000.0


@pytest.fixture
def identities(tmp_path: Path) -> Identities:
    return Identities.under(tmp_path / "device")


def enrolled(running: Edge, identities: Identities, name: str = "cam") -> Identity:
    """Have the device be enrolled, with a certificate that is to be renewed at DUE."""
    access = running.server.access
    assert access is not None
    member = material.enrolled(access.register, access.authority, name)
    certificate, key = member.pair.certificate.decode(), member.pair.key.decode()
    made = Identity(name, (running.addresses.grpc,), DUE, access.authority.pem.decode(), certificate, key)
    identities.save(made)
    return made


def register(running: Edge) -> Register:
    assert running.server.access is not None
    return running.server.access.register


def serial_in_use(running: Edge) -> str:
    (entry,) = register(running).entries()
    return entry.serial


def link(running: Edge, identities: Identities) -> Link:
    options = LinkOptions("machine", tiny.bundle().id, name_at=identities.name_at, first_pause_s=0.01)
    return Link(running.addresses.grpc, options, channel=identities.channel)


async def ask(opened: Link, seed: int) -> None:
    data = tiny.bundle().frames().pack(tiny.frame(tiny.bundle(), seed, 0))
    reply = await opened.send(data)
    assert reply.answer.status == pb.STATUS_OK


async def test_a_link_goes_over_to_the_new_certificate(tmp_path: Path, identities: Identities) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        first = enrolled(running, identities)
        async with link(running, identities) as opened:
            await ask(opened, 1)
            running.gate.shut()
            flying = asyncio.create_task(ask(opened, 2))
            await running.gate.holds()  # the first batch
            await running.gate.holds()  # this one
            renewal = asyncio.create_task(Renewal(identities, opened, clock=lambda: DUE).run())
            await until(lambda: identities.all()[0].certificate != first.certificate)
            running.gate.open()
            await flying
            await until(lambda: opened.connections == 2 and opened.connected.is_set())
            await ask(opened, 3)
            renewal.cancel()
        (now,) = identities.all()
        assert serial_in_use(running) == read(now.certificate.encode()).serial
        assert (now.key != first.key, now.servers, now.device) == (True, first.servers, "cam")
        assert opened.window.counts.resent == 0, "what flew was answered before the connection was left"
        old = first.channel
        with pytest.raises(DeniedError, match="newer one"):
            await describe([running.addresses.grpc], tiny.bundle().id, channel=old)


async def test_nothing_is_renewed_before_its_time(tmp_path: Path, identities: Identities) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        first, server = enrolled(running, identities), running.addresses.grpc
        async with first.channel(server) as channel:
            assert not await renew_if_due(channel, identities, server, DUE - 1)
            assert identities.all() == [first]
            with identities.alone():
                assert not await renew_if_due(channel, identities, server, DUE), "another process is about it"
            assert await renew_if_due(channel, identities, server, DUE)
            assert not await renew_if_due(channel, identities, server, DUE), "it was renewed"


async def test_a_new_name_comes_with_the_new_certificate(tmp_path: Path, identities: Identities) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        enrolled(running, identities)
        register(running).rename("cam", "pole-7")
        await renew_what_is_due(identities, [running.addresses.grpc])
        assert identities.name_at(running.addresses.grpc) == "pole-7"
        async with link(running, identities) as opened:
            await ask(opened, 1)


async def test_what_cannot_be_renewed_is_said_and_kept(
    tmp_path: Path, identities: Identities, caplog: pytest.LogCaptureFixture
) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        first = enrolled(running, identities)
        register(running).revoke("cam")
        with caplog.at_level(logging.WARNING):
            await renew_what_is_due(identities, [running.addresses.grpc])
        assert "could not be renewed yet" in caplog.text
        assert "revoked" in caplog.text
        assert identities.all() == [first]


async def test_a_renewal_is_tried_again(
    tmp_path: Path, identities: Identities, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        first = enrolled(running, identities)
        save, failures = identities.save, ["the disk is full"]

        def full_once(new: Identity) -> None:
            if failures:
                raise IdentityError(failures.pop())
            save(new)

        monkeypatch.setattr(identities, "save", full_once)
        async with link(running, identities) as opened:
            renewal = asyncio.create_task(Renewal(identities, opened, clock=lambda: DUE, look_s=0.01).run())
            with caplog.at_level(logging.WARNING):
                await until(lambda: identities.all() != [first])
            renewal.cancel()
            await until(lambda: opened.connections == 2)
            await ask(opened, 1)
        assert "the disk is full" in caplog.text
