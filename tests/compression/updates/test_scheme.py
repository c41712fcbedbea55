from __future__ import annotations

import numpy as np
import pytest

from headwater.compression.errors import UpdateError
from headwater.compression.updates import Layout, Scheme, steps
from headwater.compression.updates.quantise import largest, quantise
from headwater.compression.updates.scheme import VALUES


@pytest.mark.parametrize("values", VALUES)
def test_a_scheme_survives_json(values: str) -> None:
    scheme = Scheme(values, 1.0 if values == "sign" else 1 / 400)  # type: ignore[arg-type]
    assert Scheme.from_json(scheme.to_json()) == scheme


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"values": "int9"}',
        '{"keep": 0}',
        '{"keep": 2}',
        '{"keep": "all"}',
        '{"keep": NaN}',
        "[" * 9999,
        '{"keep": true}',
        '{"vaues": "int8"}',
        '{"values": "sign", "keep": 0.5}',
        '{"values": ["int8"]}',
    ],
)
def test_text_that_is_no_scheme(text: str) -> None:
    with pytest.raises(UpdateError):
        Scheme.from_json(text)


def test_where_most_coordinates_arrive_as_zero() -> None:
    assert [Scheme(values, 0.1).sparse for values in ("int8", "ternary", "factors")] == [True, True, False]
    assert not Scheme("ternary").sparse


LAYOUT = Layout({"b": (6,), "a": (4, 8, 3)}, {0.5: {"a": np.s_[:2, :4]}, 0.25: {"a": np.s_[:1, :2], "b": np.s_[3:,]}})


def test_arrays_are_sorted_by_name() -> None:
    assert list(LAYOUT.shapes) == ["a", "b"]
    assert (LAYOUT.size, LAYOUT.widths) == (102, (0.25, 0.5, 1.0))


def test_the_layout_of_a_width() -> None:
    assert LAYOUT.at(1.0) is LAYOUT
    assert LAYOUT.at(0.5).shapes == {"a": (2, 4, 3)}
    assert LAYOUT.at(0.25).shapes == {"a": (1, 2, 3), "b": (3,)}
    with pytest.raises(UpdateError, match=r"0.25, 0.5, 1.0"):
        LAYOUT.at(0.75)


def test_what_is_written_to_a_cut_is_written_to_the_arrays() -> None:
    arrays = {name: np.zeros(shape, np.float32) for name, shape in LAYOUT.shapes.items()}
    cut = LAYOUT.cut(arrays, 0.5)
    assert cut.keys() == {"a"}
    cut["a"] += 1
    assert arrays["a"].sum() == 24
    assert LAYOUT.cut(arrays, 1.0)["b"] is arrays["b"]
    with pytest.raises(UpdateError, match="shape"):
        LAYOUT.cut({**arrays, "b": arrays["a"]}, 0.5)


@pytest.mark.parametrize(
    ("shapes", "slices"),
    [
        ({"a": (0, 3)}, {}),
        ({"a": (1 << 20, 1 << 20)}, {}),
        ({"a": (2,)}, {1.0: {"a": np.s_[:1,]}}),
        ({"a": (2,)}, {0.5: {"b": np.s_[:1,]}}),
        ({"a": (2,)}, {0.5: {"a": np.s_[:1, :1]}}),
    ],
)
def test_a_layout_that_makes_no_sense(shapes: dict, slices: dict) -> None:
    with pytest.raises(ValueError, match=r"want|the array is"):
        Layout(shapes, slices)


def test_the_largest_of_all() -> None:
    values = np.array([0.5, -3, 0, 3, -0.0, 1, -1], np.float32)
    assert largest(values, 1).nonzero()[0].tolist() == [1]
    assert largest(values, 2).nonzero()[0].tolist() == [1, 3]
    assert largest(values, 3).nonzero()[0].tolist() == [1, 3, 5]
    assert largest(values, 6).nonzero()[0].tolist() == [0, 1, 3, 5, 6]
    assert largest(values, 99).nonzero()[0].tolist() == [0, 1, 3, 5, 6]
    for count in range(1, 50):
        assert largest(np.random.default_rng(count).normal(size=50).astype(np.float32), count).sum() == count


def test_steps() -> None:
    for code in range(steps.LOWEST, steps.HIGHEST + 1):
        size = steps.value(code)
        assert steps.nearest(float(size)) == steps.above(float(size)) == code
        assert np.isfinite(size)
    assert steps.value(0) == 1
    assert steps.above(1.01) == 1
    assert (steps.above(1e-45), steps.above(3e38)) == (steps.LOWEST, steps.HIGHEST)


def test_steps_survive_packing() -> None:
    codes = [None, 3, -100, None, 8]
    top, differences = steps.pack(codes)
    wanted = [0 if code is None else steps.value(code) for code in codes]
    assert steps.unpack(top, differences).tolist() == wanted
    assert steps.pack([100, 100 - 127])[1].tolist() == [0, 127]
    assert steps.pack([None])[0] == 0


def test_int8_reaches_its_largest() -> None:
    part = np.array([-127, 0, 63.4, 127], np.float32)
    _, _, (integers,) = quantise([part], "int8")
    assert integers.tolist() == [-127, 0, 63, 127]


def test_an_array_that_is_too_small_beside_another_is_dropped() -> None:
    parts = [np.array([1e20], np.float32), np.array([1e10], np.float32), np.array([0], np.float32)]
    for values, wanted in (("ternary", [1, 0, 0]), ("sign", [1, 1, 1]), ("int8", [123, 0, 0])):
        _, differences, integers = quantise(parts, values)  # type: ignore[arg-type]
        assert [int(each[0]) for each in integers] == wanted
        assert differences.tolist() == ([0, 127, 0] if values == "sign" else [0, 0, 0])
