"""The coder of integers: its two implementations bit for bit, and how near its bytes come to what they hold."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.compression.coder import Implementation
from headwater.compression.updates import adaptive
from headwater.compression.updates.adaptive import HAS_SIGNS, HAS_SIZES, HAS_ZEROS
from headwater.compression.updates.integers import decode_integers, encode_integers

ALL = HAS_ZEROS | HAS_SIGNS | HAS_SIZES


def _sides(*arrays: tuple[int, int, int]) -> np.ndarray:
    return np.array(arrays, np.uint32).reshape(-1, 3)


def _draw(rng: np.random.Generator, alphabet: int, count: int) -> np.ndarray:
    if alphabet == HAS_ZEROS:
        return rng.integers(0, 2, count)
    if alphabet == HAS_SIGNS:
        return rng.choice([-1, 1], count)
    scale = rng.choice([0.3, 3, 60]) if alphabet & HAS_SIZES else 0.5
    return np.clip(np.rint(rng.normal(0, scale, count)), *((-127, 127) if alphabet & HAS_SIZES else (-1, 1)))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_c_and_python_agree_on_every_byte(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shapes = [(int(rng.integers(1, 9)), int(rng.integers(1, 30))) for _ in range(rng.integers(1, 5))]
    alphabets = [int(rng.choice([HAS_ZEROS, HAS_SIGNS, HAS_ZEROS | HAS_SIGNS, ALL])) for _ in shapes]
    sides = _sides(*((*shape, alphabet) for shape, alphabet in zip(shapes, alphabets, strict=True)))
    parts = [_draw(rng, a, r * c) for (r, c), a in zip(shapes, alphabets, strict=True)]
    values = np.concatenate(parts).astype(np.int8)
    live = (rng.random(values.size) < 0.7).astype(np.uint8) if rng.random() < 0.5 else None
    if live is not None:
        values[live == 0] = 0
    data = encode_integers(values, live, sides, implementation="c")
    assert data == encode_integers(values, live, sides, implementation="python")
    for implementation in ("c", "python"):
        assert np.array_equal(decode_integers(data, live, sides, implementation=implementation), values)


def test_blocks_end_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """More answers than a block has: C's is fixed, so Python's is set to the same and both go through three."""
    rng = np.random.default_rng(0)
    values = rng.choice(np.array([-1, 0, 1], np.int8), 1500 * 1000, p=[0.01, 0.98, 0.01])
    sides = _sides((1500, 1000, HAS_ZEROS | HAS_SIGNS))
    assert np.array_equal(decode_integers(encode_integers(values, None, sides), None, sides), values)
    for block in (1, 7, 64):
        monkeypatch.setattr(adaptive, "BLOCK", block)
        part, few = values[-2000:], _sides((20, 100, ALL))
        data = encode_integers(part, None, few, implementation="python")
        assert np.array_equal(decode_integers(data, None, few, implementation="python"), part)


@pytest.mark.slow
def test_c_and_python_agree_across_blocks() -> None:
    rng = np.random.default_rng(0)
    values = rng.choice(np.array([-1, 0, 1], np.int8), 1100 * 1000, p=[0.01, 0.98, 0.01])
    sides = _sides((1100, 1000, HAS_ZEROS | HAS_SIGNS))
    data = encode_integers(values, None, sides, implementation="c")
    assert data == encode_integers(values, None, sides, implementation="python")


def test_noise_costs_its_entropy() -> None:
    """Nothing to be learned: a byte-aligned bound that no context may spoil."""
    rng, count = np.random.default_rng(1), 1_000_000
    positions = (rng.random(count) < 1 / 400) * rng.choice([-1, 1], count)
    for values, alphabet, within in (
        (positions, HAS_ZEROS | HAS_SIGNS, 1.05),
        (np.rint(rng.normal(0, 20, count)).clip(-127, 127), ALL, 1.005),
        (rng.choice([-1, 1], count), HAS_SIGNS, 1.005),
    ):
        share = np.unique(values, return_counts=True)[1] / count
        entropy = -(share * np.log2(share)).sum() * count / 8
        assert len(encode_integers(values.astype(np.int8), None, _sides((1000, 1000, alphabet)))) <= entropy * within


def test_rows_and_columns_that_learn_are_cheap() -> None:
    rng, count = np.random.default_rng(2), 500
    busy = np.outer(rng.random(count) < 0.1, rng.random(count) < 0.1)
    values = (busy * (rng.random(busy.shape) < 0.3)).astype(np.int8).ravel()
    share = values.mean()
    entropy = -(share * np.log2(share) + (1 - share) * np.log2(1 - share)) * values.size / 8
    assert len(encode_integers(values, None, _sides((count, count, HAS_ZEROS)))) < 0.6 * entropy


def test_what_both_ends_know_to_be_zero_costs_nothing() -> None:
    rng = np.random.default_rng(3)
    values, sides = rng.choice([-1, 1], 40_000).astype(np.int8), _sides((200, 200, HAS_SIGNS))
    live = np.zeros(40_000, np.uint8)
    assert len(encode_integers(np.zeros(40_000, np.int8), live, sides)) == 8
    live[:40_000:4] = 1
    values[live == 0] = 0
    assert len(encode_integers(values, live, sides)) < 10_000 / 8 * 1.02 + 16


@pytest.mark.parametrize("implementation", ["c", "python"])
def test_nothing_at_all(implementation: Implementation) -> None:
    data = encode_integers(np.zeros(0, np.int8), None, _sides(), implementation=implementation)
    assert len(data) == 8
    assert decode_integers(data, None, _sides(), implementation=implementation).size == 0


def test_logarithms_are_near_enough() -> None:
    for x in [*range(1, 5000), *(3**k for k in range(40))]:
        assert abs(adaptive.log_of(x) - 16 * np.log2(x)) < 1.3


_WITHOUT_C = """
import logging, sys
logging.basicConfig(format="%(message)s")
sys.modules["headwater.compression._rans"] = None
import numpy as np
from headwater.compression.updates import Layout, Scheme, decode, encode
layout = Layout({"a": (3, 4)})
delta = {"a": np.arange(-6, 6, dtype=np.float32).reshape(3, 4)}
for _ in range(2):
    encoded = encode(delta, layout, Scheme("ternary", 0.5), base=b"")
assert np.array_equal(decode(encoded.data, layout).arrays["a"], encoded.decoded["a"])
print(encoded.data.hex())
"""


def test_without_the_c_coder_all_works_after_one_warning() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT_C], capture_output=True, text=True, check=True)
    assert done.stderr.count("\n") == 1
    assert "install headwater where there is a C compiler" in done.stderr
    assert done.stdout.startswith(b"HU".hex())
    assert logging.getLogger().level >= 0
