from __future__ import annotations

import numpy as np
import pytest

from headwater.compression.updates import Layout, Scheme, encode, factors, steps
from headwater.compression.updates.adaptive import HAS_SIGNS, HAS_SIZES, HAS_ZEROS

WHOLE = HAS_ZEROS | HAS_SIGNS | HAS_SIZES
LAYOUT = Layout({"bias": (40,), "depthwise": (24, 1, 3, 3), "matrix": (40, 90), "narrow": (3, 200)})


def _low_rank(rank: int, noise: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in LAYOUT.shapes.items():
        rows = shape[0] if len(shape) > 1 else 1
        columns = int(np.prod(shape)) // rows
        product = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns))
        found[name] = (product + rng.normal(0, noise, product.shape)).astype(np.float32).reshape(shape)
    return found


def _energy_left(delta: dict[str, np.ndarray], scheme: Scheme) -> float:
    decoded = encode(delta, LAYOUT, scheme, base=b"").decoded
    lost = sum(float(np.square(delta[n] - decoded[n], dtype=np.float64).sum()) for n in delta)
    return lost / sum(float(np.square(each, dtype=np.float64).sum()) for each in delta.values())


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((), 0),
        ((7,), 0),
        ((3, 200), 0),
        ((200, 3), 0),
        ((4, 4), 2),
        ((24, 1, 3, 3), 4),
        ((40, 90), 20),
        ((1280, 320, 1, 1), 64),
    ],
)
def test_never_more_numbers_than_coordinates(shape: tuple[int, ...], count: int) -> None:
    assert factors.components(shape) == count
    sides = factors.sides(Layout({"a": shape}), WHOLE)
    assert int((sides[:, 0] * sides[:, 1]).sum()) <= int(np.prod(shape))


def test_what_is_a_product_of_few_vectors_arrives_in_few_bytes() -> None:
    delta = {name: array if name == "matrix" else array * 0 for name, array in _low_rank(3).items()}
    fine, scheme = Scheme("int8"), Scheme("factors", keep=0.11)  # 3 * (40 + 90) numbers of 4,096
    assert _energy_left(delta, scheme) < 0.005
    sizes = [len(encode(delta, LAYOUT, each, base=b"").data) for each in (scheme, fine)]
    assert 6 * sizes[0] < sizes[1]


@pytest.mark.parametrize("keep", [0.05, 0.1, 0.2, 0.5])
def test_no_more_numbers_are_sent_than_there_is_room_for(keep: float) -> None:
    delta = _low_rank(3, noise=1.0)
    flat = np.concatenate([delta[name].ravel() for name in LAYOUT.shapes])
    _, _, integers = factors.quantise(flat, LAYOUT, keep, None)
    sent = sum(int(np.count_nonzero(each)) for each in integers)
    # the right vectors are found again for the rounded left ones, so that a number more or less is other than 0
    assert 0.5 * keep * LAYOUT.size < sent < 1.05 * keep * LAYOUT.size


def test_more_that_is_kept_leaves_less() -> None:
    delta = _low_rank(3, noise=1.0)
    left = [_energy_left(delta, Scheme("factors", keep)) for keep in (0.01, 0.03, 0.1, 0.3, 0.6)]
    assert left == sorted(left, reverse=True)
    assert left[0] < 1


@pytest.mark.parametrize("seed", range(5))
def test_noise_is_sent_too_a_little_at_a_time(seed: int) -> None:
    """A share that is too small for any component must not send nothing for ever."""
    rng = np.random.default_rng(seed)
    delta = {name: rng.normal(size=shape).astype(np.float32) for name, shape in LAYOUT.shapes.items()}
    for keep in (1e-6, 1e-3, 0.02):
        assert _energy_left(delta, Scheme("factors", keep)) < 1


def test_error_feedback_brings_everything_in_the_end() -> None:
    delta = _low_rank(6, noise=0.5)
    owed, arrived = delta, {name: np.zeros_like(array) for name, array in delta.items()}
    for _ in range(40):
        decoded = encode(owed, LAYOUT, Scheme("factors", 0.1), base=b"").decoded
        owed = {name: owed[name] - decoded[name] for name in owed}
        arrived = {name: arrived[name] + decoded[name] for name in arrived}
    lost = sum(float(np.square(delta[n] - arrived[n]).sum()) for n in delta)
    assert lost < 0.02 * sum(float(np.square(each).sum()) for each in delta.values())


def test_a_strong_component_is_sent_finer_than_a_weak_one() -> None:
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.normal(size=(40, 2)))[0], np.linalg.qr(rng.normal(size=(90, 2)))[0]
    matrix = (left * [100.0, 10.0]) @ right.T
    flat = np.concatenate([np.zeros(40 + 216), matrix.ravel(), np.zeros(600)]).astype(np.float32)
    _, _, integers = factors.quantise(flat, LAYOUT, 0.06, None)
    strong, weak = integers[2][:800].reshape(20, 40)[:2].astype(float)
    assert np.abs(strong).max() > 5 * np.abs(weak).max() > 0
    assert not integers[2][80:800].any()


def test_the_largest_number_of_a_component_has_an_integer() -> None:
    """One array that is far stronger than the others gets a step of its own, instead of being clipped."""
    delta = _low_rank(1)
    delta["matrix"] = delta["matrix"] * 1e4
    decoded = encode(delta, LAYOUT, Scheme("factors"), base=b"").decoded["matrix"]
    assert np.abs(decoded - delta["matrix"]).max() < 0.02 * np.abs(delta["matrix"]).max()


def test_decoding_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    delta = _low_rank(5, noise=0.1)
    flat = np.concatenate([delta[name].ravel() for name in LAYOUT.shapes])
    top, differences, integers = factors.quantise(flat, LAYOUT, 0.5, None)
    sizes = steps.unpack(top, differences)
    whole = factors.scaled(integers, sizes, LAYOUT, None)
    monkeypatch.setattr(factors, "_BLOCK", 1000)
    assert np.array_equal(factors.scaled(integers, sizes, LAYOUT, None), whole)


def test_what_a_mask_leaves_out_costs_next_to_nothing() -> None:
    """Half of a matrix is known to be zero; with zeros there it would not be a product of few vectors any more."""
    delta = {name: array if name == "matrix" else array * 0 for name, array in _low_rank(2).items()}
    mask = {"matrix": np.random.default_rng(1).random((40, 90)) < 0.5}
    masked = {**delta, "matrix": np.where(mask["matrix"], delta["matrix"], np.float32(0))}
    decoded = encode(masked, LAYOUT, Scheme("factors", 0.1), base=b"", mask=mask).decoded["matrix"]
    blindly = encode(masked, LAYOUT, Scheme("factors", 0.1), base=b"").decoded["matrix"]
    lost, lost_blindly = (np.square(found - masked["matrix"]).sum() for found in (decoded, blindly))
    assert not decoded[~mask["matrix"]].any()
    assert lost < 0.05 * np.square(masked["matrix"]).sum()
    assert 5 * lost < lost_blindly
