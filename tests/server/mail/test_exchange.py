"""Offers and transfers over real sockets: resumed, repeated, displaced, wrong, too large, never acknowledged."""

import asyncio
import contextlib
import hashlib
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from headwater.compression.transfer import BlobStore, Incoming
from headwater.protos import edge_pb2 as pb
from headwater.protos.nodes import node_id
from headwater.server.mail import exchange, offers
from headwater.server.mail.mailbox import Mailbox
from headwater.server.mail.records import Wanted
from tests.server.edges import Talk, edge, until
from tests.server.mail.couriers import CAM, CONTENT, REPLY, Courier, counted, mailbox_of, post_of, put


def state_of(box: Mailbox, key: str = "a") -> str:
    return box.find([key])[0].state


async def test_a_message_goes_down_and_its_reply_comes_up(box: Mailbox, state: Path, tmp_path: Path) -> None:
    async with edge(state=state) as running, Courier(running) as cam:
        made = put(box)  # while it is connected: the bell tells the server
        offer = await cam.offer()
        assert (offer.kind, offer.envelope, offer.round) == (pb.OFFER_KIND_FEDERATED_MESSAGE, b"envelope", 3)
        assert (offer.content_sha256, offer.content_bytes, offer.bundle_id) == (made.sha256, 30_000, b"b" * 32)
        assert 0 < offer.valid_for_ms <= 60_000
        await cam.say(offer, accepted=True)
        await until(lambda: state_of(box) == "accepted")
        assert await cam.fetch(offer, tmp_path / "cam") == CONTENT
        await until(lambda: state_of(box) == "fetched")
        closing = await cam.push(offer, REPLY, b"from")
        assert (closing.status, state_of(box)) == (pb.STATUS_OK, "replied")
        (found,) = box.find(["a"])
        assert (box.blobs.read(found.reply_sha256), found.reply_envelope) == (REPLY, b"from")
        assert counted(running, "transfers", way="down", outcome="ok") == 1
        assert counted(running, "transfers", way="up", outcome="ok") == 1
        assert counted(running, "transferred_bytes", way="up") == 8000
        assert counted(running, "offers", outcome="replied") == 1


async def test_messages_wait_for_a_device_and_a_broken_stream_is_told_again(box: Mailbox, state: Path) -> None:
    put(box)
    async with edge(state=state) as running:
        for _ in range(2):
            async with Courier(running) as cam:
                offer = await cam.offer()
                await cam.say(offer, accepted=True)
    async with edge(state=state) as again, Courier(again, session=8) as cam:  # the server was started anew
        assert (await cam.offer()).offer == offer.offer
        assert (await cam.push(offer, REPLY)).status == pb.STATUS_OK
    async with edge(state=state) as again, Courier(again) as cam:
        await cam.frame(1)
        await cam.answer()  # and nothing else: the offer is settled


async def test_a_device_is_told_of_a_few_of_thousands(box: Mailbox, state: Path) -> None:
    sha256 = box.put(CONTENT)
    box.offer([Wanted(str(number), CAM, "message", sha256) for number in range(2000)])
    async with edge(state=state) as running, Courier(running) as cam:
        told = [await cam.offer() for _ in range(offers.AT_A_TIME["message"])]
        for number in range(6):
            await cam.say(told[number], accepted=False, reason="busy")
            told.append(await cam.offer())
        assert [one.offer for one in told] == list(range(1, 11))
        assert len(post_of(running).offers.lines(CAM)[0].told) <= offers.AT_A_TIME["message"]
        box.withdraw(map(str, range(2000)), "the run ended")
        put(box, "last")
        assert (await cam.offer()).offer == 2001


async def test_a_device_that_takes_no_part_is_offered_bundles_only(box: Mailbox, state: Path) -> None:
    put(box)
    put(box, "bundle", subject="bundle", data=b"bundle")
    async with edge(state=state) as running, Courier(running, federated=False) as cam:
        offer = await cam.offer()
        assert (offer.kind, offer.content_bytes) == (pb.OFFER_KIND_BUNDLE, 6)
        for status in (pb.BUNDLE_STATE_FETCHED, pb.BUNDLE_STATE_IN_USE):
            await cam.send(pb.DeviceMessage(bundle_notice=pb.BundleNotice(bundle_id=b"b" * 32, state=status)))
        await until(lambda: len(box.notices()) == 2)
        assert [(one.node, one.state) for one in box.notices()] == [
            (CAM, pb.BUNDLE_STATE_FETCHED),
            (CAM, pb.BUNDLE_STATE_IN_USE),
        ]
        assert (await cam.push(offer, REPLY)).status == pb.STATUS_INVALID_FRAME


