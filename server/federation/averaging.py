"""Averaging updates of devices that trained different parts of one network.

A device trains the widest sub-network that fits it, so an update covers a block of each array, or none of it (HeteroFL,
Diao et al., 2021, arXiv:2010.01264). Each coordinate is averaged over the devices that trained it, weighted by their
examples; a coordinate that nobody trained keeps its value. Sums run in double precision and in the order of the
devices' node ids, whatever order the replies came in, so that the same replies give the same bytes.

Coordinates that the same devices trained form a *region*; there are as many of them as combinations of widths, and
:mod:`headwater.server.federation.robust` gives each one to an aggregator that knows nothing of widths.

Legend: n devices of a region, k coordinates of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.compression.errors import LearningError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays = Mapping[str, "NDArray[np.float32]"]
Place = tuple[slice, ...]
"""Which block of an array a device trained; () is all of it."""


@dataclass(frozen=True)
class Contribution:
    """What one device brings to a round: checked, decoded, finite."""

    node: int
    device: str
    examples: float
    """How many it trained on: its weight in the average."""
    delta: Arrays
    """Change of each array that it trained, in the shape of the block."""
    places: Mapping[str, Place]
    """Where that block lies, for each name of `delta`."""
    width: float = 1.0
    part: str = "all"
    base: str = ""
    """The version that it started from."""
    scale: float = 1.0
    """Factor on the change itself: below 1 for one that is stale."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    gathered: Mapping[str, Any] = field(default_factory=dict)
    """What was gathered for pruning, record by record."""


Aggregator = Callable[[Sequence[Contribution], Mapping[str, tuple[int, ...]]], dict[str, "NDArray[np.float32]"]]
"""Contributions and the shapes of all arrays -> the change of each array; 0 where nobody trained."""


def average(contributions: Sequence[Contribution], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The mean over the devices that trained a coordinate, weighted by examples."""
    ordered = in_order(contributions)
    return {name: _average_of(name, shape, ordered) for name, shape in shapes.items()}


def _average_of(name: str, shape: tuple[int, ...], ordered: Sequence[Contribution]) -> NDArray[np.float32]:
    total, weight = np.zeros(shape), np.zeros(shape)
    for each in ordered:
        if name in each.delta:
            block = each.places[name]
            total[block] += each.examples * each.scale * each.delta[name].astype(np.float64)
            weight[block] += each.examples
    return np.divide(total, weight, out=total, where=weight > 0).astype(np.float32)


def in_order(contributions: Sequence[Contribution]) -> list[Contribution]:
    """By node id, and those of one device by their base; raises :class:`LearningError` if there are none."""
    if not contributions:
        raise LearningError("there is nothing to aggregate: no device's update was accepted in this round")
    return sorted(contributions, key=lambda each: (each.node, each.base, each.examples))


@dataclass(frozen=True)
class Region:
    """Coordinates that the same devices trained."""

    members: tuple[int, ...]
    """Indices into the contributions, rising."""
    coordinates: Mapping[str, NDArray[np.intp]]
    """Flat indices into each array that has some."""

    def matrix(self, contributions: Sequence[Contribution], shapes: Mapping[str, tuple[int, ...]]) -> NDArray[Any]:
        """The members' changes, float32 [n, k]."""
        rows = [
            np.concatenate([_flat(contributions[i], name, shapes[name])[at] for name, at in self.coordinates.items()])
            for i in self.members
        ]
        return np.stack(rows)

    def scatter(self, values: NDArray[np.float32], into: Mapping[str, NDArray[np.float32]]) -> None:
        """Write values [k] to their places."""
        start = 0
        for name, at in self.coordinates.items():
            into[name].reshape(-1)[at] = values[start : start + len(at)]
            start += len(at)


def regions(contributions: Sequence[Contribution], shapes: Mapping[str, tuple[int, ...]]) -> list[Region]:
    """Split all coordinates that were trained by who trained them; the order is the same for the same members."""
    found: dict[tuple[int, ...], dict[str, NDArray[np.intp]]] = {}
    for name, shape in shapes.items():
        for members, at in _covers(name, shape, contributions):
            found.setdefault(members, {})[name] = at
    return [Region(members, found[members]) for members in sorted(found)]


def _covers(
    name: str, shape: tuple[int, ...], contributions: Sequence[Contribution]
) -> Iterator[tuple[tuple[int, ...], NDArray[np.intp]]]:
    """Each set of devices that share coordinates of one array, with those coordinates."""
    trained = {i: _bounds(each.places[name], shape) for i, each in enumerate(contributions) if name in each.delta}
    blocks = {block: bit for bit, block in enumerate(sorted(set(trained.values())))}
    if len(blocks) > 64:
        raise LearningError(f"{name} was trained in {len(blocks)} different blocks; at most 64 can be told apart")
    code = np.zeros(shape, np.uint64)
    for block, bit in blocks.items():
        code[tuple(slice(*pair) for pair in block)] |= np.uint64(1 << bit)
    for value in np.unique(code[code > 0]):
        members = tuple(i for i, block in trained.items() if int(value) >> blocks[block] & 1)
        yield members, np.flatnonzero(code == value)


def _bounds(place: Place, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """A place as (start, stop) an axis; slices step by 1."""
    whole = (*place, *(slice(None) for _ in shape[len(place) :]))
    return tuple(part.indices(size)[:2] for part, size in zip(whole, shape, strict=True))


def _flat(contribution: Contribution, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One device's change of one array, scaled, at full size and flat."""
    full = np.zeros(shape, np.float32)
    full[contribution.places[name]] = contribution.delta[name]
    return full.reshape(-1) * np.float32(contribution.scale)
