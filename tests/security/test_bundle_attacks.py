"""The attacks of The Update Framework (TUF) on bundles and releases, each tried on the real device over a real port.

Two attackers. One owns the edge server, with its disk: whatever no private key is needed for. That is a real server
whose database was written to (:func:`slip_in`), or one of the attacker's own (:class:`Evil`). The other has stolen a
release key. None of them has the key that the device was given, its anchor.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from headwater.compression import patch, signature
from headwater.compression.bundle import SIGNATURE, Bundle
from headwater.compression.bundle_cli import app as bundle_app
from headwater.compression.errors import SignatureError
from headwater.compression.release import Release, Signer
from headwater.compression.trust import KeyList
from headwater.device import Agent
from headwater.device.courier import Courier, Slowest
from headwater.device.link import Link
from headwater.device.link_options import LinkOptions
from headwater.device.settings import DeviceSettings
from headwater.protos import edge_pb2 as pb
from headwater.server.federation.doorbell import ring
from headwater.server.rollout.publish import publish, refresh
from headwater.server.rollout.versions import Versions, Wish
from tests import tiny
from tests.device.exchanges import Context, ExchangingEdge
from tests.device.fake_edge import serving
from tests.server.releasing import ALL, BOUNDS, Fleet, fleet, settle
from tests.versions import KEY, SIGNER, signed, version, write_keys

THIEF = Ed25519PrivateKey.from_private_bytes(b"thief" + bytes(27))
NOW = int(time.time())


# ---------------------------------------------------------------- an attacker's own server


@dataclass
class Evil(ExchangingEdge):
    """Offers what it likes, and gives what it likes for it."""

    number: int = 0
    said: dict[bytes, bytes] = field(default_factory=dict)
    """What it gives, by the hash that it offered."""

    async def offer(self, envelope: bytes, content: bytes, bundle: Bundle, **claims: object) -> pb.Offer:
        """Offer a content, with claims of it that need not be true."""
        self.number += 1
        plain = {"content_sha256": hashlib.sha256(content).digest(), "content_bytes": len(content)} | claims
        offer = pb.Offer(offer=self.number, kind=pb.OFFER_KIND_BUNDLE, bundle_id=bundle.id, envelope=envelope, **plain)
        self.contents[offer.content_sha256] = content
        self.others.clear()
        await self.send(pb.ServerMessage(offer=offer))
        return offer

    async def refused(self, envelope: bytes, content: bytes, bundle: Bundle, **claims: object) -> str:
        """Offer it, and hear why the device will not have it."""
        await self.offer(envelope, content, bundle, **claims)
        await self.until(lambda: bool(self.details) or pb.BUNDLE_STATE_IN_USE in self.states)
        assert pb.BUNDLE_STATE_IN_USE not in self.states
        return self.details

    async def followed(self, envelope: bytes, bundle: Bundle) -> None:
        """Offer it as it should be, and see that it is used."""
        await self.offer(envelope, patch.make(bundle, device=True), bundle)
        await self.until(lambda: bool(self.details) or pb.BUNDLE_STATE_IN_USE in self.states)
        assert not self.details

    @property
    def states(self) -> list[int]:
        return [message.bundle_notice.state for message in self.others if message.HasField("bundle_notice")]

    @property
    def details(self) -> str:
        return " ".join(
            message.bundle_notice.detail
            for message in self.others
            if message.bundle_notice.state == pb.BUNDLE_STATE_REFUSED
        )


@asynccontextmanager
async def attacked(folder: Path) -> AsyncIterator[tuple[Evil, Agent]]:
    """A device that has followed release 10, to version 2, at a server that an attacker has taken over since."""
    _, public = write_keys(folder)
    settings = DeviceSettings(state=folder / "state", trusted_key=public, width=1.0, retry_s=0.1)
    edge = Evil()
    async with (
        asyncio.timeout(120),
        serving(edge),
        Agent(version(0), f"127.0.0.1:{edge.port}", settings, connect_timeout_s=30) as agent,
    ):
        await edge.followed(SIGNER.release(10, version(2)), version(2))
        edge.opens.clear()
        yield edge, agent


def unchanged(agent: Agent) -> bool:
    store = agent._store
    assert store is not None
    return agent.manifest.created == version(2).manifest.created and store.state.current == version(2).id.hex()


def of(bundle: Bundle, serial: int, **facts: object) -> Release:
    """What the holder of the key would sign."""
    return dataclasses.replace(Release.read(SIGNER.release(serial, bundle), KEY.public_key()), **facts)  # type: ignore[arg-type]


async def test_what_is_refused_before_a_byte_is_fetched(tmp_path: Path) -> None:
    good, new = SIGNER.release(11, version(3)), version(3)
    packed = patch.make(new, device=True)
    most = patch.most_bytes(of(new, 11).size)
    thief_keys = KeyList(1, 1 << 40, (THIEF.public_key(),), (THIEF.public_key(),)).signed(THIEF)
    old_keys = KeyList(1, NOW - 10, (KEY.public_key(),), (KEY.public_key(),)).signed(KEY)
    attacks: dict[str, tuple[bytes, dict[str, object], str]] = {
        "arbitrary: a stranger's release": (Signer(THIEF).release(11, new), {}, "not by the trusted key"),
        "arbitrary: no release at all": (b"HWR\x02" + bytes(200), {}, "signature has 76 beginning"),
        "arbitrary: nothing": (b"", {}, "are no release"),
        "arbitrary: a bundle's signature": (
            good[:-76] + (new.signature or b""),
            {},
            "not the one that",
        ),
        "arbitrary: a stranger's list of keys": (
            Signer(THIEF, thief_keys).release(11, new),
            {},
            "no root key of",
        ),
        "replay: a release that was followed and left": (
            SIGNER.release(9, version(1)),
            {},
            "9 was left behind",
        ),
        "roll-back: the way back from an earlier one": (
            SIGNER.release(8, version(0), back=True),
            {},
            "left behind",
        ),
        "roll-back: a serial changed by hand": (good[:4] + bytes(7) + b"\x63" + good[12:], {}, "not the one that was"),
        "freeze: a release that has ended": (of(new, 11, issued=NOW - 99, expires=NOW - 9).signed(KEY), {}, "ended at"),
        "mix and match: another model's release": (SIGNER.release(11, version(3, "other")), {}, "release is of other"),
        "endless data: a petabyte is announced": (good, {"content_bytes": 1 << 50}, f"at most {most} are fetched"),
        "endless data: a byte more than can be": (good, {"content_bytes": most + 1}, f"at most {most} are fetched"),
        "freeze: keys whose time is over": (Signer(KEY, old_keys).release(11, new), {}, "list 1 of keys ended at"),
    }
    async with attacked(tmp_path) as (edge, agent):
        for name, (envelope, claims, why) in attacks.items():
            assert why in await edge.refused(envelope, packed, new, **claims), name
            assert unchanged(agent), name
        assert edge.opens == []
        assert not list((tmp_path / "state" / "bundles").glob("new-*"))


async def test_what_is_refused_when_it_has_come(tmp_path: Path) -> None:
    new, other, older = version(3), version(4), version(1)
    files = {name: new.read(name) for name in new.manifest.files}
    whole = patch.make(new, device=True)
    bare = patch.make(Bundle(new.manifest_bytes, files), device=True)
    theirs = patch.make(signed(new, THIEF), device=True)
    swapped = bytearray(whole)
    swapped[4:36] = other.id
    attacks: dict[str, tuple[Bundle, bytes, dict[str, object], str]] = {
        "arbitrary: an attacker's bundle": (
            new,
            patch.make(signed(other, THIEF), device=True),
            {},
            "was sent; released",
        ),
        "mix and match: one bundle's name on another's": (other, bytes(swapped), {}, "manifest is not the one"),
        "mix and match: one's manifest, another's files": (
            new,
            mixed(new, other),
            {},
            "packed as",
        ),
        "mix and match: a change of what is not there": (
            new,
            patch.make(new, other, device=True),
            {},
            "none is there",
        ),
        "endless data: a file that swells": (new, swelling(whole), {}, "packed as"),
        "endless data: more than was announced": (new, whole, {"content_bytes": len(whole) - 7}, "a chunk of"),
        "arbitrary: other bytes than announced": (new, whole, {"content_sha256": bytes(32)}, "what came is no"),
        "arbitrary: a bundle that nobody signed": (new, bare, {}, "is not signed"),
        "arbitrary: a bundle that a stranger signed": (new, theirs, {}, "not by the trusted key"),
        "roll-back: an older bundle as a step forward": (
            older,
            patch.make(older, device=True),
            {},
            "older than",
        ),
    }
    async with attacked(tmp_path) as (edge, agent):
        for serial, (name, (bundle, content, claims, why)) in enumerate(attacks.items(), 11):
            found = await edge.refused(SIGNER.release(serial, bundle), content, bundle, **claims)
            assert why in found, (name, found)
            assert unchanged(agent), name
        assert len(edge.opens) == len(attacks)
        assert [path.name for path in (tmp_path / "state" / "fetching").iterdir()] == []
        await edge.followed(SIGNER.release(99, version(5)), version(5))  # it goes on with what is right


def mixed(manifest_of: Bundle, files_of: Bundle) -> bytes:
    """One bundle's manifest and signature before the files of another, as an attacker would pack them."""
    one, other = patch.make(manifest_of, device=True), patch.make(files_of, device=True)
    return one[: start_of_files(one)] + other[start_of_files(other) :]


