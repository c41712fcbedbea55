"""Every RPC of a server, as reflection lists them, against every credential that ought not to open it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from headwater.protos import access_pb2, edge_pb2
from headwater.server.access import access, caller, guard
from headwater.server.access.arrivals import PATIENCE_S
from headwater.server.access.denials import REASONS, Reason
from tests import tiny
from tests.security import handshakes
from tests.security.rpcs import Rpc, attempt, listed
from tests.server.access import material
from tests.server.access.material import Member
from tests.server.edges import TIMEOUT_S, Edge, Talk, edge, until

SERVICES = {
    *("headwater.v1.Edge", "headwater.v1.Identity"),
    *("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"),
}
REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


@dataclass
class Fleet:
    """A server with TLS, and the device `cam` that is one of it."""

    edge: Edge
    rpcs: list[Rpc]
    folder: Path

    @property
    def access(self) -> access.Access:
        assert self.edge.server.access is not None
        return self.edge.server.access

    def member(self, name: str = "cam") -> Member:
        return material.enrolled(self.access.register, self.access.authority, name)

    def channel(self, shown: Any) -> grpc.aio.Channel:  # noqa: ANN401 - a member, a pair or None
        return material.channel(self.edge.addresses.grpc, self.access.authority, shown)

    def end(self, member: Member, column: str, value: object) -> None:
        """Change what the register says of a certificate, as a clock that went on would."""
        with self.access.register.change() as db:
            db.execute(f"UPDATE certificates SET {column} = ? WHERE serial = ?", (value, member.issued.serial))  # noqa: S608 - our own names


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    async with edge(tls=True, state=folder) as running:
        rpcs = await listed(running.channel)
        yield Fleet(running, rpcs, folder)


def _unknown(fleet: Fleet) -> Member:
    return material.member(fleet.access.authority)


def _revoked(fleet: Fleet) -> Member:
    member = fleet.member()
    fleet.access.register.revoke("cam")
    return member


def _expired(fleet: Fleet) -> Member:
    member = fleet.member()
    fleet.end(member, "expires", 1.0)
    return member


def _renewed(fleet: Fleet) -> Member:
    first, second = fleet.member(), material.member(fleet.access.authority)
    with fleet.access.register.change():
        fleet.access.register.add(second.issued)
    for member in (first, second):
        fleet.access.register.admit(caller.read(member.pair.certificate))
    return first


def _replaced(fleet: Fleet) -> Member:
    first = fleet.member()
    fleet.member()
    return first


IN_THE_REGISTER: dict[Reason, Callable[[Fleet], Member]] = {
    "unknown": _unknown,
    "revoked": _revoked,
    "expired": _expired,
    "renewed": _renewed,
    "replaced": _replaced,
}


async def test_reflection_lists_every_service_and_its_methods(tmp_path: Path) -> None:
    async with fleet(tmp_path) as its:
        assert {rpc.path.split("/")[1] for rpc in its.rpcs} == SERVICES
        ours = {
            f"/{service.full_name}/{method}"
            for file in (edge_pb2.DESCRIPTOR, access_pb2.DESCRIPTOR)
            for service in file.services_by_name.values()
            for method in service.methods_by_name
            if service.name != "Enrolment"  # on the other listener
        }
        assert ours <= {rpc.path for rpc in its.rpcs}
        for rpc in its.rpcs:
            assert (await attempt(its.edge.channel, rpc, "cam"))[0] not in REFUSED, f"{rpc.path} is closed to a member"


@pytest.mark.parametrize("reason", IN_THE_REGISTER)
async def test_a_certificate_that_is_not_in_force_opens_nothing(
    tmp_path: Path, reason: Reason, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet(tmp_path) as its:
        member, calls = IN_THE_REGISTER[reason](its), 0
        async with its.channel(member) as channel:
            for rpc in its.rpcs:
                ended = await attempt(channel, rpc, "cam")
                assert ended.code in REFUSED, f"{rpc.path} is open: {ended}"
                assert "cam" in ended.detail
                calls += ended.calls
        assert its.edge.denied(reason) == calls
        assert sum(its.edge.denied(any_reason) for any_reason in REASONS) == calls
        (first, *_) = [one for one in caplog.records if one.name == "headwater.server.access"]
        assert (first.levelno, vars(first)["reason"]) == (logging.WARNING, reason)
        text = "".join(f"{vars(record)}" for record in caplog.records)
        for secret in (member.pair.key, member.pair.certificate):
            assert secret.decode().splitlines()[2] not in text


@pytest.mark.parametrize("shown", ["nothing", "another authority's", "an expired one", "the server's own"])
async def test_who_cannot_finish_the_handshake_reaches_no_method(tmp_path: Path, shown: str) -> None:
    async with edge(tls=True, state=tmp_path) as running:
        rpcs = await listed(running.channel)
        assert running.server.access is not None
        authority, handlers = running.server.access.authority, running.server.guard._handlers
        handlers.clear()
        certificates = {
            "nothing": None,
            "another authority's": material.member(material.stranger(tmp_path)),
            "an expired one": material.member(authority, now=datetime.now(UTC) - timedelta(days=40)),
            "the server's own": authority.make_server(),
        }
        async with material.channel(running.addresses.grpc, authority, certificates[shown]) as channel:
            for rpc in rpcs:
                assert (await attempt(channel, rpc, "cam"))[0] is grpc.StatusCode.UNAVAILABLE
        assert not handlers, "no call came as far as the guard"


async def test_connections_that_end_in_the_handshake_are_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To the number, when the time for a handshake is over; those of devices are not among them."""
    async with edge(tls=True, state=tmp_path) as running:
        its = running.server.access
        assert its is not None
        late_s, now = 0.0, its.arrivals.clock
        its.arrivals.clock = lambda: now() + late_s
        await listed(running.channel)
        begun = its.arrivals._begun
        before = len(begun)
        host, port = running.addresses.grpc.split(":")
        others = material.member(material.stranger(tmp_path))
        expired = material.member(its.authority, now=datetime.now(UTC) - timedelta(days=40))
        for shown in (None, others, expired, its.authority.make_server()):
            for _ in range(3):
                await asyncio.to_thread(handshakes.fail, (host, int(port)), its.authority, shown)
        for _ in range(3):
            await asyncio.to_thread(handshakes.hang_up, (host, int(port)))
        await until(lambda: len(begun) == before + 15)  # who hung up does not know when the server came to them
        its.count_arrivals()
        assert running.denied("handshake") == 0, "they may still call"
        late_s = PATIENCE_S
        its.count_arrivals()
        assert running.denied("handshake") == 15
        its.count_arrivals()
        assert running.denied("handshake") == 15
        assert sum(vars(record).get("connections", 0) for record in caplog.records) == 15
        text = "".join(f"{vars(record)}" for record in caplog.records)
        assert others.pair.key.decode().splitlines()[2] not in text


