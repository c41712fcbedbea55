"""Key compromise, of TUF's list: a release key is stolen, and replaced by who has the root key in a drawer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headwater.compression import signature
from headwater.compression.bundle import SIGNATURE
from headwater.compression.errors import SignatureError
from headwater.compression.release import Signer
from headwater.compression.trust import KeyList
from headwater.device import Agent
from headwater.device.settings import DeviceSettings
from headwater.server.rollout.publish import publish, refresh
from headwater.server.rollout.versions import Versions
from tests.device.fake_edge import serving
from tests.security import offers
from tests.security.taken_over import THIEF, Evil, attacked
from tests.server.releasing import ALL, BOUNDS, settle
from tests.versions import KEY, SIGNER, signed, version


async def test_a_release_key_is_stolen_and_replaced(tmp_path: Path) -> None:
    """The anchor stays in its drawer; releases are by another key, and after the theft by a third."""
    async with offers.robbed(tmp_path) as robbed:
        there = robbed.there
        tried = await offers.signed_by_a_thief(robbed)
        assert (len(tried), [one for one in tried if not one.stopped]) == (3, [])
        publish(there.state, version(3), robbed.owner, ALL, BOUNDS)
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
