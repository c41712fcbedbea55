"""Identities on the device's disk, and which one is shown where."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from cryptography import x509

from headwater.compression.errors import IdentityError
from headwater.device.access.identity import Identities, Identity, is_here
from headwater.device.access.keys import check_certified, make_key, signing_request
from headwater.server.access.authority import Authority


def identity(folder: Path, *servers: str, name: str = "cam", days: float = 30) -> Identity:
    """One of an authority of its own, for each folder."""
    authority, key = Authority.open(folder), make_key()
    issued = authority.sign_device(signing_request(key), name, days)
    return Identity(name, servers, 0.0, authority.pem.decode(), issued.pem.decode(), key)


@pytest.fixture
def identities(tmp_path: Path) -> Identities:
    return Identities.under(tmp_path / "device")


def test_what_is_saved_is_read_again_and_is_private(tmp_path: Path, identities: Identities) -> None:
    one = identity(tmp_path, "edge:50051")
    identities.save(one)
    assert identities.all() == [one]
    (file,) = identities.folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(identities.folder.stat().st_mode) == 0o700
    assert "PRIVATE" not in repr(one)
    assert one.expires == x509.load_pem_x509_certificate(one.certificate.encode()).not_valid_after_utc


def test_the_same_authority_s_identity_is_replaced(tmp_path: Path, identities: Identities) -> None:
    identities.save(identity(tmp_path, "edge:50051", name="old"))
    identities.save(identity(tmp_path, "edge:50051", name="new"))
    identities.save(identity(tmp_path / "other", "far:50051"))
    assert sorted(one.device for one in identities.all()) == ["cam", "new"]


def test_a_new_enrolment_takes_its_addresses_from_the_authorities_that_stood_there(
    tmp_path: Path, identities: Identities
) -> None:
    folders = ("first", "second", "third", "fourth")  # by pins at random: none comes last by its name each time
    made = [identity(tmp_path / folder, "edge:50051", f"{folder}:50051", name=folder) for folder in folders]
    for one in made:
        identities.take_over(one)
        shown = identities.of("edge:50051")
        assert shown is not None
        assert shown.device == one.device
    assert {one.device: one.servers for one in identities.all()} == {
        **{folder: (f"{folder}:50051",) for folder in folders[:-1]},
        "fourth": ("edge:50051", "fourth:50051"),
    }
    identities.take_over(identity(tmp_path / "last", "second:50051"))
    assert sorted(one.device for one in identities.all()) == ["cam", "first", "fourth", "third"]


def test_the_only_identity_is_shown_to_every_server_but_those_of_this_machine(
    tmp_path: Path, identities: Identities
) -> None:
    one = identity(tmp_path, "edge:50051")
    identities.save(one)
    assert identities.of("edge:50051") == identities.of("10.1.2.3:4") == one
    for server in ("127.0.0.1:50051", "localhost:1", "[::1]:50051", "unix:/run/edge"):
        assert identities.of(server) is None
    assert (identities.name_at("edge:50051"), identities.name_at("localhost:1")) == ("cam", "")


def test_of_several_identities_the_address_says_which(tmp_path: Path, identities: Identities) -> None:
    near, far = identity(tmp_path, "near:1", "127.0.0.1:1"), identity(tmp_path / "far", "far:1", name="other")
    identities.save(near)
    identities.save(far)
    assert identities.of("near:1") == identities.of("127.0.0.1:1") == near
    assert identities.of("far:1") == far
    assert identities.of("127.0.0.1:2") is None
    with pytest.raises(IdentityError, match="2 identities, none for that address"):
        identities.of("third:1")


def test_a_server_elsewhere_needs_an_enrolment(identities: Identities) -> None:
    with pytest.raises(IdentityError, match="headwater device enroll --server edge:50051"):
        identities.channel("edge:50051")
    assert identities.all() == []


def test_the_user_s_own_folder_stands_in_for_a_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Identities.under(None).folder == tmp_path / "headwater/identity"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Identities.under(None).folder == tmp_path / ".local/state/headwater/identity"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"device": "cam"}', '{"servers": []}'])
def test_a_damaged_file_says_what_to_do(identities: Identities, text: str) -> None:
    identities.folder.mkdir(parents=True)
    path = identities.folder / "0123.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(IdentityError, match="enrol the device again"):
        identities.all()


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path, identities: Identities) -> None:
    identities.save(identity(tmp_path, "edge:50051"))
    (path,) = identities.folder.iterdir()
    path.chmod(0o644)
    with pytest.raises(IdentityError, match="chmod 600"):
        identities.of("edge:50051")


async def test_a_certificate_whose_time_is_over_is_said_once(
    tmp_path: Path, identities: Identities, caplog: pytest.LogCaptureFixture
) -> None:
    old = identity(tmp_path, "127.0.0.1:1", days=-1)
    identities.save(old)
    for _ in range(3):
        async with identities.channel("127.0.0.1:1"):
            pass
    assert [record.message.count("expired on") for record in caplog.records] == [1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_enrols_belongs_to_whom_the_state_belongs(tmp_path: Path, identities: Identities) -> None:
    identities.folder.parent.mkdir()
    os.chown(identities.folder.parent, 1234, 1235)
    identities.save(identity(tmp_path, "edge:50051"))
    (path,) = identities.folder.iterdir()
    assert {(one.stat().st_uid, one.stat().st_gid) for one in (path, identities.folder)} == {(1234, 1235)}


def test_one_process_at_a_time_changes_identities(identities: Identities) -> None:
    with identities.alone() as first, identities.alone() as second:
        assert (first, second) == (True, False)
    with identities.alone() as third:
        assert third


def test_half_a_file_is_never_seen(tmp_path: Path, identities: Identities, monkeypatch: pytest.MonkeyPatch) -> None:
    identities.save(identity(tmp_path, "edge:50051"))
    before = identities.all()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IdentityError, match="No space left"):
        identities.save(identity(tmp_path, "edge:50051", name="new"))
    assert identities.all() == before
    assert len(list(identities.folder.iterdir())) == 1


def test_a_certificate_is_held_against_key_and_authority(tmp_path: Path) -> None:
    one, other = identity(tmp_path, "a:1"), identity(tmp_path / "other", "b:1")
    good = one.certificate.encode()
    assert check_certified(good, one.key, one.authority) == one.certificate
    with pytest.raises(IdentityError, match="another key"):
        check_certified(good, make_key(), one.authority)
    with pytest.raises(IdentityError, match="no certificate of its authority"):
        check_certified(good, one.key, other.authority)
    for bad in (b"", b"nonsense"):
        with pytest.raises(IdentityError, match="no certificate of its authority"):
            check_certified(bad, one.key, one.authority)


@pytest.mark.parametrize(
    ("server", "here"),
    [("127.0.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("unix:x", True), ("10.0.0.1:1", False)],
)
def test_is_here(server: str, *, here: bool) -> None:
    assert is_here(server) is here


def test_the_file_is_plain_json(tmp_path: Path, identities: Identities) -> None:
    identities.save(identity(tmp_path, "edge:50051"))
    (path,) = identities.folder.iterdir()
    assert set(json.loads(path.read_text())) == {"device", "servers", "renew", "authority", "certificate", "key"}
