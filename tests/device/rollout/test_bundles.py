"""The device's bundles: what is believed, what is used, and that a cut at any moment leaves one of two good states."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headwater.compression import patch
from headwater.compression.bundle import Bundle
from headwater.compression.errors import BundleError, HeadwaterError, RolloutError, SignatureError, StorageError
from headwater.device.rollout.bundles import MAX_STARTS, BundleStore
from tests import tiny
from tests.versions import PUBLIC, release, signed, version

_open: list[BundleStore] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No store stays open after its test."""
    yield
    while _open:
        _open.pop().close()


def opened(folder: Path, factory: Bundle | None = None) -> BundleStore:
    _open.append(BundleStore.open(folder, PUBLIC, factory or version(0)))
    return _open[-1]


def follow(store: BundleStore, bundle: Bundle, serial: int, *, back: bool = False, whole: bool = False) -> Bundle:
    """What the agent does with a release, but for the golden input."""
    judged = store.judge(release(bundle, serial, back=back))
    if store.has(bundle.id):
        got = store.trusted(judged, store.get(bundle.id))
    else:
        old = None if whole else store.get(bytes.fromhex(store.state.current))
        got = store.unpack(judged, patch.make(bundle, old, device=True))
    store.switch(judged, got)
    return got


@pytest.fixture
def store(closed: None, tmp_path: Path) -> BundleStore:
    del closed  # afterwards
    return opened(tmp_path / "bundles")


def test_it_starts_with_the_bundle_that_it_was_given(store: BundleStore) -> None:
    assert store.begin() is store.factory
    assert (store.state.current, store.state.trial) == (version(0).id.hex(), False)


def test_a_new_version_is_used_and_there_after_a_restart(store: BundleStore) -> None:
    assert follow(store, version(1), 10).id == version(1).id
    follow(store, version(2), 11)
    store.close()
    again = opened(store.folder)
    assert again.begin().id == version(2).id
    assert again.state.previous == version(1).id.hex()
    assert sorted(path.name for path in store.folder.iterdir() if path.is_dir()) == sorted(
        version(n).id.hex() for n in (1, 2)
    )


def test_two_agents_do_not_share_a_folder(store: BundleStore) -> None:
    with pytest.raises(StorageError, match="another agent uses"):
        opened(store.folder)
    store.close()
    opened(store.folder).close()


def test_what_is_not_believed(store: BundleStore) -> None:
    follow(store, version(2), 10)
    stranger = Ed25519PrivateKey.generate()
    with pytest.raises(SignatureError, match="not by the trusted key"):
        store.judge(release(version(3), 11, key=stranger))
    with pytest.raises(RolloutError, match="left behind"):
        store.judge(release(version(1), 9))
    with pytest.raises(RolloutError, match="the release is of other"):
        store.judge(release(version(3, "other"), 11))
    newest = store.judge(release(version(3), 11))
    with pytest.raises(SignatureError, match="not by the trusted key"):
        store.unpack(newest, patch.make(signed(version(3), stranger)))
    with pytest.raises(BundleError, match="was sent; released is"):
        store.unpack(newest, patch.make(version(4)))
    with pytest.raises(BundleError, match="none is there"):
        store.unpack(newest, patch.make(version(3), version(1)))
    assert store.state.current == version(2).id.hex()


def test_an_unsigned_bundle(store: BundleStore) -> None:
    bare = Bundle.build(version(1).manifest, {n: version(1).read(n) for n in version(1).manifest.files})
    with pytest.raises(SignatureError, match="is not signed"):
        store.unpack(store.judge(release(bare, 1)), patch.make(bare))


def test_no_step_back_that_nobody_ordered(store: BundleStore) -> None:
    follow(store, version(2), 10)
    with pytest.raises(RolloutError, match="older than that of"):
        follow(store, version(1), 11)
    assert follow(store, version(1), 12, back=True).id == version(1).id
    assert not store.state.trial, "that bundle has proved itself"
    with pytest.raises(RolloutError, match="left behind"):
        store.judge(release(version(2), 10))


def test_back_to_the_factory_s_needs_no_file_and_no_signature(tmp_path: Path) -> None:
    store = opened(tmp_path / "bundles", tiny.bundle())
    follow(store, version(1), 1, whole=True)
    assert follow(store, tiny.bundle(), 2, back=True) is store.factory
    assert store.begin() is store.factory


def test_the_same_release_again_changes_nothing(store: BundleStore) -> None:
    follow(store, version(1), 5)
    again = store.judge(release(version(1), 5))
    assert store.follows(again)
    store.stay(store.judge(release(version(1), 6)))
    assert (store.state.serial, store.state.current) == (6, version(1).id.hex())


def test_a_refused_release_stays_refused(store: BundleStore) -> None:
    store.refuse(store.judge(release(version(1), 5)), "the golden input was wrong")
    with pytest.raises(RolloutError, match="the golden input was wrong"):
        store.judge(release(version(1), 5))
    assert follow(store, version(2), 6).id == version(2).id


