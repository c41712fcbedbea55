"""Tokens as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.compression.enrolment import Token, check_name
from headwater.compression.errors import IdentityError

tokens = st.builds(
    Token,
    st.integers(0, 65535),
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
)


@given(tokens)
def test_a_token_survives_being_carried(token: Token) -> None:
    text = token.text()
    assert len(text) == 68
    assert text.isascii()
    assert not set(text) & set("+/= \n")
    assert Token.read(f" {text}\n") == token


@given(st.text() | tokens.map(lambda token: token.text()[:-4]) | tokens.map(lambda token: "B" + token.text()[1:]))
def test_anything_else_is_refused_without_being_repeated(text: str) -> None:
    try:
        Token.read(text)
    except IdentityError as error:
        assert len(text) < 8 or text not in str(error)  # noqa: PT017 - most texts are no tokens, and any may be one
    else:
        assert Token.read(text).text() == text.strip()


def test_the_secret_does_not_show_in_a_log_of_the_token() -> None:
    token = Token(1, bytes(32), b"sixteen bytes!!!")
    assert "sixteen" not in repr(token)


@pytest.mark.parametrize("name", ["a", "pole-7", "raspberrypi", "cam_1.north", "x" * 63, "7"])
def test_names_of_devices(name: str) -> None:
    assert check_name(name) == name
