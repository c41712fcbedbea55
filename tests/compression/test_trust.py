"""Lists of keys: who may follow whom, and what nobody can slip in."""

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from headwater.compression.errors import SignatureError
from headwater.compression.signature import key_id
from headwater.compression.trust import MOST_LISTS, KeyList, Trust, describe, read_chain

FAR = 1 << 40


def private(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


ANCHOR, DRAWER, DESK, NEXT, STRANGER = map(private, range(1, 6))
TRUST = Trust.anchored(ANCHOR.public_key())


def listed(number: int, root: Ed25519PrivateKey, release: Ed25519PrivateKey, *signers: Ed25519PrivateKey) -> bytes:
    return KeyList(number, FAR, (root.public_key(),), (release.public_key(),)).signed(*signers)


FIRST = listed(1, DRAWER, DESK, ANCHOR, DRAWER)
SECOND = listed(2, DRAWER, NEXT, DRAWER)


def ids(trust: Trust) -> tuple[list[bytes], list[bytes]]:
    return [key_id(key) for key in trust.newest.root], [key_id(key) for key in trust.newest.release]


def test_an_anchor_is_both_at_first() -> None:
    own = [key_id(ANCHOR.public_key())]
    assert ids(TRUST) == (own, own)
    assert TRUST.following(b"") is TRUST


def test_each_list_follows_the_one_before() -> None:
    trust = TRUST.following(FIRST + SECOND)
    assert ids(trust) == ([key_id(DRAWER.public_key())], [key_id(NEXT.public_key())])
    assert (trust.newest.number, trust.chain) == (2, FIRST + SECOND)
    assert TRUST.following(FIRST).following(FIRST + SECOND) == trust, "what is known need not be new"
    assert trust.following(FIRST) == trust, "an older release comes with fewer lists"


def test_the_bytes_are_as_the_page_says() -> None:
    assert FIRST[:18].hex() == "48574b01" + "00000001" + "0000010000000000" + "0101"
    assert FIRST[18:50] == DRAWER.public_key().public_bytes_raw()
    assert FIRST[50:82] == DESK.public_key().public_bytes_raw()
    assert FIRST[82] == 2
    assert len(FIRST) == 83 + 2 * 76


@pytest.mark.parametrize(
    ("chain", "text"),
    [
        (listed(1, STRANGER, STRANGER, STRANGER), "signed by no root key of list 0"),
        (listed(1, DRAWER, DESK, ANCHOR), "signed by no root key of its own"),
        (listed(1, DRAWER, DESK, DRAWER), "signed by no root key of list 0"),
        (SECOND, "list 2 of keys came after 0"),
        (FIRST + listed(2, DRAWER, STRANGER, ANCHOR), "signed by no root key of list 1"),
        (FIRST + listed(2, DRAWER, STRANGER, DESK), "signed by no root key of list 1"),
        (FIRST + FIRST, "list 1 of keys came after 1"),
        (FIRST + listed(3, DRAWER, NEXT, DRAWER), "list 3 of keys came after 1"),
        (listed(0, ANCHOR, ANCHOR, ANCHOR), "another one than was heard"),
    ],
)
def test_what_follows_nothing(chain: bytes, text: str) -> None:
    with pytest.raises(SignatureError, match=text):
        TRUST.following(chain)


def test_another_list_of_a_number_that_was_heard_is_refused() -> None:
    trust = TRUST.following(FIRST)
    fork = listed(1, STRANGER, STRANGER, ANCHOR, STRANGER)  # by who stole the anchor, later
    with pytest.raises(SignatureError, match="a root key is in two hands"):
        trust.following(fork + listed(2, STRANGER, STRANGER, STRANGER))


def test_signatures_that_nobody_asked_for_change_nothing() -> None:
    statement = KeyList(1, FAR, (DRAWER.public_key(),), (DESK.public_key(),))
    padded = statement.signed(STRANGER, ANCHOR, STRANGER, DRAWER)
    trust = TRUST.following(padded)
    assert trust.following(FIRST + SECOND).newest.number == 2


def test_every_changed_or_missing_byte_is_noticed() -> None:
    chain = FIRST + SECOND
    ends = {0, len(FIRST)}  # whole lists
    for at in range(len(chain)):
        changed = chain[:at] + bytes([chain[at] ^ 1]) + chain[at + 1 :]
        with pytest.raises(SignatureError):
            TRUST.following(changed)
        if at not in ends:
            with pytest.raises(SignatureError):
                TRUST.following(chain[:at])


@given(st.binary(max_size=400))
def test_any_bytes_are_lists_or_an_error(data: bytes) -> None:
    for start in (b"", b"HWK\x01"):
        try:
            chain, rest = read_chain(start + data)
        except SignatureError:
            continue
        assert chain + rest == start + data


def test_lists_end_where_something_else_begins() -> None:
    assert read_chain(FIRST + SECOND + b"HWR\x02...") == (FIRST + SECOND, b"HWR\x02...")
    assert read_chain(b"") == (b"", b"")
    with pytest.raises(SignatureError, match="too many"):
        read_chain(FIRST * 1000)


def test_the_number_of_lists_is_bounded() -> None:
    last = KeyList(MOST_LISTS, FAR, (DRAWER.public_key(),), (DESK.public_key(),))
    trust = Trust((*(dataclasses.replace(last, number=number) for number in range(MOST_LISTS + 1)),))
    with pytest.raises(SignatureError, match="give the devices a new anchor"):
        trust.following(listed(MOST_LISTS + 1, DRAWER, DESK, DRAWER))


def test_the_publisher_s_view_needs_no_anchor() -> None:
    assert [one.number for one in describe(FIRST + SECOND)] == [1, 2]
    assert describe(b"") == ()
    with pytest.raises(SignatureError, match="came after 0"):
        describe(SECOND)
    with pytest.raises(SignatureError, match="are no list of keys"):
        describe(b"rubbish")