def test_it_goes_back_by_itself(store: BundleStore) -> None:
    follow(store, version(1), 1)
    store.confirm()
    follow(store, version(2), 2)
    assert store.roll_back("no answers").id == version(1).id
    with pytest.raises(RolloutError, match="no answers"):
        store.judge(release(version(2), 2))
    assert follow(store, version(3), 3).id == version(3).id


def test_a_bundle_that_no_start_survives(store: BundleStore) -> None:
    follow(store, version(1), 1)
    for _ in range(MAX_STARTS):
        store.close()
        store = opened(store.folder)
        assert store.begin().id == version(1).id
    store.close()
    store = opened(store.folder)
    assert store.begin() is store.factory
    assert "without an answer" in store.state.refused


def test_a_confirmed_bundle_may_be_started_for_ever(store: BundleStore) -> None:
    follow(store, version(1), 1)
    store.confirm()
    for _ in range(MAX_STARTS + 2):
        assert store.begin().id == version(1).id


def test_a_bundle_that_rots_on_the_disk(store: BundleStore) -> None:
    follow(store, version(1), 1)
    follow(store, version(2), 2)
    store.confirm()
    (store.folder / version(2).id.hex() / "head_1.onnx").write_bytes(b"rot")
    store.close()
    again = opened(store.folder)
    assert again.begin().id == version(1).id
    (store.folder / version(1).id.hex() / "manifest.json").unlink()
    assert again.begin() is again.factory


def test_another_bundle_of_the_user_s_wins(store: BundleStore) -> None:
    follow(store, version(1), 7)
    store.close()
    again = opened(store.folder, version(3))
    assert again.begin() is again.factory
    assert again.state.serial == 7, "old releases stay old"


def test_a_state_that_somebody_edited(store: BundleStore, caplog: pytest.LogCaptureFixture) -> None:
    follow(store, version(1), 1)
    (store.folder / "state.json").write_text("{")
    store.close()
    assert opened(store.folder).begin().id == version(0).id
    assert "is damaged" in caplog.text


class _CutError(Exception):
    """The power is gone."""


def _cutting(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """From the ``at``-th change of the disk on nothing happens any more; how many there were."""
    calls = 0

    def wrap(owner: Any, name: str) -> None:  # noqa: ANN401 - a module or a class
        real = getattr(owner, name)

        def cut(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever it gives
            nonlocal calls
            calls += 1
            if calls > at:
                raise _CutError
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, cut)

    for owner, name in (
        *((Path, name) for name in ("mkdir", "write_bytes", "write_text", "rename", "unlink")),
        (os, "fsync"),
        (shutil, "rmtree"),
    ):
        wrap(owner, name)
    return lambda: calls


def _follow_until(folder: Path, step: int) -> int:
    """Follow a release in a copy of the folder, with the power gone from a step on; how many steps there were."""
    store = opened(folder)
    with pytest.MonkeyPatch.context() as patched:
        made = _cutting(patched, step)
        with suppress(_CutError):
            follow(store, version(2), 2)
    store.close()
    return made()


def test_a_power_cut_at_any_step_leaves_one_of_two_states(tmp_path: Path) -> None:
    start = opened(tmp_path / "start")
    follow(start, version(1), 1)
    start.confirm()
    start.close()
    shutil.copytree(start.folder, tmp_path / "whole")
    steps = _follow_until(tmp_path / "whole", 1 << 30)
    assert steps > 30
    # Of the files, which are written alike, every ninth; of the names around them each.
    for step in sorted({*range(3), *range(3, steps - 9, 9), *range(steps - 9, steps + 1)}):
        folder = tmp_path / f"cut{step}"
        shutil.copytree(start.folder, folder)
        _follow_until(folder, step)
        after = opened(folder)
        now = after.begin().id
        assert now in {version(1).id, version(2).id}
        assert not [path for path in folder.iterdir() if path.name.startswith("new-")]
        if now != version(2).id:
            follow(after, version(2), 2)  # offered again, it is followed
        after.close()


def test_a_file_that_was_cut_at_any_byte(store: BundleStore) -> None:
    """What the file system leaves of a folder that was never named is not looked at."""
    whole = version(1).save(store.folder / f"new-{version(1).id.hex()}")
    for path in whole.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (store.folder / "new-state.json").write_bytes(json.dumps({"factory": ""}).encode()[:9])
    store.close()
    again = opened(store.folder)
    assert again.begin().id == version(0).id
    assert follow(again, version(1), 1).id == version(1).id


def test_a_full_disk_changes_nothing(store: BundleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Bundle, __: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Bundle, "save", full)
        with pytest.raises(HeadwaterError, match="No space left on device"):
            follow(store, version(1), 1)
    assert store.begin().id == version(0).id
    assert follow(store, version(1), 1).id == version(1).id


def test_a_disk_that_is_full_keeps_no_bad_bundle_in_use(store: BundleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    follow(store, version(1), 1)

    def full(_: Path, __: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert store.roll_back("it does not run") is store.factory
    assert store.state.current == version(0).id.hex()
