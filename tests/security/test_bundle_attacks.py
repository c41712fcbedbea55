"""The attacks of The Update Framework (TUF) on bundles and releases, by who owns the edge server: none goes further.

Arbitrary bundle, replay, roll-back, freeze, endless data, mix and match; test_slow_retrieval.py and
test_stolen_keys.py have the others.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from headwater.compression import patch
from headwater.compression.bundle import Bundle
from headwater.compression.release import Signer
from headwater.compression.trust import KeyList
from headwater.server.rollout.publish import publish, refresh
from tests import tiny
from tests.security.taken_over import NOW, THIEF, attacked, of, slip_in, stands, unchanged
from tests.server.releasing import ALL, BOUNDS, fleet, settle
from tests.versions import KEY, SIGNER, signed, version


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


# ---------------------------------------------------------------- a real server that was taken over


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
