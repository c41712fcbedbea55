"""The register: which certificates are in force, across renewal, revocation, renaming and restarts."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headwater.compression.errors import IdentityError, StorageError
from headwater.server.access.authority import Authority, Issued
from headwater.server.access.caller import Caller
from headwater.server.access.register import Member, Register, Standing
from tests.server.access import material

T0 = datetime(2030, 1, 1, tzinfo=UTC)
NOW = T0.timestamp()


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register.open(tmp_path)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path)


def enrolled(register: Register, authority: Authority, name: str = "cam", at: float = 0.0) -> Issued:
    """Take in a certificate that was signed so many days after T0, and is valid for 30."""
    issued = material.member(authority, name, 30, T0 + timedelta(days=at)).issued
    with register.change():
        if not register.has(name):
            register.enter(name, NOW)
        register.add(issued)
    return issued


def caller(issued: Issued) -> Caller:
    return Caller(issued.device, issued.serial)


def standing(register: Register, issued: Issued, days: float = 1.0) -> Standing:
    return register.look_up(caller(issued), NOW + days * 86400).standing


def test_a_certificate_is_in_force_until_it_expires(register: Register, authority: Authority) -> None:
    issued = enrolled(register, authority)
    assert register.look_up(caller(issued), NOW) == Member(Standing.IN_FORCE, "cam")
    assert standing(register, issued, 29.99) is Standing.IN_FORCE
    assert standing(register, issued, 30) is Standing.EXPIRED


def test_a_certificate_of_the_authority_that_is_not_in_the_register_is_unknown(
    register: Register, authority: Authority
) -> None:
    enrolled(register, authority)
    assert standing(register, material.member(authority).issued) is Standing.UNKNOWN


def test_a_serial_under_another_name_is_unknown(register: Register, authority: Authority) -> None:
    issued = enrolled(register, authority)
    assert register.look_up(Caller("other", issued.serial), NOW).standing is Standing.UNKNOWN


def test_the_old_certificate_ends_with_the_first_use_of_the_new(register: Register, authority: Authority) -> None:
    old = enrolled(register, authority)
    assert register.admit(caller(old), NOW).standing is Standing.IN_FORCE
    new = enrolled(register, authority, at=20)
    assert standing(register, old, 20) is Standing.IN_FORCE, "the new one may have been lost on the way"
    register.admit(caller(new), NOW + 20 * 86400)
    assert standing(register, old, 20) is Standing.RENEWED
    assert standing(register, new, 20) is Standing.IN_FORCE


def test_an_answer_that_was_lost_locks_nobody_out(register: Register, authority: Authority) -> None:
    first = enrolled(register, authority)
    register.admit(caller(first), NOW)
    lost, second = enrolled(register, authority, at=10), enrolled(register, authority, at=11)
    assert standing(register, lost, 11) is Standing.RENEWED, "one that was not used is worth nothing beside a later one"
    register.admit(caller(first), NOW + 11 * 86400)
    register.admit(caller(second), NOW + 11 * 86400)
    assert standing(register, first, 11) is Standing.RENEWED
    assert standing(register, second, 11) is Standing.IN_FORCE


def test_a_newer_certificate_that_is_not_used_yet_survives_the_use_of_an_older_one(
    register: Register, authority: Authority
) -> None:
    first = enrolled(register, authority)
    register.admit(caller(first), NOW)
    second = enrolled(register, authority, at=1)
    register.admit(caller(first), NOW + 86400)
    assert standing(register, second) is Standing.IN_FORCE


def test_revoking_ends_all_that_a_device_has_and_nothing_else(register: Register, authority: Authority) -> None:
    old = enrolled(register, authority)
    register.admit(caller(old), NOW)
    new = enrolled(register, authority, at=1)
    other = enrolled(register, authority, "other")
    assert register.revoke("cam", NOW + 86400) == 2
    assert {standing(register, old), standing(register, new)} == {Standing.REVOKED}
    assert standing(register, other) is Standing.IN_FORCE
    assert register.revoke("cam", NOW + 86400) == 0
    assert register.admit(caller(new), NOW + 86400).standing is Standing.REVOKED


def test_enrolling_again_replaces_what_there_was(register: Register, authority: Authority) -> None:
    old = enrolled(register, authority)
    with register.change():
        register.enter("cam", NOW)
    new = enrolled(register, authority, at=1)
    assert standing(register, old) is Standing.REPLACED
    assert standing(register, new) is Standing.IN_FORCE


def test_a_renamed_device_keeps_its_certificate_and_is_called_otherwise(
    register: Register, authority: Authority
) -> None:
    issued = enrolled(register, authority)
    enrolled(register, authority, "taken")
    register.rename("cam", "pole-7")
    assert register.look_up(caller(issued), NOW) == Member(Standing.IN_FORCE, "pole-7")
    assert [entry.name for entry in register.entries(NOW)] == ["pole-7", "taken"]
    for old, new, why in (("cam", "x", "no device cam"), ("pole-7", "taken", "already"), ("pole-7", "a b", "no name")):
        with pytest.raises(IdentityError, match=why):
            register.rename(old, new)


def test_the_list_shows_the_newest_certificate_in_use(register: Register, authority: Authority) -> None:
    issued = enrolled(register, authority)
    register.admit(caller(issued), NOW)
    enrolled(register, authority, at=1)
    register.admit(caller(issued), NOW + 5)
    assert [entry.seen for entry in register.entries(NOW)] == [NOW], "written down now and then only"
    register.flush()
    (entry,) = register.entries(NOW)
    assert (entry.name, entry.seen, entry.serial) == ("cam", NOW + 5, issued.serial)
    assert (entry.issued, entry.expires, entry.standing) == (NOW, NOW + 30 * 86400, Standing.IN_FORCE)
    assert entry.fingerprint == issued.fingerprint
    began = time.time()
    register.flush(["cam", "nobody"])
    (entry,) = register.entries(NOW)
    assert entry.seen is not None
    assert entry.seen >= began


def test_what_one_process_ends_another_sees_at_its_next_look(tmp_path: Path, authority: Authority) -> None:
    with Register.open(tmp_path) as server, Register.open(tmp_path) as command:
        issued = enrolled(server, authority)
        command.revoke("cam", NOW)
        assert standing(server, issued) is Standing.REVOKED


def test_it_outlives_the_process(tmp_path: Path, authority: Authority) -> None:
    with Register.open(tmp_path) as first:
        issued = enrolled(first, authority)
        first.note("port", "50052")
    with Register.open(tmp_path) as second:
        assert standing(second, issued) is Standing.IN_FORCE
        assert (second.fact("port"), second.fact("other")) == ("50052", None)


def test_another_database_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "access").mkdir()
    (tmp_path / "access/devices.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match="backup"):
        Register.open(tmp_path)
