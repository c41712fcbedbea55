from __future__ import annotations

import numpy as np
import pytest

from headwater.compression.updates import Layout, Scheme, decode, encode
from headwater.compression.updates.scheme import Values

LAYOUT = Layout({"b": (3,), "a": (4, 5), "c": (2, 3, 3, 3)})


@pytest.mark.parametrize("values", ["float32", "float16", "int8", "ternary", "sign"])
def test_round_trip(values: Values) -> None:
    rng = np.random.default_rng(0)
    delta = {name: rng.normal(size=shape).astype(np.float32) for name, shape in LAYOUT.shapes.items()}
    encoded = encode(delta, LAYOUT, Scheme(values, 1.0 if values == "sign" else 0.2), base=b"x" * 16)
    update = decode(encoded.data, LAYOUT)
    assert update.base == b"x" * 16
    for name, array in update.arrays.items():
        assert np.array_equal(array, encoded.decoded[name])
