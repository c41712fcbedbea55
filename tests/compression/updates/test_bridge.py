from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from headwater.compression.errors import UpdateError
from headwater.compression.updates import Layout, Scheme, decode, encode
from headwater.compression.updates.bridge import bridge, cheaper
from tests.compression.updates.deltas import LAYOUT, delta_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.float32]]


def _added(held: Arrays, updates: list[bytes], layout: Layout = LAYOUT) -> Arrays:
    for data in updates:
        found = decode(data, layout)
        assert found.base == b"held"
        held = {name: held[name] + found.arrays[name] for name in held}
    return held


def _bits(arrays: Arrays) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in arrays.items()}


def test_a_chain_of_many_updates_is_bridged_to_the_bit() -> None:
    held = target = delta_of(LAYOUT, 0)
    chain = []
    for seed in range(1, 60):
        made = encode(delta_of(LAYOUT, seed), LAYOUT, Scheme("int8"), base=b"held")
        target = {name: target[name] + made.decoded[name] for name in target}
        chain.append(made.data)
    bridged = bridge(held, target, LAYOUT, base=b"held")
    assert _bits(_added(held, [each.data for each in bridged])) == _bits(target) == _bits(_added(held, chain))
    assert cheaper(chain, bridged)
    assert not cheaper(chain[:1], bridged)


def test_weights_that_come_near_zero_take_a_second_update() -> None:
    layout = Layout({"a": (6,)})
    held = {"a": np.array([1, -1, 0.3, 3e38, 1, 2], np.float32)}
    target = {"a": np.array([1e-30, 1e-9, 1e-45, 1e-3, 1, 0], np.float32)}
    bridged = bridge(held, target, layout, base=b"held")
    assert len(bridged) > 1
    assert _bits(_added(held, [each.data for each in bridged], layout)) == _bits(target)


def test_nothing_leads_to_where_one_is() -> None:
    assert bridge(delta_of(LAYOUT), delta_of(LAYOUT), LAYOUT, base=b"held") == []


def test_what_no_sum_gives() -> None:
    layout = Layout({"a": (1,)})
    with pytest.raises(UpdateError, match=r"-0\.0"):
        bridge({"a": np.zeros(1, np.float32)}, {"a": np.array([-0.0], np.float32)}, layout, base=b"")
    with pytest.raises(UpdateError, match="lack"):
        bridge({}, {"a": np.zeros(1, np.float32)}, layout, base=b"")
