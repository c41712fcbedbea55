"""Whose releases a device believes: kept on its disk, and never a step back."""

import dataclasses
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from headwater.compression.errors import RolloutError, SignatureError, StorageError
from headwater.compression.release import Release, Signer
from headwater.compression.trust import KeyList
from headwater.device.rollout.trusting import TRUSTED, Trusting, day, write_whole
from tests.versions import KEY, PUBLIC, SIGNER, signed, version

OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
LISTS = KeyList(1, 1 << 40, (PUBLIC,), (OTHER.public_key(),)).signed(KEY)


def test_lists_are_kept(tmp_path: Path) -> None:
    trusting = Trusting(tmp_path, PUBLIC)
    assert trusting.hear(SIGNER.release(1, version(1))).serial == 1
    assert not (tmp_path / TRUSTED).exists(), "there is nothing to keep yet"
    assert trusting.hear(Signer(OTHER, LISTS).release(2, version(1))).serial == 2
    assert (tmp_path / TRUSTED).read_bytes() == LISTS
    again = Trusting(tmp_path, PUBLIC)
    with pytest.raises(SignatureError, match="not by the trusted key"):
        again.hear(SIGNER.release(3, version(1)))
    again.check_bundle(signed(version(1), OTHER))
    with pytest.raises(SignatureError, match="not by the trusted key"):
        again.check_bundle(version(1))


def test_another_anchor_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Trusting(tmp_path, PUBLIC).hear(Signer(OTHER, LISTS).release(2, version(1)))
    trusting = Trusting(tmp_path, OTHER.public_key())
    assert "does not follow from the key that was given" in caplog.text
    assert trusting.trust.newest.number == 0


def test_a_damaged_file_brings_back_the_anchor_alone(tmp_path: Path) -> None:
    (tmp_path / TRUSTED).write_bytes(LISTS[:-1])
    assert Trusting(tmp_path, PUBLIC).trust.newest.number == 0


def test_what_cannot_be_kept_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusting = Trusting(tmp_path, PUBLIC)

    def full(_: Path, __: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="No space left on device"):
        trusting.hear(Signer(OTHER, LISTS).release(2, version(1)))
    assert trusting.trust.newest.number == 0, "else a restart would bring the old keys back"


@pytest.mark.parametrize(
    ("clock", "shown", "ended"), [(999, 0, False), (1000, 0, True), (0, 999, False), (0, 1000, True), (5000, 0, True)]
)
def test_time_is_what_clock_or_releases_show(tmp_path: Path, clock: float, shown: int, *, ended: bool) -> None:
    release = Release.read(SIGNER.release(7, version(1)), PUBLIC)
    release = dataclasses.replace(release, issued=500, expires=1000)
    trusting = Trusting(tmp_path, PUBLIC, lambda: clock)
    if not ended:
        trusting.check_time(release, shown)
        return
    with pytest.raises(RolloutError, match="release 7 ended at 1970-01-01 00:16 UTC"):
        trusting.check_time(release, shown)


def test_a_release_is_never_held_against_a_time_before_it_was_signed(tmp_path: Path) -> None:
    release = Release.read(SIGNER.release(7, version(1)), PUBLIC)
    Trusting(tmp_path, PUBLIC, lambda: 0.0).check_time(release, 0)
    odd = dataclasses.replace(release, expires=release.issued)
    with pytest.raises(RolloutError, match="release 7 ended"):
        Trusting(tmp_path, PUBLIC, lambda: 0.0).check_time(odd, 0)


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        write_whole(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_any_time_can_be_said() -> None:
    assert day(0) == "1970-01-01 00:00 UTC"
    assert day(1 << 62) == "9999-12-31 23:59 UTC"
    assert day(time.time())
