"""The coder's inside: its arithmetic in Python, and the C file bit for bit against it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.compression import _rans
from headwater.compression.rans import LOW, Lane, Slots, Table
from tests.compression.priors import laplace_prior, random_prior

TABLE = Table(-1, 1, (100, 65000, 400, 36))


def test_slots_go_to_the_likeliest_first() -> None:
    assert TABLE.order == [1, 2, 0, 3]
    assert TABLE.slots == {1: Slots(0, 65000), 2: Slots(65000, 400), 0: Slots(65400, 100), 3: Slots(65500, 36)}


def test_equal_frequencies_are_ordered_by_symbol() -> None:
    assert Table(0, 2, (16384, 16384, 16384, 16384)).order == [0, 1, 2, 3]


def test_a_push_by_hand() -> None:
    lane = Lane(1000, [])
    lane.push_symbol(TABLE, 1)
    assert lane.state == (1000 // 400) * 65536 + 65000 + 1000 % 400
    assert lane.pull_symbol(TABLE) == 1
    assert lane.state == 1000


def test_the_likeliest_symbol_leaves_an_empty_state_empty() -> None:
    lane = Lane(0, [])
    for _ in range(1000):
        lane.push_symbol(TABLE, 0)
    assert (lane.state, lane.words) == (0, [])


@given(st.lists(st.integers(-(2**15), 2**15 - 1), max_size=200), st.sampled_from([0, LOW]))
def test_what_is_pushed_is_pulled_in_reverse(symbols: list[int], start: int) -> None:
    lane = Lane(start, [])
    for symbol in symbols:
        lane.push_symbol(TABLE, symbol)
        assert 0 <= lane.state < 1 << 63
    assert [lane.pull_symbol(TABLE) for _ in symbols] == symbols[::-1]
    assert (lane.state, lane.words) == (start, [])


@pytest.mark.parametrize(("symbol", "distance"), [(2, 0), (-2, 1), (3, 2), (-3, 3), (32767, 65530), (-32768, 65533)])
def test_an_escape_holds_the_distance_to_the_table(symbol: int, distance: int) -> None:
    lane = Lane(0, [])
    lane.push_symbol(TABLE, symbol)
    assert lane.pull(TABLE) == TABLE.escape
    assert lane.pull_raw(5) == distance.bit_length()
    if distance > 1:
        assert lane.pull_raw(distance.bit_length() - 1) == distance - (1 << (distance.bit_length() - 1))
    assert (lane.state, lane.words) == (0, [])


def _reciprocal(frequency: int) -> tuple[int, int]:
    """The multiplier and shift of _rans_tables.c."""
    shift = 0
    while 2 << shift < frequency:
        shift += 1
    return -(-(1 << (64 + shift)) // frequency), shift


def test_the_reciprocal_divides_every_state_exactly() -> None:
    """floor(x * r / 2^(64 + s)) = floor(x / f) if r exceeds 2^(64 + s) / f by less than 2^(64 + s) / (f * 2^63)."""
    for frequency in range(2, 65536):
        reciprocal, shift = _reciprocal(frequency)
        excess = reciprocal - Fraction(1 << (64 + shift), frequency)
        assert 0 <= excess < Fraction(1 << (1 + shift), frequency)
        assert reciprocal < 1 << 64


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_c_and_python_agree_on_every_byte(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prior = random_prior(rng)
    ours, reference = prior.coder("c"), prior.coder("python")
    for mode, channels in enumerate(prior.tables.mode_channels):
        symbols = prior.draw(rng, mode)
        encoded = ours.encode(symbols, mode)
        assert encoded == reference.encode(symbols, mode)
        for groups, end in enumerate(encoded.group_ends, start=1):
            want = symbols[: prior.tables.channels_of(mode, groups)]
            for payload in (encoded.payload, encoded.payload[:end]):
                assert np.array_equal(ours.decode(payload, mode, groups), want)
                assert np.array_equal(reference.decode(payload, mode, groups), want)
        assert symbols.shape[0] == channels


@pytest.mark.parametrize("lanes", [1, 2])
def test_every_frequency_is_coded_alike(lanes: int) -> None:
    """A symbol of each frequency from 1 to 360 in one table, some states past every limit."""
    from headwater.compression.tables import PriorTables

    frequencies = np.append(np.arange(1, 361), 65536 - 360 * 361 // 2)
    arrays = laplace_prior([1.0], 19, 20, [1], lanes=lanes).tables.arrays()
    arrays |= {
        "frequencies": frequencies[::-1].astype(np.uint16),
        "starts": np.array([0, frequencies.size], np.uint32),
        "low": np.zeros(1, np.int16),
    }
    tables = PriorTables.from_arrays(arrays)
    from headwater.compression.coder import Coder

    symbols = np.random.default_rng(0).permutation(np.arange(380) % 362).astype(np.int16).reshape(1, 19, 20)
    first, second = (Coder(tables, 19, 20, implementation=name).encode(symbols, 0) for name in ("c", "python"))
    assert first == second
    assert np.array_equal(Coder(tables, 19, 20, implementation="c").decode(first.payload, 0), symbols)


def _arguments() -> list[object]:
    t = laplace_prior([0.5, 1.0], 2, 3, [1, 2]).tables
    return [t.frequencies, t.starts, t.low, t.step, t.lanes, np.array(t.mode_channels, np.uint8), t.group_ends, 6]


@pytest.mark.parametrize("position", range(7))
def test_the_c_module_refuses_arrays_that_do_not_fit(position: int) -> None:
    arguments = _arguments()
    arguments[position] = np.ascontiguousarray(arguments[position][:-1])  # type: ignore[index]
    with pytest.raises(ValueError, match="inconsistent"):
        _rans.prepare(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("position", "value"), [(0, 0), (1, 2**31), (5, 3), (6, 9), (6, 0)])
def test_the_c_module_refuses_values_that_would_lead_it_astray(position: int, value: int) -> None:
    arguments = _arguments()
    array = arguments[position].copy()  # type: ignore[attr-defined]
    array[-1] = value
    arguments[position] = array
    with pytest.raises(ValueError, match="inconsistent"):
        _rans.prepare(*arguments)  # type: ignore[arg-type]


def test_the_c_module_checks_its_arguments() -> None:
    model = _rans.prepare(*_arguments())  # type: ignore[arg-type]
    out = np.zeros((2, 2, 3), np.int16)
    with pytest.raises(ValueError, match="mode is 1"):
        _rans.encode(model, out, 1)
    with pytest.raises(ValueError, match="symbols have"):
        _rans.encode(model, out[:1], 0)
    with pytest.raises(ValueError, match="groups is 3"):
        _rans.decode(model, b"", 0, 3, out)
    with pytest.raises(ValueError, match="out has"):
        _rans.decode(model, b"", 0, 1, out)
    with pytest.raises(ValueError, match="differ in length"):
        _rans.decode_batch(model, [b""], [0], [2], np.zeros(3, np.float32))
    with pytest.raises(TypeError):
        _rans.decode(model, "text", 0, 2, out)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="invalid PyCapsule"):
        _rans.encode(object(), out, 0)  # type: ignore[arg-type]