def start_of_files(packed: bytes) -> int:
    at = 68
    for _ in range(2):
        at += 9 + int.from_bytes(packed[at + 5 : at + 9], "little")
    return at


def swelling(packed: bytes) -> bytes:
    """The first file that a device reads says that it is a gigabyte."""
    at = start_of_files(packed)
    while packed[at] == patch.Method.LEFT_OUT:
        at += 9
    return packed[: at + 1] + (1 << 30).to_bytes(4, "little") + packed[at + 5 :]


# ---------------------------------------------------------------- endless and slow, at the courier


@asynccontextmanager
async def carrying(edge: ExchangingEdge, slowest: Slowest) -> AsyncIterator[Courier]:
    options = LinkOptions("cam-1", b"b" * 32, first_pause_s=0.01, longest_pause_s=0.05)
    async with asyncio.timeout(120), serving(edge), Link(f"127.0.0.1:{edge.port}", options) as link:
        await link.wait_connected()
        yield Courier(link, slowest=slowest)


@dataclass
class Babbling(ExchangingEdge):
    """Never stops, though the device has closed."""

    async def _give(self, opening: pb.TransferOpen, context: Context) -> None:
        await super()._give(opening, context)
        with contextlib.suppress(Exception):  # until the device hangs up
            while True:
                await context.write(pb.TransferMessage(ack=pb.TransferAck(received_bytes=1)))


