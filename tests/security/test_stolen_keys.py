"""Key compromise, of TUF's list: a release key is stolen, and replaced by who has the root key in a drawer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headwater.compression import signature
from headwater.compression.bundle import SIGNATURE
from headwater.compression.bundle_cli import app as bundle_app
from headwater.compression.errors import SignatureError
from headwater.compression.release import Signer
from headwater.compression.trust import KeyList
from headwater.device import Agent
from headwater.device.settings import DeviceSettings
from headwater.server.rollout.publish import publish, refresh
from headwater.server.rollout.versions import Versions
from tests.device.fake_edge import serving
from tests.security.taken_over import THIEF, Evil, attacked, slip_in, stands
from tests.server.releasing import ALL, BOUNDS, fleet, settle
from tests.versions import KEY, SIGNER, signed, version, write_keys


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
