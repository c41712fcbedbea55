"""From a bundle to a trainable network, the same arrays to the last bit on every machine.

    weights.safetensors   head, gains, prior and decoder, as :func:`stored` writes them: large arrays in half precision
    head_1.onnx           strides and activations of the head's layers
    tail_<task>.onnx      the tails: norms folded, large weights as 8-bit integers with a scale for each output channel
    exit.onnx             the local exit

Nothing is computed on the way but casts and, for 8-bit weights, one product each, which IEEE 754 leaves no choice
about. A tail has no norm then: each convolution is followed by a shift.
Sizes are read from the arrays, so that a network that was pruned reads like any other.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from headwater.compression.decoder import Decoder
from headwater.compression.encoder import Head
from headwater.compression.entropy import FactorizedPrior, GainUnit
from headwater.compression.errors import BundleError
from headwater.compression.learning.exit_net import ExitNet
from headwater.compression.learning.network import Parts, SplitNetwork
from headwater.compression.learning.tail import Tail, channels_last
from headwater.compression.slimmable import Activation, Affine, ConvNorm, InvertedResidual, norm_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from headwater.compression.bundle import Bundle
    from headwater.compression.manifest import Task

WEIGHTS = "weights.safetensors"
STORED = ("head", "gains", "prior", "decoder")
"""What is in that file; the rest is read from graphs."""
_ACTIVATIONS: dict[str, Activation] = {"Relu": "relu", "Clip": "relu6"}
"""Which activation a node of a graph is."""
HALF_FROM = 1024
"""Arrays of so many numbers are stored in half precision; gains, norms and densities are smaller, and kept whole."""


def stored(network: SplitNetwork) -> dict[str, NDArray[np.generic]]:
    """The arrays of ``weights.safetensors`` of a frozen network."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, value in network.named_parameters():
        if name.split(".")[0] in STORED:
            array = value.detach().contiguous().numpy()
            arrays[name] = array.astype(np.float16) if array.size >= HALF_FROM and array.ndim == 4 else array.copy()
    return arrays


def network_of(bundle: Bundle) -> SplitNetwork:
    """The network that a bundle holds, its norms frozen, in evaluation mode.

    Raises :class:`BundleError` for a bundle that `headwater train` or a rollout did not write.
    """
    widths = bundle.manifest.widths
    weights = _Weights(WEIGHTS, bundle.arrays(WEIGHTS))
    head = _head(weights, _Graph.of(bundle, bundle.mode(widths[-1], 0).head_file), widths)
    modes, C = len(bundle.manifest.modes), head.latent_channels
    gains, prior = GainUnit([1.0] * modes, C), FactorizedPrior(modes, C)
    hidden, features = (len(weights.take(f"decoder.{layer}.weight", 4)) for layer in ("enter", "leave"))
    decoder = Decoder(C, features, modes, hidden)
    for name, module in (("gains", gains), ("prior", prior), ("decoder", decoder)):
        weights.fill(module, name)
    tasks = [task for task in bundle.manifest.tasks if task.labels]
    tails = [read_tail(bundle, task) for task in tasks]
    local = _exit(_Graph.of(bundle, "exit.onnx"), widths) if bundle.manifest.exit is not None else None
    group_ends = tuple(bundle.tables.group_ends.tolist())
    names = tuple(task.name for task in tasks)
    network = SplitNetwork(Parts(head, gains, prior, decoder, tails, local, group_ends, names))
    channels_last(network)
    return network.eval()


def read_tail(bundle: Bundle, task: Task) -> Tail:
    """The tail of a task with labels; raises :class:`BundleError` for a graph that `headwater train` did not write."""
    graph = _Graph.of(bundle, task.tail_file)
    blocks = [_folded_block(graph, f"tail.{index}") for index in range(graph.blocks("tail"))]
    top = _folded_layer(graph, "tail.top")
    classify = nn.Linear(top.conv.out_channels, len(task.labels))
    graph.weights.fill(classify, "tail.classify")
    return Tail(blocks, top, classify).eval()


# ---------------------------------------------------------------- files


@dataclass(frozen=True)
class _Weights:
    """The arrays of a file, by name."""

    file: str
    arrays: Mapping[str, NDArray[Any]]

    def take(self, name: str, axes: int) -> torch.Tensor:
        """An array of so many axes, as float32."""
        found = self.arrays.get(name)
        if found is None or found.ndim != axes:
            raise self.wrong(name, f"an array of {axes} axes", found)
        return torch.from_numpy(found.astype(np.float32))

    @torch.no_grad()
    def fill(self, module: nn.Module, name: str) -> None:
        """Set the parameters of a module, which have its name before theirs."""
        for own, parameter in module.named_parameters():
            found = self.arrays.get(f"{name}.{own}")
            if found is None or found.shape != tuple(parameter.shape):
                raise self.wrong(f"{name}.{own}", str(list(parameter.shape)), found)
            parameter.copy_(torch.from_numpy(found.astype(np.float32)))

    def wrong(self, name: str, wanted: str, found: NDArray[Any] | None) -> BundleError:
        """The error for an array that is missing or of another shape."""
        got = "nothing" if found is None else str(list(found.shape))
        return BundleError(
            f"{self.file} has {got} under {name}, where a bundle of `headwater train` or of a rollout has {wanted}; "
            "build it again with this version"
        )