async def test_endless_data_after_the_end(tmp_path: Path) -> None:
    edge = Babbling()
    async with carrying(edge, Slowest()) as courier:
        for number in (1, 2):
            content = bytes([number]) * 5000
            assert (await courier.download(edge.put(content), tmp_path)).read_bytes() == content


async def test_endless_chunks(tmp_path: Path) -> None:
    edge = ExchangingEdge(chunk_bytes=1)
    async with carrying(edge, Slowest()) as courier:
        offer = edge.put(b"abc")
        edge.contents[offer.content_sha256] = b"abcdefghijk"
        assert (await courier.download(offer, tmp_path)).read_bytes() == b"abc"
    assert edge.moved <= 4, "no byte more is taken than was announced"


@dataclass
class Silent(ExchangingEdge):
    """Says nothing of one content, for as long as it is told so."""

    mute: bytes = b""

    async def _give(self, opening: pb.TransferOpen, context: Context) -> None:
        if opening.content_sha256 == self.mute:
            await self._notify()
            await asyncio.Event().wait()
        await super()._give(opening, context)


async def test_slow_retrieval_by_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    edge = Silent()
    async with carrying(edge, Slowest(silent_s=0.05)) as courier:
        slow, quick = edge.put(b"slow" * 1000), edge.put(b"quick" * 1000)
        edge.mute = slow.content_sha256
        waiting = asyncio.create_task(courier.download(slow, tmp_path / "slow"))
        await edge.until(lambda: bool(edge.opens))
        assert (await courier.download(quick, tmp_path / "quick")).read_bytes() == b"quick" * 1000
        assert not waiting.done(), "others get their turn"
        edge.mute = b""
        assert (await waiting).read_bytes() == b"slow" * 1000
    assert "the server said nothing for 0.05 s" in caplog.text


