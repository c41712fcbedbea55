"""The attacks of The Update Framework (TUF) on bundles and releases, by who owns the edge server: none goes further.

Arbitrary bundle, replay, roll-back, freeze, endless data, mix and match; test_slow_retrieval.py and
test_stolen_keys.py have the others.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from headwater.compression.release import Signer
from headwater.server.rollout.publish import publish, refresh
from tests import tiny
from tests.security import offers
from tests.security.offers import Tried
from tests.security.taken_over import attacked, of, slip_in, unchanged
from tests.server.releasing import ALL, BOUNDS, fleet, settle
from tests.versions import KEY, SIGNER, version


def went_further(tried: list[Tried]) -> list[Tried]:
    return [one for one in tried if not one.stopped]


async def test_what_is_refused_before_a_byte_is_fetched(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (edge, agent):
        tried = await offers.make(offers.to_announce(), edge, agent)
        assert (len(tried), went_further(tried)) == (13, [])
        assert edge.opens == []
        assert not list((tmp_path / "state" / "bundles").glob("new-*"))


async def test_what_is_refused_when_it_has_come(tmp_path: Path) -> None:
    async with attacked(tmp_path) as (edge, agent):
        tried = await offers.make(offers.to_send(), edge, agent)
        assert (len(tried), went_further(tried)) == (10, [])
        assert len(edge.opens) == len(tried)
        assert [path.name for path in (tmp_path / "state" / "fetching").iterdir()] == []
        await edge.followed(SIGNER.release(99, version(5)), version(5))  # it goes on with what is right


# ---------------------------------------------------------------- a real server that was taken over


async def test_a_server_that_was_taken_over(tmp_path: Path) -> None:
    async with fleet(tmp_path, "a") as there:
        tried = await offers.slipped_in(there)
        assert (len(tried), went_further(tried)) == (4, [])
        there.running.server.registry.add(version(3))
        assert (await there.agents["a"].infer(tiny.image(1)[0])).status == "ok"


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