@dataclass(frozen=True)
class _Graph:
    """What an ONNX graph of :mod:`headwater.server.training.graphs` says of its layers."""

    weights: _Weights
    strides: Mapping[str, int]
    """Of each convolution, by its name."""
    activations: Mapping[str, Activation]
    """Of each layer with one, by the layer's name."""
    side: int
    """Of the input, in pixels or in places of the latent."""

    @classmethod
    def of(cls, bundle: Bundle, file: str) -> Self:
        """Read one of a bundle's graphs; weights kept as integers are multiplied out."""
        graph = onnx.load_from_string(bundle.read(file)).graph
        raw = {value.name: numpy_helper.to_array(value) for value in graph.initializer}
        whole = [name.removesuffix(".int8") for name in raw if name.endswith(".int8")]
        weights = raw | {name: raw[f"{name}.int8"].astype(np.float32) * raw[f"{name}.scale"] for name in whole}
        convolutions = [node for node in graph.node if node.op_type == "Conv"]
        strides = {node.name: helper.get_node_attr_value(node, "strides")[0] for node in convolutions}
        activations = {
            node.name.rpartition(".")[0]: _ACTIVATIONS[node.op_type]
            for node in graph.node
            if node.op_type in _ACTIVATIONS
        }
        side = graph.input[0].type.tensor_type.shape.dim[-1].dim_value
        return cls(_Weights(f"{file} of the bundle {bundle.manifest.name}", weights), strides, activations, side)

    @torch.no_grad()
    def layer(
        self, name: str, weight: torch.Tensor, norms: Mapping[float, Affine], *, depthwise: bool = False
    ) -> ConvNorm:
        """A layer of these arrays, with the stride and the activation that the graph says."""
        outputs, inputs, kernel, _ = weight.shape
        made = ConvNorm(
            outputs if depthwise else inputs,
            outputs,
            kernel,
            stride=self.strides.get(name, 1),  # a projection may be merged into the expansion after it
            depthwise=depthwise,
            activation=self.activations.get(name),
            widths=(),
        )
        made.conv.weight.copy_(weight)
        made.set_norms(norms)
        return made

    def blocks(self, name: str) -> int:
        """How many blocks of inverted residuals come one after the other, the first called ``NAME.0``."""
        return next(index for index in itertools.count() if f"{name}.{index}.depthwise" not in self.strides)


# ---------------------------------------------------------------- layers


def _head(weights: _Weights, graph: _Graph, widths: Sequence[float]) -> Head:
    def layer(name: str, node: str, *, depthwise: bool = False) -> ConvNorm:
        weight = weights.take(f"{name}.conv.weight", 4)
        norms = {width: f"{name}.norms.{norm_key(width)}" for width in widths}
        shifts = {width: weights.take(f"{norm}.shift", 1) for width, norm in norms.items()}
        scaled = len(widths) > 1
        scales = {width: weights.take(f"{norm}.scale", 1) if scaled else None for width, norm in norms.items()}
        affine = {width: Affine.of(scales[width], shifts[width]) for width in widths}
        return graph.layer(node, weight, affine, depthwise=depthwise)

    def block(index: int) -> InvertedResidual:
        name, node = f"head.blocks.{index}", f"early.{index}"
        expand = layer(f"{name}.expand", f"{node}.expand") if f"{node}.expand" in graph.strides else None
        depthwise = layer(f"{name}.depthwise", f"{node}.depthwise", depthwise=True)
        return InvertedResidual(expand, depthwise, layer(f"{name}.project", f"{node}.project"))

    blocks = [block(index) for index in range(graph.blocks("early"))]
    C = len(weights.take("head.bottleneck.weight", 4))
    head = Head(layer("head.stem", "stem"), blocks, C, widths)
    weights.fill(head.bottleneck, "head.bottleneck")
    return head


def _folded_block(graph: _Graph, name: str) -> InvertedResidual:
    expand = _folded_layer(graph, f"{name}.expand") if f"{name}.expand" in graph.strides else None
    depthwise = _folded_layer(graph, f"{name}.depthwise", depthwise=True)
    return InvertedResidual(expand, depthwise, _folded_layer(graph, f"{name}.project"))


def _folded_layer(graph: _Graph, name: str, *, depthwise: bool = False) -> ConvNorm:
    shift = Affine.of(None, graph.weights.take(f"{name}.bias", 1))
    return graph.layer(name, graph.weights.take(f"{name}.weight", 4), {1.0: shift}, depthwise=depthwise)


def _exit(graph: _Graph, widths: Sequence[float]) -> ExitNet:
    def layer(name: str, *, depthwise: bool = False) -> ConvNorm:
        scales, shifts = (graph.weights.take(f"{name}.{kind}", 4)[:, :, 0, 0] for kind in ("scale", "shift"))
        affine = {width: Affine.of(scales[w], shifts[w]) for w, width in enumerate(widths)}
        return graph.layer(name, graph.weights.take(f"{name}.weight", 4), affine, depthwise=depthwise)

    layers = [layer("enter"), layer("filter", depthwise=True), layer("mix")]
    weight = graph.weights.take("classify.weight", 2)
    classify = nn.Linear(weight.shape[1], weight.shape[0])
    graph.weights.fill(classify, "classify")
    return ExitNet(layers, classify, graph.side)
