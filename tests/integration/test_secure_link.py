"""All that a device does goes over its encrypted connection, under the name in its certificate."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from pathlib import Path

import pytest

from headwater.compression.errors import DeniedError
from headwater.device import Agent
from headwater.device.access.identity import Identities
from headwater.device.courier import Courier
from headwater.device.link import Link
from headwater.device.link_options import LinkOptions
from headwater.device.settings import DeviceSettings
from headwater.protos import edge_pb2 as pb
from headwater.protos.nodes import node_id
from headwater.server.mail.mailbox import Mailbox
from headwater.server.mail.records import Wanted
from tests import tiny
from tests.device.access.test_renewal import enrolled, register
from tests.server.edges import edge, until

CONTENT, REPLY = random.Random(4).randbytes(30_000), random.Random(5).randbytes(8_000)


async def test_messages_of_rounds_go_both_ways(tmp_path: Path) -> None:
    identities, offers = Identities.under(tmp_path / "device"), asyncio.Queue[pb.Offer]()
    async with edge(tls=True, state=tmp_path) as running:
        enrolled(running, identities, "pole-7")
        options = LinkOptions("raspberrypi", tiny.bundle().id, capabilities=("federated",), name_at=identities.name_at)
        link = Link(running.addresses.grpc, options, channel=identities.channel, on_offer=offers.put_nowait)
        with Mailbox(tmp_path) as box:
            wanted = Wanted("a", node_id("pole-7"), "message", box.put(CONTENT), b"b" * 32, 7, "3", b"", 60)
            box.offer([wanted])
            async with asyncio.timeout(60), link:
                offer = await offers.get()
                link.control(pb.DeviceMessage(offer_reply=pb.OfferReply(offer=offer.offer, accepted=True)))
                await until(lambda: box.find(["a"])[0].state == "accepted")
                courier = Courier(link)
                assert (await courier.download(offer, tmp_path / "blobs")).read_bytes() == CONTENT
                reply = tmp_path / "reply"
                reply.write_bytes(REPLY)
                await courier.upload(offer, reply, hashlib.sha256(REPLY).digest())
            (found,) = box.find(["a"])
            assert (found.state, box.blobs.read(found.reply_sha256)) == ("replied", REPLY)


def agent(server: str, device: Path, **settings: object) -> Agent:
    given = {"state": device, "retry_s": 0.1, "tasks": ("shape",), "width": 1.0, **settings}
    return Agent(tiny.bundle(), server, DeviceSettings(**given))  # type: ignore[arg-type]


async def test_of_two_servers_each_is_shown_its_own_certificate(tmp_path: Path) -> None:
    identities = Identities.under(tmp_path / "device")
    async with edge(tls=True, state=tmp_path / "one") as one, edge(tls=True, state=tmp_path / "two") as two:
        enrolled(one, identities, "at-one")
        enrolled(two, identities, "at-two")
        servers = [one.addresses.grpc, two.addresses.grpc]
        names = {servers[0]: "at-one", servers[1]: "at-two"}
        async with Agent(tiny.bundle(), servers, DeviceSettings(state=tmp_path / "device", retry_s=0.1)) as running:
            assert (await running.infer(tiny.image(4)[0])).source == "edge"
            first = running.link.server  # not before: one that is slow to greet is left for the other
            assert running.link.device == names[first]
            register(one if first == servers[0] else two).revoke(names[first])
            (one if first == servers[0] else two).server.guard.review()
            await until(lambda: running.link.connected.is_set() and running.link.server != first)
            assert (await running.infer(tiny.image(5)[0])).source == "edge"
            assert running.link.device == names[running.link.server]


async def test_who_is_revoked_everywhere_answers_by_itself_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    identities = Identities.under(tmp_path / "device")
    async with edge(tls=True, state=tmp_path) as running:
        enrolled(running, identities)
        async with agent(running.addresses.grpc, tmp_path / "device", deadline_ms=20_000) as device:
            assert (await device.infer(tiny.image(4)[0])).source == "edge"
            with caplog.at_level(logging.ERROR):
                register(running).revoke("cam")
                running.server.guard.review()
                await until(lambda: isinstance(device.link.last_error, DeniedError) and bool(caplog.text))
            record = await device.infer(tiny.image(5)[0])
            assert (record.source, record["shape"].label) == ("local", tiny.TASKS[0].labels[5 % 3])
            assert "the certificate of cam is refused: it was revoked" in caplog.text
            enrolled(running, identities)
            await until(device.link.connected.is_set)
            assert (await device.infer(tiny.image(6)[0])).source == "edge"


async def test_who_cannot_answer_by_itself_ends_with_the_reason(tmp_path: Path) -> None:
    identities = Identities.under(tmp_path / "device")
    async with edge(tls=True, state=tmp_path) as running:
        enrolled(running, identities)
        register(running).revoke("cam")
        with pytest.raises(DeniedError, match="it was revoked"):
            async with agent(running.addresses.grpc, tmp_path / "device"):
                pass


async def test_a_device_that_is_not_enrolled_does_not_even_try(tmp_path: Path) -> None:
    with pytest.raises(DeniedError, match="headwater device enroll --server edge"):
        async with agent("edge.invalid:50051", tmp_path / "device"):
            pass
