"""What layers take, measured with onnxruntime on one thread: whole heads and tails, and each unit at several sizes.

Times on a busy machine are those of the layer plus whatever came between, so each is the least of many runs that take
turns with all others. A unit's time is that of a graph with its block alone, at a few sizes; between those it is
interpolated, and never falls as channels are added. Of these times only differences are used: what a call costs in
itself is in all of them.

Legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from onnx import TensorProto, helper

from headwater.compression.inference import session
from headwater.compression.learning.surgery import Unit, removed, units_of
from headwater.compression.learning.tail import Tail
from headwater.server.training.graphs import Graph, head_graph, tail_graph

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ValueInfoProto

    from headwater.compression.image import InputSpec
    from headwater.compression.learning.network import SplitNetwork

Key = TypeVar("Key")
SIZES = 6
"""Of each unit that are measured."""
ROUNDS = 40
"""Turns of which the least time counts."""
REPEATS = 3
"""Runs in a row at each turn: the first brings the layer's weights into the cache."""


@dataclass(frozen=True)
class Times:
    """What a network takes on this machine, in milliseconds."""

    heads: Mapping[float, float]
    """The head of each width."""
    tails: tuple[float, ...]
    """Each tail, at batch 1."""


@dataclass(frozen=True)
class Curve:
    """What a unit's block takes, by its number of channels."""

    channels: tuple[int, ...]
    """As measured, ascending."""
    ms: tuple[float, ...]

    def at(self, channels: int) -> float:
        """Interpolated."""
        return float(np.interp(channels, self.channels, self.ms))


def measure(network: SplitNetwork, spec: InputSpec, *, rounds: int = ROUNDS) -> Times:
    """Times of a network's heads and tails."""
    return beside([network], spec, rounds=rounds)[0]


def beside(networks: Sequence[SplitNetwork], spec: InputSpec, *, rounds: int = ROUNDS) -> list[Times]:
    """Times of several networks, whose runs take turns: what they have to do with each other is right."""
    runs: dict[tuple[int, str, float], Run] = {}
    for index, network in enumerate(networks):
        side = _latent_side(network, spec)
        for width in network.widths:
            runs[index, "head", width] = Run(head_graph(network.head, width, spec)[0])
        features = network.decoder.leave.out_channels
        for number, tail in enumerate(network.typed_tails()):
            runs[index, "tail", number] = Run(tail_graph(tail, features, side)[0])
    ms = least_ms(runs, rounds)
    return [
        Times(
            {width: ms[index, "head", width] for width in network.widths},
            tuple(ms[index, "tail", number] for number in range(len(network.tails))),
        )
        for index, network in enumerate(networks)
    ]


def curves(network: SplitNetwork, spec: InputSpec, names: Sequence[str], *, rounds: int = ROUNDS) -> dict[str, Curve]:
    """What each named unit takes at a few sizes, at the widest width."""
    units = units_of(network)
    sizes = {name: _sizes(units[name]) for name in names}
    runs = {
        (name, count): Run(_unit_graph(removed(network, {name: np.arange(count)}), name, spec))
        for name in names
        for count in sizes[name]
    }
    ms = least_ms(runs, rounds)
    return {name: _rising(sizes[name], [ms[name, count] for count in sizes[name]]) for name in names}


def _sizes(unit: Unit) -> list[int]:
    """A few of a unit's counts, from the least to the most."""
    counts = unit.counts()
    return sorted({counts[round(place)] for place in np.linspace(0, len(counts) - 1, SIZES)})


def _rising(channels: Sequence[int], ms: Sequence[float]) -> Curve:
    """A curve that never falls: each time at least those of fewer channels."""
    return Curve(tuple(channels), tuple(np.maximum.accumulate(ms).tolist()))


# ---------------------------------------------------------------- graphs


def _unit_graph(network: SplitNetwork, name: str, spec: InputSpec) -> bytes:
    """A graph of one unit's layers alone, at the widest width."""
    part, _, rest = name.partition(".")
    graph = Graph()
    if part == "head":
        place = int(rest.rpartition(".")[2])
        inputs, side, output, last = _head_block(graph, network, place, spec)
        return graph.serialise([_input(inputs, side)], output, [1, *last])
    number, _, place_of = rest.partition(".")
    tail = list(network.typed_tails())[int(number)]
    side = _latent_side(network, spec)
    features = network.decoder.leave.out_channels
    for index, block in enumerate(tail.typed_blocks()):
        if place_of == f"blocks.{index}":
            output, outputs, after = graph.blocks("x", [block], features, 1.0, "unit", side)
            return graph.serialise([_input(features, side)], output, [1, outputs, after, after])
        features, side = block.project.conv.out_channels, -(-side // block.depthwise.stride)
    output = graph.tail("x", Tail([], tail.top, tail.classify), features, side)
    return graph.serialise([_input(features, side)], output, [1, tail.classify.out_features])


def _head_block(
    graph: Graph, network: SplitNetwork, place: int, spec: InputSpec
) -> tuple[int, int, str, tuple[int, int, int]]:
    """Add a block of the head, the first behind the stem: channels and side of the input, the result and its shape."""
    head, width = network.head, network.widths[-1]
    stem, blocks = head.stem, list(head.inverted_residuals())
    inputs, side = stem.conv.out_channels, -(-spec.height // stem.stride)
    for block in blocks[:place]:
        inputs, side = block.project.conv.out_channels, -(-side // block.depthwise.stride)
    x, first = "x", (inputs, side)
    if place == 0:
        first = (spec.channels, spec.height)
        x = graph.conv_norm(x, stem, spec.channels, inputs, width, "stem", side * side)
    x, outputs, side = graph.blocks(x, [blocks[place]], inputs, width, "unit", side)
    return *first, x, (outputs, side, side)


def _input(channels: int, side: int) -> ValueInfoProto:
    return helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, side, side])


def _latent_side(network: SplitNetwork, spec: InputSpec) -> int:
    strides = [network.head.stem.stride, *(block.depthwise.stride for block in network.head.inverted_residuals())]
    return spec.height // int(np.prod(strides))


# ---------------------------------------------------------------- timing


class Run:
    """A graph, loaded, and an input for it."""

    def __init__(self, graph: bytes) -> None:
        """Load it."""
        self._session = session(graph)
        self._feed = {each.name: _anything(each.shape, each.type) for each in self._session.get_inputs()}

    def ms(self) -> float:
        """The least time of a few runs in a row."""
        took = []
        for _ in range(REPEATS):
            begin = time.perf_counter()
            self._session.run(None, self._feed)
            took.append(time.perf_counter() - begin)
        return 1e3 * min(took)


def _anything(shape: Sequence[int | str], kind: str) -> NDArray[np.generic]:
    whole = [size if isinstance(size, int) else 1 for size in shape]
    values = np.random.default_rng(0).uniform(0, 255 if "uint8" in kind else 1, whole)
    return values.astype({"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(int64)": np.int64}[kind])


def least_ms(runs: Mapping[Key, Run], rounds: int) -> dict[Key, float]:
    """The least time of each, over turns that all take one after the other."""
    least = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for key, run in runs.items():
            least[key] = min(least[key], run.ms())
    return least
