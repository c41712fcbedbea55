"""The mailbox: an offer has one number and one reply for life, whoever is killed; bells; room."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.compression.errors import NoRoomError, StorageError
from headwater.protos import edge_pb2 as pb
from headwater.protos.nodes import node_id
from headwater.server.mail import doorbell
from headwater.server.mail import mailbox as module
from headwater.server.mail.doorbell import FOLDER, Doorbell, ring
from headwater.server.mail.mailbox import Mailbox
from headwater.server.mail.records import Device, Wanted

CAM, OTHER = node_id("cam"), node_id("other")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Mailbox]:
    with Mailbox(tmp_path / "state") as opened:
        yield opened


def message(box: Mailbox, key: str, *, device: int = CAM, data: bytes = b"content", group: str = "1") -> Wanted:
    return Wanted(key, device, "message", box.put(data), run=7, group=group, envelope=b"to")


def test_an_offer_is_the_same_whoever_makes_it_and_how_often(box: Mailbox) -> None:
    (first,) = box.offer([message(box, "a")])
    assert (first.state, first.size, first.run, first.group, first.envelope) == ("offered", 7, 7, "1", b"to")
    box.accepted(first.number, CAM)
    assert box.replied(first.number, CAM, b"from", box.put(b"reply"))
    with Mailbox(box.folder) as again:
        (found,) = again.offer([message(box, "a", data=b"something else")])
        assert (found.number, found.sha256, found.state) == (first.number, first.sha256, "replied")
        assert again.blobs.read(found.reply_sha256) == b"reply"


def test_a_device_sees_its_own_open_offers_in_order(box: Mailbox) -> None:
    wanted = [message(box, str(number), device=CAM if number % 2 else OTHER) for number in range(40)]
    made = box.offer(wanted)
    assert [one.key for one in made] == [str(number) for number in range(40)]
    assert [one.key for one in box.open_offers(CAM, "message", 3)] == ["1", "3", "5"]
    box.refused(made[1].number, CAM, "no data")
    box.refused(made[3].number, OTHER, "not its own")
    box.withdraw(["5"], "the run ended")
    assert [one.key for one in box.open_offers(CAM, "message", 2)] == ["3", "7"]
    assert [one.detail for one in box.find(["1", "5"])] == ["no data", "the run ended"]
    assert box.nodes_with_offers(made[-2].number) == (made[-1].number, {CAM})


def test_the_first_reply_counts_and_only_from_the_device_that_was_asked(box: Mailbox) -> None:
    (one,) = box.offer([message(box, "a")])
    sha256 = box.put(b"reply")
    assert not box.replied(one.number, OTHER, b"", sha256)
    assert box.replied(one.number, CAM, b"first", sha256)
    assert not box.replied(one.number, CAM, b"second", box.put(b"other"))
    box.refused(one.number, CAM, "too late")
    assert [(found.state, found.reply_envelope) for found in box.find(["a"])] == [("replied", b"first")]


def test_what_nobody_answers_in_its_time_is_withdrawn(box: Mailbox) -> None:
    wanted = Wanted("late", CAM, "message", box.put(b"x"), valid_for_s=-1)
    (one,) = box.offer([wanted])
    assert (one.state, one.open) == ("withdrawn", False)
    assert not box.replied(one.number, CAM, b"", box.put(b"reply"))
    assert box.open_offers(CAM, "message", 9) == []


def test_a_round_is_forgotten_with_its_blobs_but_what_others_share_stays(box: Mailbox) -> None:
    first, second = box.offer([message(box, "a"), message(box, "b", group="2")])
    box.replied(first.number, CAM, b"", box.put(b"reply of a"))
    box.forget(7, "1")
    assert box.find(["a"]) == []
    assert box.blobs.has(second.sha256)
    assert not box.blobs.has(hashlib.sha256(b"reply of a").digest())
    box.forget(7)
    assert not box.blobs.has(second.sha256)


def test_room_is_made_from_what_is_settled_the_oldest_first(tmp_path: Path) -> None:
    with Mailbox(tmp_path, limit_bytes=3000) as box:
        box.offer([message(box, "old", data=bytes(1000)), message(box, "open", data=bytes(1001))])
        box.refused(box.find(["old"])[0].number, CAM, "")
        box.put(bytes(1800))
        assert box.find(["old"]) == []
        (answered,) = box.find(["open"])
        assert box.replied(answered.number, CAM, b"", box.put(b"reply"))
        with pytest.raises(NoRoomError, match="beyond"):
            box.put(bytes(2900))
        assert box.find(["open"], settled=True)[0].state == "replied"  # and nobody has read it
        box.taken(box.find(["open"]))
        with pytest.raises(NoRoomError, match="beyond"):
            box.put(bytes(2900))  # of the content that nobody refers to
        assert box.find(["open"]) == []


def test_blobs_that_nobody_refers_to_are_swept_when_they_are_old(box: Mailbox) -> None:
    (one,) = box.offer([message(box, "a")])
    orphan, young = box.put(b"orphan"), box.put(b"young")
    for sha256 in (orphan, one.sha256):
        os.utime(box.blobs.path(sha256), (0, 0))
    box.sweep()
    assert [box.blobs.has(sha256) for sha256 in (orphan, young, one.sha256)] == [False, True, True]


def device(node: int, name: str, *, connected: bool, capabilities: tuple[str, ...] = ()) -> Device:
    return Device(node, name, connected, capabilities, b"b" * 32, "0.1", 0)


def test_devices_and_what_they_say(box: Mailbox) -> None:
    box.connected(device(CAM, "cam", capabilities=("federated",), connected=True))
    box.connected(device(OTHER, "other", connected=False))
    assert [(one.name, one.connected, one.capabilities) for one in box.devices()] == [
        ("cam", True, ("federated",)),
        ("other", False, ()),
    ]
    box.nobody_is_connected()
    assert not any(one.connected for one in box.devices())
    for state in (pb.BUNDLE_STATE_FETCHED, pb.BUNDLE_STATE_FETCHED, pb.BUNDLE_STATE_IN_USE):
        box.notice(CAM, b"new", state, "")
    fetched, in_use = box.notices()
    assert (fetched.state, in_use.state, in_use.node) == (pb.BUNDLE_STATE_FETCHED, pb.BUNDLE_STATE_IN_USE, CAM)
    assert box.notices(after=fetched.number) == [in_use]


def test_many_keys_are_found_in_their_order(box: Mailbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDS_AT_A_TIME", 7)
    keys = [str(number) for number in range(40, 0, -1)]
    box.offer([message(box, key) for key in sorted(keys)])
    assert [one.key for one in box.find([*keys, "unknown"])] == keys


def test_every_change_rings_every_bell_and_hearing_it_is_once(box: Mailbox) -> None:
    with Doorbell(box.folder) as one, Doorbell(box.folder) as other:
        box.offer([message(box, "a")])
        assert (one.wait(10), other.wait(10)) == (True, True)
        assert (one.heard(), other.wait(0)) == (False, False)


def test_a_bell_wakes_who_waits(tmp_path: Path) -> None:
    ring(tmp_path)  # nobody listens
    with Doorbell(tmp_path) as bell:
        thread = threading.Thread(target=ring, args=(tmp_path,))
        thread.start()
        assert bell.wait(30)
        thread.join()
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_the_bell_of_a_killed_process_is_taken_down_and_a_loud_one_does_not_block(tmp_path: Path) -> None:
    with Doorbell(tmp_path) as bell:
        os.mkfifo(tmp_path / FOLDER / "dead")
        ring(tmp_path)
        assert len(list((tmp_path / FOLDER).iterdir())) == 1
        while True:
            try:
                os.write(bell.fileno(), bytes(4096))
            except BlockingIOError:
                break
        ring(tmp_path)
        assert bell.heard()


def test_a_bell_that_is_taken_down_while_it_is_rung_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bell = Doorbell(tmp_path)
    write = os.write

    def late(pipe: int, data: bytes) -> int:
        bell.close()
        return write(pipe, data)

    monkeypatch.setattr(doorbell.os, "write", late)
    ring(tmp_path)
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="--state"):
        Mailbox(tmp_path / "file" / "state")
    with pytest.raises(StorageError, match="named pipe"):
        Doorbell(tmp_path / "file")
