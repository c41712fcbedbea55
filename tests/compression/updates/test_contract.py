"""What every codec of updates has to do, ours and the adapters of its peers: a newcomer passes this or is not done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.update_peers import installed
from headwater.compression.errors import UpdateError
from headwater.compression.updates import Layout
from headwater.compression.updates.codecs import CODECS, Codec
from tests.compression.updates.deltas import LAYOUT, delta_of, mask_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

EVERY = {**CODECS, **installed()}
ABORTS = {"zipnn"}  # version 0.5.4 ends the whole process when its input is cut off
BASE = bytes(range(16))


@pytest.fixture(params=EVERY)
def codec(request: pytest.FixtureRequest) -> Codec:
    return EVERY[request.param]


def _same(ours: object, theirs: object) -> bool:
    assert isinstance(ours, dict)
    assert isinstance(theirs, dict)
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[n].view(np.uint32), theirs[n].view(np.uint32)) for n in ours
    )


def test_the_receiver_sees_what_the_sender_was_told(codec: Codec) -> None:
    encoded = codec.encode(delta_of(LAYOUT), LAYOUT, base=BASE)
    update = codec.decode(encoded.data, LAYOUT)
    assert update.base == BASE
    assert _same(update.arrays, encoded.decoded)
    assert all(array.dtype == np.float32 for array in update.arrays.values())
    assert {name: array.shape for name, array in update.arrays.items()} == LAYOUT.shapes


def test_an_exact_codec_is_exact(codec: Codec) -> None:
    delta = delta_of(LAYOUT)
    delta["stem"][0] = 0
    delta["norm"][:3] = (np.float32(1e-42), -0.0, np.finfo(np.float32).max)
    if codec.exact:
        assert _same(dict(codec.encode(delta, LAYOUT, base=BASE).decoded), delta)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_kept_back_is_less_than_what_was_to_be_sent(codec: Codec, seed: int) -> None:
    """Error feedback converges if a codec is a contraction (Karimireddy 2019, arXiv:1901.09847)."""
    delta = delta_of(LAYOUT, seed)
    decoded = codec.encode(delta, LAYOUT, base=BASE).decoded
    assert sum(np.square(delta[n] - decoded[n]).sum() for n in delta) < sum(np.square(delta[n]).sum() for n in delta)


def test_the_same_update_gives_the_same_bytes(codec: Codec) -> None:
    first, second = (codec.encode(delta_of(LAYOUT), LAYOUT, base=BASE) for _ in range(2))
    assert first.data == second.data


def test_the_sender_s_arrays_stay_as_they_are(codec: Codec) -> None:
    delta = delta_of(LAYOUT)
    codec.encode(delta, LAYOUT, base=BASE, mask=mask_of(LAYOUT))
    assert _same(delta, delta_of(LAYOUT))


def test_a_narrow_sub_network(codec: Codec) -> None:
    layout = LAYOUT.at(0.5)
    encoded = codec.encode(LAYOUT.cut(delta_of(LAYOUT), 0.5), layout, base=b"")
    assert {name: array.shape for name, array in codec.decode(encoded.data, layout).arrays.items()} == layout.shapes


def test_masked_coordinates_are_zero(codec: Codec) -> None:
    mask = mask_of(LAYOUT)
    encoded = codec.encode(delta_of(LAYOUT), LAYOUT, base=BASE, mask=mask)
    arrays = codec.decode(encoded.data, LAYOUT, mask=mask).arrays
    assert _same(arrays, encoded.decoded)
    assert not any(arrays[name][~mask[name]].any() for name in mask)


@pytest.mark.parametrize("fill", [0, -0.0, 1, -3e38, 1e-45])
def test_arrays_of_one_value(codec: Codec, fill: float) -> None:
    delta: dict[str, NDArray[np.float32]] = {n: np.full(s, fill, np.float32) for n, s in LAYOUT.shapes.items()}
    encoded = codec.encode(delta, LAYOUT, base=BASE)
    assert _same(codec.decode(encoded.data, LAYOUT).arrays, encoded.decoded)


def test_one_large_array_among_tiny_ones(codec: Codec) -> None:
    delta = {name: array * np.float32(1e-30) for name, array in delta_of(LAYOUT).items()}
    delta["stem"] = np.full(LAYOUT.shapes["stem"], 1e30, np.float32)
    encoded = codec.encode(delta, LAYOUT, base=BASE)
    assert _same(codec.decode(encoded.data, LAYOUT).arrays, encoded.decoded)
    assert np.abs(encoded.decoded["norm"]).max() < 1e-20


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_sent(codec: Codec, wrong: float) -> None:
    delta = delta_of(LAYOUT)
    delta["head"][1, 2] = wrong
    with pytest.raises(UpdateError, match="not finite"):
        codec.encode(delta, LAYOUT, base=BASE)


def test_arrays_that_are_not_the_layout_s(codec: Codec) -> None:
    delta = delta_of(LAYOUT)
    for wrong in ({**delta, "more": delta["a"]}, {"a": delta["a"]}, {**delta, "a": delta["head"]}):
        with pytest.raises(UpdateError):
            codec.encode(wrong, LAYOUT, base=BASE)
    with pytest.raises(UpdateError, match="float64"):
        codec.encode({**delta, "a": delta["a"].astype(np.float64)}, LAYOUT, base=BASE)  # type: ignore[dict-item]


@pytest.mark.parametrize("name", sorted(EVERY.keys() - ABORTS))
def test_bytes_that_are_no_update(name: str) -> None:
    codec = EVERY[name]
    data = codec.encode(delta_of(LAYOUT), LAYOUT, base=BASE).data
    for wrong in (b"", b"\x00", data[:10], data[: len(data) // 2]):
        with pytest.raises(UpdateError):
            codec.decode(wrong, LAYOUT)


def test_an_update_of_another_layout(codec: Codec) -> None:
    data = codec.encode(delta_of(LAYOUT), LAYOUT, base=BASE).data
    with pytest.raises(UpdateError):
        codec.decode(data, Layout({"stem": (2, 2)}))
