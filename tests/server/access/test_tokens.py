"""Enrolment tokens: one use, a quarter of an hour, and nothing of them on the disk."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from headwater.compression.errors import IdentityError
from headwater.server.access import tokens
from headwater.server.access.authority import Authority
from headwater.server.access.caller import read
from headwater.server.access.register import Register, Standing
from headwater.server.access.tokens import TokenError
from tests.server.access import material

NOW = 1_900_000_000.0


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register.open(tmp_path)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path)


def spend(
    register: Register, authority: Authority, secret: bytes, name: str = "cam", request: bytes = b"", late_s: float = 0
) -> tuple[str, bytes]:
    issued = tokens.spend(register, authority, secret, request or material.request(), name, 30, NOW + late_s)
    return issued.device, issued.pem


def another_request() -> bytes:
    return material.request(ec.generate_private_key(ec.SECP256R1()))


def test_a_token_enrols_a_device_under_the_name_that_it_brings(register: Register, authority: Authority) -> None:
    name, pem = spend(register, authority, tokens.mint(register, now=NOW))
    assert name == "cam"
    assert register.admit(read(pem), NOW).standing is Standing.IN_FORCE


def test_the_token_s_own_name_goes_first(register: Register, authority: Authority) -> None:
    name, pem = spend(register, authority, tokens.mint(register, "pole-7", NOW), "raspberrypi")
    assert name == read(pem).device == "pole-7"


def test_only_a_hash_of_it_is_on_the_disk(tmp_path: Path, authority: Authority) -> None:
    with Register.open(tmp_path) as register:
        secret = tokens.mint(register, now=NOW)
        spend(register, authority, secret)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert secret not in written
    assert secret.hex().encode() not in written


def refused(register: Register, authority: Authority, secret: bytes, late_s: float = 0) -> str:
    with pytest.raises(TokenError) as caught:
        spend(register, authority, secret, "other", another_request(), late_s)
    return caught.value.reason


def test_it_is_good_for_one_device(register: Register, authority: Authority) -> None:
    secret = tokens.mint(register, now=NOW)
    spend(register, authority, secret)
    assert refused(register, authority, secret) == "used_token"
    assert not register.has("other")


def test_it_is_good_for_a_quarter_of_an_hour(register: Register, authority: Authority) -> None:
    first, second = tokens.mint(register, now=NOW), tokens.mint(register, now=NOW)
    spend(register, authority, first, late_s=899)
    assert refused(register, authority, second, late_s=900) == "expired_token"


def test_a_wrong_one_is_refused(register: Register, authority: Authority) -> None:
    secret = tokens.mint(register, now=NOW)
    for wrong in (b"", bytes(16), secret[:-1], secret[:-1] + bytes([secret[-1] ^ 1])):
        assert refused(register, authority, wrong) == "wrong_token"


def test_who_lost_the_answer_gets_the_same_certificate_again(register: Register, authority: Authority) -> None:
    secret = tokens.mint(register, now=NOW)
    first = spend(register, authority, secret)
    assert spend(register, authority, secret, late_s=2000) == first
    assert len(register.entries(NOW)) == 1
    register.admit(read(first[1]), NOW)
    with pytest.raises(TokenError, match="used already"):
        spend(register, authority, secret)


def test_a_bad_request_or_name_does_not_spend_it(register: Register, authority: Authority) -> None:
    secret = tokens.mint(register, now=NOW)
    for request, name in ((b"nonsense", "cam"), (b"", "a b"), (b"", "")):
        with pytest.raises(IdentityError):
            spend(register, authority, secret, name, request)
    assert spend(register, authority, secret)[0] == "cam"


def test_a_name_that_is_taken_needs_a_token_that_says_so(register: Register, authority: Authority) -> None:
    _, old = spend(register, authority, tokens.mint(register, now=NOW))
    with pytest.raises(IdentityError, match="already"):
        spend(register, authority, tokens.mint(register, now=NOW), "cam", another_request())
    _, new = spend(register, authority, tokens.mint(register, "cam", NOW), "x", another_request())
    assert register.look_up(read(old), NOW).standing is Standing.REPLACED
    assert register.look_up(read(new), NOW).standing is Standing.IN_FORCE


def test_revoking_a_device_withdraws_the_tokens_made_for_it(register: Register, authority: Authority) -> None:
    spend(register, authority, tokens.mint(register, now=NOW))
    secret = tokens.mint(register, "cam", NOW)
    register.revoke("cam", NOW)
    assert refused(register, authority, secret) == "wrong_token"


def test_old_tokens_are_forgotten(register: Register, authority: Authority) -> None:
    secret = tokens.mint(register, now=NOW)
    tokens.mint(register, now=NOW + 2 * 86400)
    assert refused(register, authority, secret, late_s=2 * 86400) == "wrong_token"


def test_of_many_who_come_at_once_with_a_token_one_gets_in(tmp_path: Path, authority: Authority) -> None:
    with Register.open(tmp_path) as register:
        secret = tokens.mint(register, now=NOW)
    start = threading.Barrier(6)

    def come(number: int) -> str:
        with Register.open(tmp_path) as own:
            request = another_request()
            start.wait()
            try:
                return spend(own, authority, secret, f"cam-{number}", request)[0]
            except TokenError as error:
                return error.reason

    with ThreadPoolExecutor(6) as pool:
        results = sorted(pool.map(come, range(6)))
    assert results[1:] == ["used_token"] * 5
    with Register.open(tmp_path) as register:
        assert [entry.name for entry in register.entries(NOW)] == results[:1]