async def test_who_is_connected_is_in_the_mailbox(box: Mailbox, state: Path) -> None:
    async with edge(state=state) as running:
        async with Courier(running), Talk(running, device="plain"):
            await until(lambda: [one.connected for one in box.devices()] == [True, True])
            assert [one.capabilities for one in box.devices()] == [("federated",), ()]
            assert running.server.metrics.registry.get_sample_value("headwater_federated_devices") == 1
        await until(lambda: [one.connected for one in box.devices()] == [False, False])


async def test_a_download_goes_on_where_it_broke_off(box: Mailbox, state: Path, tmp_path: Path) -> None:
    put(box)
    async with edge(state=state) as running, Courier(running) as cam:
        offer = await cam.offer()
        transfer = await cam.transfer(cam.opening(offer, have_bytes=29_000))
        chunk = (await transfer.read()).chunk
        assert (chunk.offset, chunk.data) == (29_000, CONTENT[29_000:])
        transfer.call.cancel()
        assert await cam.fetch(offer, tmp_path / "cam") == CONTENT


async def test_an_upload_goes_on_where_it_broke_off_even_after_the_server_was_killed(box: Mailbox, state: Path) -> None:
    put(box)
    opened = {"upload": True, "content_sha256": hashlib.sha256(REPLY).digest(), "content_bytes": len(REPLY)}
    async with edge(state=state) as running, Courier(running) as cam:
        offer = await cam.offer()
        for have in (0, 3000):
            transfer = await cam.transfer(cam.opening(offer, **opened))
            assert await transfer.acked() == have
            await transfer.chunk(have, REPLY[have : have + 3000])
            assert await transfer.acked() == have + 3000
            transfer.call.cancel()
    async with edge(state=state) as running, Courier(running) as cam:
        offer = await cam.offer()
        transfer = await cam.transfer(cam.opening(offer, **opened))
        assert await transfer.acked() == 6000
        await transfer.chunk(6000, REPLY[6000:])
        assert (await transfer.closed()).status == pb.STATUS_OK
    assert box.blobs.read(box.find(["a"])[0].reply_sha256) == REPLY


async def test_a_new_call_takes_the_place_of_one_that_hangs(box: Mailbox, state: Path) -> None:
    put(box)
    opened = {"upload": True, "content_sha256": hashlib.sha256(REPLY).digest(), "content_bytes": len(REPLY)}
    async with edge(state=state) as running, Courier(running) as cam:
        offer = await cam.offer()
        hanging = await cam.transfer(cam.opening(offer, **opened))
        await hanging.acked()
        await hanging.chunk(0, REPLY[:5000])
        await hanging.acked()
        later = await cam.transfer(cam.opening(offer, **opened))
        assert await later.acked() == 5000
        assert (await hanging.closed()).status == pb.STATUS_CANCELLED
        await later.chunk(5000, REPLY[5000:])
        assert (await later.closed()).status == pb.STATUS_OK


async def test_the_same_reply_twice_is_taken_once_and_another_one_changes_nothing(box: Mailbox, state: Path) -> None:
    put(box)
    async with edge(state=state) as running, Courier(running) as cam:
        offer = await cam.offer()
        for reply in (REPLY, REPLY, b"another"):
            assert (await cam.push(offer, reply)).status == pb.STATUS_OK
        assert counted(running, "offers", outcome="replied") == 1
    assert box.blobs.read(box.find(["a"])[0].reply_sha256) == REPLY


