"""Real agents at a real server in one event loop: releases reach them, widen, and are gone back from."""

import os
import threading
import time
from pathlib import Path

import pytest

from headwater.compression.background import NICE
from headwater.compression.bundle import Bundle
from headwater.compression.errors import StorageError
from headwater.server.rollout.canary import Rules
from headwater.server.rollout.conductor import Conductor
from headwater.server.rollout.publish import publish, refresh, roll_back
from headwater.server.rollout.versions import Versions
from tests import tiny
from tests.server.edges import edge
from tests.server.releasing import BOUNDS, feed, fleet, settle
from tests.versions import SIGNER, broken, version


async def test_a_release_reaches_every_device_and_the_next_one_too(tmp_path: Path) -> None:
    async with fleet(tmp_path, "a", "b") as there:
        for number in (1, 2):
            release = there.release(number)
            await settle(lambda number=number: len(there.using(number)) == 2)  # type: ignore[misc]
            await settle(lambda serial=release.serial: len(there.versions().members(serial)) == 2)  # type: ignore[misc]
        for agent in there.agents.values():
            assert (await agent.infer(tiny.image(4)[0])).status == "ok"
        assert [one.id for one in there.running.server.registry.served] == [version(2).id, version(1).id]


async def test_what_is_served_is_not_read_again_to_make_a_difference_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[bytes, int]] = []
    load = Versions.load

    def noting(versions: Versions, bundle_id: bytes) -> Bundle:
        if threading.current_thread().name.startswith("headwater-rollout"):
            read.append((bundle_id, os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
        return load(versions, bundle_id)

    monkeypatch.setattr(Versions, "load", noting)
    usual = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    async with fleet(tmp_path, "a") as there:
        there.release(1)
        await settle(lambda: there.using(1) == ["a"])
        assert read == [(version(1).id, min(usual + NICE, 19))], "once, by a thread that gives way to frames"
        refresh(there.state, SIGNER)  # it is signed anew, and is sent so
        signed = there.versions().signature(version(1).id)
        there.agents["b"] = await there.join("b")
        await settle(lambda: there.using(1) == ["a", "b"])
        store = there.agents["b"]._store
        assert store is not None
        assert store.get(version(1).id).signature == signed


async def test_a_device_without_the_key_is_left_alone(tmp_path: Path) -> None:
    async with fleet(tmp_path, "a") as there:
        plain = await there.join("plain", trusted_key=None)
        release = there.release(1)
        await settle(lambda: there.using(1) == ["a"])
        assert (await plain.infer(tiny.image(1)[0])).status == "ok"
        assert set(there.versions().members(release.serial)) == {"a"}


async def test_a_canary_widens_when_it_does_well(tmp_path: Path) -> None:
    async with fleet(tmp_path, "a", "b", "c", "d") as there:
        release = there.release(1, Rules(share=0.25, frames=20, wider=2.0, confidence=100.0))
        await settle(lambda: len(there.using(1)) == 1)
        (first,) = there.using(1)
        await feed(there.agents[first], lambda: len(there.using(1)) == 2)
        await feed(there.agents[first], lambda: len(there.using(1)) == 4)
        now = there.versions().in_force("tiny")
        assert now is not None
        assert (now.serial, now.stage) == (release.serial, "everyone")
        assert "frames" in now.reason


async def test_a_canary_whose_frames_fail_is_gone_back_from(tmp_path: Path) -> None:
    async with fleet(tmp_path, "a", "b", "c") as there:
        release = there.release(1, Rules(share=0.3, frames=1000))
        await settle(lambda: len(there.using(1)) == 1)
        (canary,) = there.using(1)
        agent = there.agents[canary]
        for seed in range(25):  # it has proved itself by then, and goes on to disappoint
            await agent.infer(tiny.image(seed)[0])
        agent._reporter._uses[version(1).id].failed += 500
        await settle(lambda: there.versions().in_force("tiny").back)  # type: ignore[union-attr]
        await settle(lambda: len(there.using(0)) == 3)
        left = next(one for one in there.versions().releases() if one.serial == release.serial)
        assert left.stage == "left"
        assert "failures" in left.reason
        assert (await agent.infer(tiny.image(1)[0])).status == "ok"


async def test_a_bundle_that_the_canary_cannot_compute_goes_no_further(tmp_path: Path) -> None:
    async with fleet(tmp_path, "a", "b", "c") as there:
        release = publish(there.state, broken(1), SIGNER, Rules(share=0.3), BOUNDS, served=version(0)).release
        await settle(lambda: there.versions().in_force("tiny").back)  # type: ignore[union-attr]
        assert len(there.using(0)) == 3
        left = next(one for one in there.versions().releases() if one.serial == release.serial)
        assert "will not have it" in left.reason
        assert "is off by" in left.reason


async def test_back_by_hand_reaches_all(tmp_path: Path) -> None:
    async with fleet(tmp_path, "a", "b") as there:
        there.release(1)
        await settle(lambda: len(there.using(1)) == 2)
        roll_back(there.state, "by hand")
        await settle(lambda: len(there.using(0)) == 2)


async def test_a_device_that_comes_later_gets_what_is_in_force(tmp_path: Path) -> None:
    async with fleet(tmp_path) as there:
        there.release(1)
        there.release(2)
        await there.join("late")
        await settle(lambda: there.using(2) == ["late"])


async def test_a_device_that_slept_through_releases_is_still_served(tmp_path: Path) -> None:
    async with fleet(tmp_path) as there:
        for number in range(1, 5):
            there.release(number)
            await settle(lambda number=number: there.running.server.registry.find(version(number).id) is not None)  # type: ignore[misc]
        assert there.running.server.registry.find(version(1).id) is None
        sleeper = await there.join("sleeper", version(1))
        assert (await sleeper.infer(tiny.image(3)[0])).status == "ok"
        await settle(lambda: there.using(4) == ["sleeper"])


async def test_a_server_started_again_serves_what_is_in_force_from_the_first_moment(tmp_path: Path) -> None:
    async with fleet(tmp_path, "a") as there:
        there.release(1)
        await settle(lambda: there.using(1) == ["a"])
        await there.agents["a"].infer(tiny.image(0)[0])
    async with fleet(tmp_path) as again:
        assert [one.id for one in again.running.server.registry.served] == [version(1).id, version(0).id]
        agent = await again.join("a")
        assert again.using(1) == ["a"]
        assert (await agent.infer(tiny.image(2)[0])).status == "ok"


async def test_what_a_device_reports_as_it_leaves_outlives_a_server_that_stops_then(tmp_path: Path) -> None:
    async with fleet(tmp_path) as there:
        there.release(1)
        agent = await there.join("a", report_s=3600)
        await settle(lambda: there.using(1) == ["a"])
        for seed in range(3):
            await agent.infer(tiny.image(seed)[0])
    with Versions(there.state) as versions:
        assert versions.figures(version(1).id).answered == 3


async def test_what_happens_is_counted(tmp_path: Path) -> None:
    def value(what: str, **labels: str) -> float | None:
        return there.running.server.metrics.registry.get_sample_value(f"headwater_{what}", labels)

    async with fleet(tmp_path, "a", "b") as there:
        there.release(1)
        await settle(lambda: value("bundle_swaps_total", name="tiny") == 2)
        assert (value("bundles_served"), value("release_share", name="tiny")) == (2, 1)
        assert value("bundle_rollbacks_total", by="server") == 0
        roll_back(there.state, "by hand")
        await settle(lambda: value("bundle_swaps_total", name="tiny") == 4)
        assert value("bundle_rollbacks_total", by="server") == 1
        assert value("bundle_rollbacks_total", by="device") == value("bundle_rollbacks_total", by="refused") == 0


async def test_a_release_that_is_signed_anew_is_heard_by_those_who_use_its_bundle(tmp_path: Path) -> None:
    async with fleet(tmp_path, "a", "b") as there:
        first = there.release(1)
        members = there.versions().members
        await settle(lambda: list(members(first.serial).values()) == [("in use", "")] * 2)
        again = refresh(there.state, SIGNER)
        assert (again.bundle, again.stage) == (first.bundle, "everyone")
        stores = [agent._store for agent in there.agents.values()]
        await settle(lambda: all(store is not None and store.state.serial == again.serial for store in stores))
        await settle(lambda: set(members(again.serial).values()) == {("in use", "")})
        assert len(there.using(1)) == 2
        blobs = [one.stat().st_size for one in there.state.rglob("blobs/*")]
        metrics = there.running.server.metrics.registry
        assert metrics.get_sample_value("headwater_bundle_swaps_total", {"name": "tiny"}) == 2
        ends = metrics.get_sample_value("headwater_release_expiry_timestamp_seconds", {"name": "tiny"})
        assert ends == again.expires > time.time()
    assert min(blobs) < 2000 < max(blobs), "a word is short"


async def test_a_server_without_a_state_offers_nothing() -> None:
    async with edge(version(0)) as running:
        assert running.server.service.rollout is None


async def test_trouble_on_the_disk_is_logged_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with fleet(tmp_path, "a") as there:
        turn, failed = Conductor.turn, 0

        def fail_once(conductor: Conductor) -> bool:
            nonlocal failed
            failed += 1
            if failed == 1:
                raise StorageError("the disk is full")
            return turn(conductor)

        monkeypatch.setattr(Conductor, "turn", fail_once)
        there.release(1)
        await settle(lambda: there.using(1) == ["a"])
    assert "the roll-out has to wait" in caplog.text
