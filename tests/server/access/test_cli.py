"""``headwater server devices``: what operators type, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from headwater.compression.enrolment import Token
from headwater.compression.errors import IdentityError, SettingsError
from headwater.server.access import tokens
from headwater.server.access.access import ENROL_PORT, FRAMES_PORT
from headwater.server.access.authority import Authority
from headwater.server.access.cli import devices_app
from headwater.server.access.register import Register
from tests.server.access import material


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """That of a server which has run."""
    with Register.open(tmp_path) as register:
        register.note(ENROL_PORT, "50052")
    return tmp_path


def devices(*words: str) -> Result:
    return CliRunner().invoke(devices_app, words, catch_exceptions=False, env={"COLUMNS": "100", "TERM": "dumb"})


def enrolled(state: Path, *names: str) -> None:
    with Register.open(state) as register:
        for name in names:
            material.enrolled(register, Authority.open(state), name)


def test_a_token_is_printed_alone_and_works(state: Path) -> None:
    done = devices("token", "--name", "pole-7", "--state", str(state))
    token = Token.read(done.stdout)
    assert done.stdout == token.text() + "\n"
    assert "once, for 15 minutes" in done.stderr
    authority = Authority.open(state)
    assert (token.port, token.pin) == (50052, authority.pin)
    with Register.open(state) as register:
        assert tokens.spend(register, authority, token.secret, material.request(), "x", 1).device == "pole-7"


def test_a_server_at_another_port_is_told_with_it(state: Path) -> None:
    assert devices("token", "--state", str(state)).stderr.endswith("headwater device enroll --server HOST\n")
    with Register.open(state) as register:
        register.note(FRAMES_PORT, "7000")
    assert devices("token", "--state", str(state)).stderr.endswith("headwater device enroll --server HOST:7000\n")


def test_the_port_may_be_another_where_it_is_forwarded(state: Path) -> None:
    assert Token.read(devices("token", "--port", "443", "--state", str(state)).stdout).port == 443


def test_a_token_for_a_server_that_never_ran_needs_the_port(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--port"):
        devices("token", "--state", str(tmp_path))
    assert Token.read(devices("token", "--port", "1", "--state", str(tmp_path)).stdout).port == 1


def test_devices_are_listed_renamed_and_revoked(state: Path) -> None:
    enrolled(state, "cam", "dam")
    assert "cam is pole-7 now" in devices("rename", "cam", "pole-7", "--state", str(state)).stdout
    assert "dam is revoked" in devices("revoke", "dam", "--state", str(state)).stdout
    assert "no certificate in force" in devices("revoke", "dam", "--state", str(state)).stdout
    lines = [json.loads(line) for line in devices("ls", "--json", "--state", str(state)).stdout.splitlines()]
    assert [(line["name"], line["standing"]) for line in lines] == [("dam", "revoked"), ("pole-7", "in_force")]
    table = devices("ls", "--state", str(state)).stdout
    assert "pole-7" in table
    assert "in force" in table
    assert "never" in table


@pytest.mark.parametrize("words", [("revoke", "nobody"), ("rename", "nobody", "x")])
def test_a_device_that_is_not_there_is_an_error(state: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(IdentityError, match="no device nobody"):
        devices(*words, "--state", str(state))


@pytest.mark.parametrize("words", [("token",), ("ls",), ("revoke", "x"), ("rename", "x", "y")])
def test_the_state_has_to_be_named(words: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="--state"):
        devices(*words)
