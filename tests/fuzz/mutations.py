"""Strategies for hypothesis: seeds with some bytes changed, and trees of JSON or TOML with some odd values in them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

ODD_BYTES = st.binary(max_size=8) | st.sampled_from(
    [
        b"",
        b"\x00",
        b"\xff" * 4,
        b"\xff" * 8,
        b"\x00" * 8,
        b"\xff\xff\xff\x7f",
        b"1e999",
        b"-1",
        b"nan",
        b"9" * 30,
        b"[" * 40,
    ]
)
ODD_VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, "", "x", "\x00", "~nobody-at-all", "é", -1, 0, 1, 0.5, -0.5, 2**31, 2**63, 2**64),
        *(10**400, -(10**400), 1e308, float("inf"), float("-inf"), float("nan")),
        *([], {}, [[]], [None], [{}], {"": None}, {"a": {"b": []}}, "a" * 20_000),
    ]
)


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds after some cuts, swaps and insertions."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.sampled_from([0, 1, 1, 2, 4, 8, 64, 1 << 20])))
        data = data[:begin] + draw(ODD_BYTES | st.just(data[begin:end] * 2)) + data[end:]
    return data


@st.composite
def odd_tree(draw: st.DrawFn, tree: dict[str, Any]) -> dict[str, Any]:
    """A copy of the tree in which some values are others, are gone, or are there by another name."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        inside, key = draw(st.sampled_from(places)) if places else ({}, "")
        change = draw(st.sampled_from(["set", "set", "set", "delete", "rename", "repeat"]))
        if change == "delete":
            del inside[key]
        elif change == "rename" and isinstance(inside, dict):
            inside[draw(st.sampled_from(["x", "name", f"{key}s"]))] = inside.pop(key)
        elif change == "repeat" and isinstance(inside, list):
            inside.append(copy.deepcopy(inside[key]))
        else:
            inside[key] = copy.deepcopy(draw(ODD_VALUES))
    return tree


def _places(tree: dict[str, Any] | list[Any]) -> Iterator[tuple[Any, Any]]:
    """Every container and key of a tree."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)