async def test_the_same_reply_of_two_devices_is_one_blob(box: Mailbox, state: Path) -> None:
    put(box)
    box.offer([Wanted("b", node_id("other"), "message", box.put(CONTENT))])
    async with edge(state=state) as running, Courier(running) as cam, Courier(running, "other") as other:
        for device in (cam, other):
            assert (await device.push(await device.offer(), REPLY)).status == pb.STATUS_OK
    first, second = box.find(["a", "b"])
    assert first.reply_sha256 == second.reply_sha256


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"content_sha256": bytes(32)}, "thrown away"),
        ({"content_sha256": b"short"}, "32 bytes"),
        ({"content_bytes": 1 << 62}, "at most"),
        ({"envelope": bytes(1 << 17)}, "at most"),
    ],
)
async def test_a_reply_that_can_be_none_is_refused_for_good_and_nothing_is_kept_of_it(
    box: Mailbox, state: Path, wrong: dict[str, Any], says: str
) -> None:
    put(box)
    async with edge(state=state) as running, Courier(running) as cam:
        closing = await cam.push(await cam.offer(), REPLY, **wrong)
        assert (closing.status, says in closing.detail) == (pb.STATUS_INVALID_FRAME, True), closing
    (found,) = box.find(["a"])
    assert (found.state, says in found.detail) == ("refused", True)
    assert not list((state / "incoming").rglob("*.part"))


async def test_what_was_not_offered_is_not_exchanged(box: Mailbox, state: Path) -> None:
    put(box)
    async with edge(state=state) as running, Courier(running) as cam, Courier(running, "other", 8) as other:
        offer = await cam.offer()
        assert (await other.push(offer, REPLY)).status == pb.STATUS_INVALID_FRAME  # it was made to cam
        assert (await other.push(pb.Offer(offer=99), REPLY)).status == pb.STATUS_INVALID_FRAME
        down = await cam.transfer(cam.opening(offer, content_sha256=bytes(32)))
        assert (await down.closed()).status == pb.STATUS_EXPIRED
        assert state_of(box) == "offered"
        assert (await cam.push(offer, REPLY)).status == pb.STATUS_OK


async def test_a_wrong_chunk_is_asked_for_again_a_few_times(box: Mailbox, state: Path) -> None:
    put(box)
    opened = {"upload": True, "content_sha256": hashlib.sha256(REPLY).digest(), "content_bytes": len(REPLY)}
    async with edge(state=state) as running, Courier(running) as cam:
        transfer = await cam.transfer(cam.opening(await cam.offer(), **opened))
        assert await transfer.acked() == 0
        for offset, data, sha256 in ((0, REPLY[:10], bytes(32)), (5, REPLY[5:10], None), (0, b"", None)):
            await transfer.chunk(offset, data, sha256)
            assert await transfer.acked() == 0
        await transfer.chunk(0, REPLY)
        assert (await transfer.closed()).status == pb.STATUS_OK


async def test_a_device_that_sends_only_wrong_chunks_is_closed(box: Mailbox, state: Path) -> None:
    put(box)
    opened = {"upload": True, "content_sha256": hashlib.sha256(REPLY).digest(), "content_bytes": len(REPLY)}
    async with edge(state=state) as running, Courier(running) as cam:
        transfer = await cam.transfer(cam.opening(await cam.offer(), **opened))
        for _ in range(exchange.MOST_STRIKES):
            await transfer.chunk(0, REPLY[:10], bytes(32))
        assert (await transfer.closed()).status == pb.STATUS_INVALID_FRAME


async def test_what_is_no_transfer_is_closed(box: Mailbox, state: Path) -> None:
    put(box)
    async with edge(state=state) as running, Courier(running) as cam:
        offer = await cam.offer()
        strange = await cam.transfer(pb.TransferOpen())
        assert (await strange.closed()).status == pb.STATUS_INVALID_FRAME
        late = await cam.transfer(cam.opening(offer))
        await late.read()
        await late.chunk(0, b"x")
        assert (await late.closed()).status == pb.STATUS_INVALID_FRAME
        too_much = await cam.transfer(cam.opening(offer))
        await too_much.read()
        await too_much.ack(1 << 40)
        assert (await too_much.closed()).status == pb.STATUS_INVALID_FRAME
        unmoved = await cam.transfer(cam.opening(offer))
        for _ in range(exchange.MOST_STRIKES):
            await unmoved.read()
            await unmoved.ack(0)
        assert (await unmoved.closed()).status == pb.STATUS_INVALID_FRAME


