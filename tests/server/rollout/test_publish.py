"""Publishing and going back, on disk: what is refused, what is signed, and what is in force."""

import dataclasses
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headwater.compression.bundle import Bundle
from headwater.compression.errors import RolloutError
from headwater.compression.release import Release, Signer
from headwater.compression.signature import verify
from headwater.server.rollout.canary import Rules
from headwater.server.rollout.gate import Bounds
from headwater.server.rollout.publish import Published, publish, roll_back, roll_back_to
from headwater.server.rollout.versions import Versions
from tests.versions import PUBLIC, SIGNER, version

BOUNDS = Bounds(100.0, 10_000.0)
ALL_AT_ONCE = Rules(share=1.0)


def released(state: Path, number: int, rules: Rules = ALL_AT_ONCE, served: int | None = 0) -> Published:
    return publish(state, version(number), SIGNER, rules, BOUNDS, served=None if served is None else version(served))


def test_the_first_release_knows_what_was_served_before(tmp_path: Path) -> None:
    done = released(tmp_path, 1)
    assert done.passed is not None
    release = done.release
    assert (release.bundle, release.previous, release.stage) == (version(1).id, version(0).id, "everyone")
    statement = Release.read(release.statement, PUBLIC)
    assert (statement.serial, statement.bundle_id, statement.name) == (release.serial, version(1).id, "tiny")
    assert not statement.back
    assert release.undo is not None
    undo = Release.read(release.undo, PUBLIC)
    assert (undo.serial, undo.bundle_id, undo.back) == (release.serial + 1, version(0).id, True)
    with Versions(tmp_path) as versions:
        assert versions.load(version(1).id).signature == version(1).signature
        assert {one.id for one in versions.all()} == {version(0).id, version(1).id}


def test_an_unsigned_bundle_is_signed_by_the_key_of_its_release(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    publish(tmp_path, version(1), Signer(key), ALL_AT_ONCE, BOUNDS)
    with Versions(tmp_path) as versions:
        stored = versions.load(version(1).id)
    verify(stored.manifest_bytes, stored.signature, key.public_key())


def test_what_is_worse_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match="a frame grows by"):
        publish(tmp_path, version(1), SIGNER, ALL_AT_ONCE, Bounds(0.0, 0.0), served=half_as_long())
    with Versions(tmp_path) as versions:
        assert (versions.all(), versions.releases()) == ([], [])


def half_as_long() -> Bundle:
    """The first version, had its frames been half as long."""
    old = version(0)
    modes = tuple(dataclasses.replace(mode, mean_bytes=mode.mean_bytes / 2) for mode in old.manifest.modes)
    return Bundle.build(dataclasses.replace(old.manifest, modes=modes), {n: old.read(n) for n in old.manifest.files})


def test_back_and_on_again(tmp_path: Path) -> None:
    first = released(tmp_path, 1).release
    second = released(tmp_path, 2).release
    assert second.previous == version(1).id
    back = roll_back(tmp_path, "it sees ghosts")
    assert (back.bundle, back.back, back.serial, back.reason) == (
        *(version(1).id, True, second.serial + 1),
        "it sees ghosts",
    )
    with pytest.raises(RolloutError, match="went back already"):
        roll_back(tmp_path, "again")
    further = roll_back_to(tmp_path, version(0).id.hex()[:8], SIGNER, "to the beginning")
    assert further.bundle == version(0).id
    assert Release.read(further.statement, PUBLIC).back
    third = released(tmp_path, 3).release
    assert third.previous == version(0).id
    serials = [first.serial, second.serial, back.serial, further.serial, third.serial]
    assert serials == sorted(set(serials))
    with Versions(tmp_path) as versions:
        assert [one.serial for one in versions.releases()] == serials[::-1]
        assert [one.stage for one in versions.releases()] == ["everyone"] * 3 + ["left", "everyone"]


def test_one_at_a_time(tmp_path: Path) -> None:
    released(tmp_path, 1, Rules(share=0.2))
    with pytest.raises(RolloutError, match="is still tried by 20%"):
        released(tmp_path, 2)
    roll_back(tmp_path, "enough")
    released(tmp_path, 2)
    with pytest.raises(RolloutError, match="is the one in use"):
        released(tmp_path, 2)
    with pytest.raises(RolloutError, match="not after the one in use"):
        released(tmp_path, 1)


def test_nothing_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match="nothing was published"):
        roll_back(tmp_path, "")
    with Versions(tmp_path), pytest.raises(RolloutError, match="nothing was released yet"):
        roll_back(tmp_path, "")
    assert released(tmp_path, 1, served=None).passed is None
    with pytest.raises(RolloutError, match="nothing was released of other; there are releases of tiny"):
        roll_back(tmp_path, "", "other")
    with pytest.raises(RolloutError, match="knows of no bundle before"):
        roll_back(tmp_path, "")
    with pytest.raises(RolloutError, match="0 bundles have an id that starts with 'ffff'"):
        roll_back_to(tmp_path, "ffff", SIGNER, "")


def test_a_server_that_lost_its_state_is_believed_again(tmp_path: Path) -> None:
    before = released(tmp_path / "one", 1).release.serial
    assert released(tmp_path / "two", 1).release.serial >= before


def test_names_do_not_mix(tmp_path: Path) -> None:
    released(tmp_path, 1)
    publish(tmp_path, version(1, "other"), SIGNER, ALL_AT_ONCE, BOUNDS, served=version(0, "other"))
    with pytest.raises(RolloutError, match="say of which with --name"):
        roll_back(tmp_path, "")
    assert roll_back(tmp_path, "", "other").name == "other"
    with Versions(tmp_path) as versions:
        release = versions.in_force("tiny")
        assert release is not None
        assert release.bundle == version(1).id