async def test_where_devices_enrol_nothing_else_is_to_be_had_and_nobody_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "FIRST_MESSAGE_S", 0.05)
    async with fleet(tmp_path) as its:
        assert its.edge.addresses.enrol is not None
        async with material.channel(its.edge.addresses.enrol, its.access.authority, None) as channel:
            for rpc in its.rpcs:
                assert (await attempt(channel, rpc, "cam"))[0] is grpc.StatusCode.UNIMPLEMENTED
            for method in access_pb2.DESCRIPTOR.services_by_name["Enrolment"].methods:
                silent = channel.stream_stream(f"/headwater.v1.Enrolment/{method.name}")()
                assert await silent.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert its.edge.denied("slow") == 2


async def test_no_device_speaks_for_another(tmp_path: Path) -> None:
    async with fleet(tmp_path) as its:
        naming = [rpc for rpc in its.rpcs if rpc.names_a_device]
        assert {"/headwater.v1.Edge/Stream", "/headwater.v1.Edge/Exchange"} <= {rpc.path for rpc in naming}
        its.member("other")
        calls = 0
        for rpc in naming:
            for name in ("other", "", "Cam", "cam\0"):
                ended = await attempt(its.edge.channel, rpc, name)
                assert ended.code is grpc.StatusCode.PERMISSION_DENIED, f"{rpc.path} let cam speak for {name!r}"
                calls += ended.calls
        assert its.edge.denied("device") == calls


async def test_a_renamed_device_goes_on_and_is_known_by_its_new_name(tmp_path: Path) -> None:
    async with fleet(tmp_path) as its:
        its.access.register.rename("cam", "gate")
        for name in ("cam", "gate"):
            async with Talk(its.edge, device=name):
                assert [session.device for session in its.edge.server.service._sessions] == ["gate"]


@pytest.mark.parametrize("why", ["revoked", "expired"])
async def test_every_call_that_is_open_ends_with_its_certificate(tmp_path: Path, why: str) -> None:
    async with fleet(tmp_path) as its:
        member = its.member("gate")
        async with its.channel(member) as channel:
            open_calls = await _open_calls(its, channel)
            if why == "revoked":
                its.access.register.revoke("gate")
            else:
                its.end(member, "expires", 1.0)
            async with Talk(its.edge) as another:
                access.tell(its.folder)
                for path, call in open_calls.items():
                    async with asyncio.timeout(TIMEOUT_S):
                        assert await call.code() in REFUSED, f"{path} went on"
                await another.frame(1)
                await another.answer()
        assert its.edge.denied("revoked" if why == "revoked" else "expired") == len(open_calls)
        await until(lambda: len(its.edge.server.guard._open) == 0)


async def _open_calls(its: Fleet, channel: grpc.aio.Channel) -> dict[str, Any]:
    """Calls of a device that stay open: its stream, a transfer, a watch on health, and reflection."""
    calls: dict[str, Any] = {}
    for rpc in its.rpcs:
        if not rpc.path.endswith(("/Stream", "/Exchange", "/Watch", "/ServerReflectionInfo")):
            continue
        call = calls[rpc.path] = channel.stream_stream(rpc.path)()
        if rpc.path.endswith("/Stream"):
            hello = edge_pb2.Hello(device="gate", bundle_id=tiny.bundle().id, session=3)
            await call.write(edge_pb2.DeviceMessage(hello=hello).SerializeToString())
            await call.read()
        if rpc.path.endswith("/Watch"):
            await call.write(b"")
            await call.done_writing()
            await call.read()
    await until(lambda: len(its.edge.server.guard._open) == len(calls))
    return calls


async def test_the_register_s_failure_lets_nobody_in(tmp_path: Path) -> None:
    async with fleet(tmp_path) as its:
        with its.access.register.change() as db:
            db.execute("DROP TABLE certificates")
        ended = [await attempt(its.edge.channel, rpc, "cam") for rpc in its.rpcs]
        assert {one.code for one in ended} == {grpc.StatusCode.UNAVAILABLE}
        assert its.edge.denied("register") == sum(one.calls for one in ended)