async def test_a_device_that_never_acknowledges_is_given_up(
    box: Mailbox, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "SILENT_S", 0.05)
    put(box)
    async with edge(state=state) as running, Courier(running) as cam:
        transfer = await cam.transfer(cam.opening(await cam.offer()))
        closing = await transfer.closed()
        assert (closing.status, "nothing was heard" in closing.detail) == (pb.STATUS_CANCELLED, True)
        assert state_of(box) == "offered"


async def test_too_many_transfers_are_sent_away_for_later(
    box: Mailbox, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "MOST_AT_A_TIME", 1)
    put(box)
    async with edge(state=state) as running, Courier(running) as cam:
        offer = await cam.offer()
        first = await cam.transfer(cam.opening(offer))
        await first.read()
        assert (await cam.push(offer, REPLY)).status == pb.STATUS_BUSY


async def test_a_full_disk_asks_for_later_and_takes_it_then(box: Mailbox, state: Path) -> None:
    put(box)
    async with edge(state=state) as running, Courier(running) as cam:
        offer = await cam.offer()
        own = mailbox_of(running)
        roomy, own.blobs = own.blobs, BlobStore(own.blobs.folder, 31_000)
        closing = await cam.push(offer, REPLY)
        assert (closing.status, "beyond" in closing.detail) == (pb.STATUS_BUSY, True)
        own.blobs = roomy
        assert (await cam.push(offer, REPLY)).status == pb.STATUS_OK


async def test_what_has_expired_or_was_withdrawn_is_taken_no_more(box: Mailbox, state: Path) -> None:
    async with edge(state=state) as running, Courier(running) as cam:
        put(box)
        offer = await cam.offer()
        box.withdraw(["a"], "the run ended")
        for closing in (await cam.push(offer, REPLY), await (await cam.transfer(cam.opening(offer))).closed()):
            assert (closing.status, "the run ended" in closing.detail) == (pb.STATUS_EXPIRED, True)


async def test_a_content_that_is_gone_is_withdrawn(box: Mailbox, state: Path) -> None:
    made = put(box)
    async with edge(state=state) as running, Courier(running) as cam:
        offer = await cam.offer()
        box.blobs.forget(made.sha256)
        assert (await (await cam.transfer(cam.opening(offer))).closed()).status == pb.STATUS_EXPIRED
        assert state_of(box) == "withdrawn"


async def test_an_upload_that_ends_while_its_files_are_opened_leaves_none_open(
    box: Mailbox, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_open = threading.Event(), threading.Event()
    opened: list[Incoming] = []
    at_once = Incoming.open

    def slowly(folder: Path, sha256: bytes, size: int) -> Incoming:
        begun.set()
        assert may_open.wait(60)
        opened.append(at_once(folder, sha256, size))
        return opened[-1]

    put(box)
    async with edge(state=state) as running, Courier(running) as cam:
        monkeypatch.setattr(Incoming, "open", slowly)
        reply = {"content_sha256": hashlib.sha256(REPLY).digest(), "content_bytes": len(REPLY)}
        transfer = await cam.transfer(cam.opening(await cam.offer(), upload=True, **reply))
        await asyncio.to_thread(begun.wait)
        running.server.service.drain(1)  # cancels it
        may_open.set()
        assert (await transfer.closed()).status == pb.STATUS_DRAINING
        await until(lambda: bool(opened))
        await until(lambda: opened[0]._part.closed and opened[0]._log.closed)


async def test_a_server_that_stops_closes_transfers_for_later(box: Mailbox, state: Path) -> None:
    put(box)
    async with edge(state=state) as running, Courier(running) as cam:
        transfer = await cam.transfer(cam.opening(await cam.offer()))
        await transfer.read()
        running.server.service.drain(1)
        assert (await transfer.closed()).status == pb.STATUS_DRAINING
        assert (await (await cam.transfer(pb.TransferOpen())).closed()).status == pb.STATUS_DRAINING


async def test_a_device_that_says_too_much_is_hung_up(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "MOST_PENDING", 0)
    async with edge(state=state) as running, Courier(running) as cam:
        await cam.send(pb.DeviceMessage(offer_reply=pb.OfferReply(offer=99)))  # never made: ignored
        with contextlib.suppress(grpc.aio.AioRpcError):  # the end may come before the word has left
            await cam.send(pb.DeviceMessage(bundle_notice=pb.BundleNotice(bundle_id=b"b" * 32)))
        assert (await cam.status())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