async def test_slow_retrieval_by_dripping(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0

    def drip(number: int) -> bool:
        nonlocal now_s
        now_s += 100.0 if number <= 16 else 0.0
        if number == 17:
            edge.chunk_bytes = 1 << 14
        return True

    edge = ExchangingEdge(chunk_bytes=1, on_chunk=drip)
    content = bytes(range(256)) * 16
    async with carrying(edge, Slowest(clock=lambda: now_s)) as courier:
        assert (await courier.download(edge.put(content), tmp_path)).read_bytes() == content
    had = [opening.have_bytes for opening in edge.opens]
    assert had == sorted(set(had)), "broken off, and gone on with, nothing lost"
    assert caplog.text.count("a transfer goes on later") == len(had) - 1 == 2


async def test_slow_retrieval_ends_with_the_release(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (edge, agent):
        edge.gate.clear()
        edge.on_chunk = lambda _: True
        short = of(version(3), 11, expires=int(time.time()) + 2).signed(KEY)

        async def never(_: pb.Offer, __: Path) -> Path:
            await asyncio.Event().wait()
            raise AssertionError

        agent._courier.download = never  # type: ignore[method-assign]  # a link on which nothing comes
        found = await edge.refused(short, patch.make(version(3), device=True), version(3))
        assert "release 11 ended before its bundle had come" in found
        assert unchanged(agent)


# ---------------------------------------------------------------- a real server that was taken over


def slip_in(there: Fleet, bundle: Bundle, statement: bytes) -> int:
    """Put a release into the server's database without the key, as who owns the server can; its serial there."""
    with Versions(there.state) as versions:
        serial = versions.next_serial()
        versions.add(bundle)
        versions.release(Wish(serial, bundle, None, statement, None, ALL))
    ring(there.state)
    return serial


async def stands(there: Fleet, serial: int, device: str = "a") -> str:
    """Why a device refuses a release of a real server."""
    await settle(lambda: there.versions().members(serial).get(device, ("", ""))[0] == "refused")
    return there.versions().members(serial)[device][1]


async def test_a_server_that_was_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with fleet(tmp_path, "a") as there:
        first = there.release(2)
        await settle(lambda: there.using(2) == ["a"])
        second = there.release(3)
        await settle(lambda: there.using(3) == ["a"])
        assert first.undo is not None
        evil = signed(version(4), THIEF)
        for statement, bundle, why in (
            (Signer(THIEF).release(1 << 50, evil), evil, "not by the trusted key"),  # arbitrary
            (first.statement, version(2), "was left behind"),  # replay
            (first.undo, version(0), "was left behind"),  # roll-back
        ):
            assert why in await stands(there, slip_in(there, bundle, statement)), why
            assert there.using(3) == ["a"]
        slip_in(there, evil, SIGNER.release(second.serial + 5, version(5)))  # mix and match
        await settle(lambda: f"{evil.short_id} was sent; released is {version(5).short_id}" in caplog.text)
        assert there.using(3) == ["a"]
        agent = there.agents["a"]
        there.running.server.registry.add(version(3))
        assert (await agent.infer(tiny.image(1)[0])).status == "ok"


async def test_the_one_way_back_that_was_signed_is_the_only_one(tmp_path: Path) -> None:
    """What a taken-over server can do: go back from the newest release to the bundle before it, and no further."""
    async with fleet(tmp_path, "a") as there:
        there.release(2)
        second = there.release(3)
        await settle(lambda: there.using(3) == ["a"])
        assert second.undo is not None
        slip_in(there, version(2), second.undo)
        await settle(lambda: there.using(2) == ["a"])


# ---------------------------------------------------------------- freeze


async def test_who_is_kept_from_news_knows_it_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with attacked(tmp_path) as (edge, agent):
        short = of(version(2), 11, expires=int(time.time()) + 3600).signed(KEY)
        await edge.followed(short, version(2))
        store, swapping = agent._store, agent._swapping
        assert store is not None
        assert swapping is not None
        await edge.until(lambda: store.state.serial == 11)
        swapping.remind()
        assert "ended at" not in caplog.text
        store.trusting._clock = lambda: time.time() + 3601
        for _ in range(2):
            swapping.remind()
        assert caplog.text.count("release 11 ended at") == 1
        assert "does somebody keep releases from this device?" in caplog.text
        assert unchanged(agent)


async def test_a_clock_that_was_set_back_brings_no_old_release_to_life(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (edge, agent):
        store = agent._store
        assert store is not None
        store.trusting._clock = lambda: 0.0  # 1970, as after a start without a battery
        now = store.state.issued + 10
        await edge.followed(of(version(3), 11, issued=now, expires=now + 100).signed(KEY), version(3))
        old = of(version(4), 12, issued=now - 200, expires=now - 100).signed(KEY)
        assert "release 12 ended at" in await edge.refused(old, b"", version(4))
        assert store.state.issued == now


async def test_a_server_offers_no_release_that_has_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with fleet(tmp_path) as there:
        publish(there.state, version(1), Signer(KEY, valid_days=1e-9), ALL, BOUNDS, served=version(0))
        agent = await there.join("late")
        with caplog.at_level(logging.ERROR, "headwater.server"):
            await settle(lambda: "a release has ended" in caplog.text)
        assert (await agent.infer(tiny.image(1)[0])).status == "ok"
        assert there.using(0) == ["late"]
        refresh(there.state, SIGNER)
        await settle(lambda: there.using(1) == ["late"])


# ---------------------------------------------------------------- a stolen key, and the way out of it


def command(*words: object) -> str:
    result = CliRunner().invoke(bundle_app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


async def test_a_release_key_is_stolen_and_replaced(tmp_path: Path) -> None:
    """The anchor stays in its drawer; releases are by another key, and after the theft by a third."""
    root, _ = write_keys(tmp_path)
    first, second, lists = tmp_path / "first.key", tmp_path / "second.key", tmp_path / "keys"
    for key in (first, second):
        command("keygen", key)
    command("rotate", lists, "--key", root, "--release", f"{first}.pub")
    before = lists.read_bytes()
    stolen = signature.load_private(first)
    async with fleet(tmp_path, "a", "asleep") as there:
        publish(there.state, version(1), Signer(stolen, before), ALL, BOUNDS, served=version(0))
        await settle(lambda: len(there.using(1)) == 2)
        sleeper = there.agents.pop("asleep")
        await sleeper.__aexit__()

        shown = command("rotate", lists, "--key", root, "--release", f"{second}.pub")
        assert shown.count("list ") == 2
        owner = Signer(signature.load_private(second), lists.read_bytes())
        refreshed = refresh(there.state, owner)
        store = there.agents["a"]._store
        assert store is not None
        await settle(lambda: store.state.serial == refreshed.serial)
        assert store.trusting.trust.newest.number == 2

        evil = signed(version(2), stolen)
        for statement in (Signer(stolen, before).release(1 << 51, evil), Signer(stolen).release(1 << 51, evil)):
            serial = slip_in(there, evil, statement)
            assert "not by the trusted key" in await stands(there, serial)
        fork = KeyList(2, 1 << 40, (THIEF.public_key(),), (THIEF.public_key(),)).signed(stolen, THIEF)
        serial = slip_in(there, evil, before + fork + Signer(THIEF).release(1 << 51, evil))
        assert "another one than was heard before" in await stands(there, serial)
        assert there.using(1) == ["a"]

        publish(there.state, version(3), owner, ALL, BOUNDS)
        await there.join("asleep")  # hears of both lists at once
        await settle(lambda: len(there.using(3)) == 2)


async def test_what_only_a_stolen_key_vouched_for_is_not_gone_back_to(tmp_path: Path) -> None:
    chain = KeyList(1, 1 << 40, (KEY.public_key(),), (THIEF.public_key(),)).signed(KEY)
    after = chain + KeyList(2, 1 << 40, (KEY.public_key(),), (KEY.public_key(),)).signed(KEY)
    async with attacked(tmp_path) as (edge, agent):
        evil = signed(version(3), THIEF)
        await edge.followed(Signer(THIEF, chain).release(11, evil), evil)
        await edge.followed(Signer(KEY, after).release(12, version(4)), version(4))
        store = agent._store
        assert store is not None
        assert store.state.previous == evil.id.hex()
        assert store.roll_back("it does not run").id == version(0).id, "neither the thief's nor what came before"


async def test_new_keys_are_known_after_a_restart(tmp_path: Path) -> None:
    chain = KeyList(1, 1 << 40, (KEY.public_key(),), (THIEF.public_key(),)).signed(KEY)
    async with attacked(tmp_path) as (edge, _):
        refused = await edge.refused(chain + SIGNER.release(11, version(3)), b"", version(3))
        assert "not by the trusted key" in refused, "the list counts though the release does not"
    edge = Evil()
    settings = DeviceSettings(state=tmp_path / "state", trusted_key=tmp_path / "release.key.pub", width=1.0)
    async with (
        asyncio.timeout(60),
        serving(edge),
        Agent(version(0), f"127.0.0.1:{edge.port}", settings, connect_timeout_s=30),
    ):
        assert "not by the trusted key" in await edge.refused(SIGNER.release(12, version(3)), b"", version(3))
        await edge.followed(Signer(THIEF, chain).release(13, signed(version(3), THIEF)), signed(version(3), THIEF))


def test_a_bundle_is_signed_anew_with_its_release(tmp_path: Path) -> None:
    publish(tmp_path, version(1), SIGNER, ALL, BOUNDS, served=version(0))
    lists = KeyList(1, 1 << 40, (KEY.public_key(),), (THIEF.public_key(),)).signed(KEY)
    refresh(tmp_path, Signer(THIEF, lists))
    with Versions(tmp_path) as versions:
        for number in (0, 1):
            stored = versions.load(version(number).id)
            signature.verify(stored.manifest_bytes, stored.signature, THIEF.public_key())
            assert oct((versions.path(stored.id) / SIGNATURE).stat().st_mode)[-3:] == "644"
    with pytest.raises(SignatureError, match="may sign no releases by list 1"):
        refresh(tmp_path, Signer(KEY, lists))
