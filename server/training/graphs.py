"""From trained modules to ONNX graphs of plain convolutions: norms folded, widths sliced, nothing left to decide.

The graphs are written node by node with ``onnx.helper``: the networks are a dozen kinds of node, the names in the graph
stay those of the modules, and a graph takes milliseconds to make, which federated rounds and tests need.
A test holds each graph against the module it came from.

Legend: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
import torch
from onnx import TensorProto, checker, helper, numpy_helper

from headwater.compression.learning.samples import PIXEL_MEAN, PIXEL_STD
from headwater.compression.learning.tail import Tail
from headwater.compression.slimmable import CEILINGS
from headwater.server.training.lite import Lite0
from headwater.server.training.reconstruct import PIXEL_MIDDLE, PIXEL_SPREAD, SLOPE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from onnx import NodeProto, ValueInfoProto

    from headwater.compression.decoder import Decoder
    from headwater.compression.encoder import Head
    from headwater.compression.image import InputSpec
    from headwater.compression.learning.exit_net import ExitNet
    from headwater.compression.slimmable import ConvNorm, InvertedResidual
    from headwater.server.training.reconstruct import Reconstructor

OPSET = 17  # supported by every onnxruntime since 1.12
IR_VERSION = 8
LARGE_WEIGHT = (
    16384  # elements; the decoder and the heads stay below it and in float, the tail has most of its weights above
)


class Graph:
    """A graph under construction; every method adds nodes and returns the name of the result."""

    def __init__(self) -> None:
        """Start empty."""
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, NDArray[Any]] = {}
        self.macs = 0
        self.parameters = 0

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:  # noqa: ANN401 - ONNX attributes are of any type
        """Add a node with one output, called ``name``."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Add an initializer."""
        self.weights[name] = np.asarray(value)
        return name

    def stored(self, name: str, weight: NDArray[np.float32]) -> str:
        """Add a weight; a large one is kept as 8-bit integers with a float scale for each output channel.

        onnxruntime multiplies it out once, when the graph is loaded, so running costs nothing more; the bundle and
        every download of it become four times smaller. What that does to the answers is in the manifest's figures,
        which are measured with the graphs as they are shipped.
        """
        if weight.size < LARGE_WEIGHT:
            return self.constant(name, weight)
        axes = tuple(range(1, weight.ndim))
        scale = np.maximum(np.abs(weight).max(axis=axes, keepdims=True), 1e-12).astype(np.float32) / 127
        whole = self.constant(f"{name}.int8", np.rint(weight / scale).astype(np.int8))
        x = self.node("Cast", [whole], f"{name}.whole", to=TensorProto.FLOAT)
        return self.node("Mul", [x, self.constant(f"{name}.scale", scale)], name)

    def conv(
        self,
        x: str,
        weight: torch.Tensor,
        bias: torch.Tensor,
        name: str,
        *,
        area: int,
        stride: int = 1,
        groups: int = 1,
    ) -> str:
        """Add a convolution with padding of half its kernel; ``area`` is H * W of its output, for counting."""
        self.stored(f"{name}.weight", weight.detach().contiguous().numpy())
        self.constant(f"{name}.bias", bias.detach().contiguous().numpy())
        kernel = int(weight.shape[-1])
        self.macs += weight.numel() * area
        self.parameters += weight.numel() + bias.numel()
        return self.node(
            "Conv",
            [x, f"{name}.weight", f"{name}.bias"],
            name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=groups,
        )

    def conv_norm(self, x: str, layer: ConvNorm, inputs: int, outputs: int, width: float, name: str, area: int) -> str:
        """Add a :class:`ConvNorm` at a width, its norm folded, with its activation if it has one."""
        weight, bias = layer.folded(inputs, outputs, width)
        groups = outputs if layer.depthwise else 1
        y = self.conv(x, weight, bias, name, area=area, stride=layer.stride, groups=groups)
        return self.activated(y, layer, name)

    def activated(self, x: str, layer: ConvNorm, name: str) -> str:
        """Add what a layer called ``name`` ends with."""
        if layer.activation is None:
            return x
        if layer.activation == "relu":
            return self.node("Relu", [x], f"{name}.relu")
        low, high = self.constant("zero", np.float32(0)), self.constant("six", np.float32(CEILINGS["relu6"]))
        return self.node("Clip", [x, low, high], f"{name}.relu6")

    def blocks(
        self,
        x: str,
        blocks: Sequence[InvertedResidual],
        inputs: int,
        width: float,
        name: str,
        side: int,
        *,
        merge: bool = False,
    ) -> tuple[str, int, int]:
        """Add inverted residual blocks, one after the other; returns the result, its channels and its side in pixels.

        (Square or not, H is given.) With ``merge`` a projection becomes part of the expansion that reads it, where that
        saves multiply-adds; without, every layer can be read back from the graph.
        """
        held: _Linear | None = None
        for index, block in enumerate(blocks):
            here, y, hidden = f"{name}.{index}", x, inputs
            if block.expand is not None:
                weight, bias = block.expand.folded(inputs, block.hidden_at(width), width)
                weight, bias = (weight, bias) if held is None else held.then(weight, bias)
                hidden = block.hidden_at(width)
                y = self.conv(y, weight, bias, f"{here}.expand", area=side * side)
                y = self.activated(y, block.expand, f"{here}.expand")
            side = -(-side // block.depthwise.stride)
            y = self.conv_norm(y, block.depthwise, hidden, hidden, width, f"{here}.depthwise", side * side)
            following = blocks[index + 1] if merge and index + 1 < len(blocks) else None
            inputs = block.project.conv.out_channels
            if following is not None and _cheaper_as_one(block, following, hidden, width):
                held, x = _Linear(*block.project.folded(hidden, inputs, width)), y
                continue
            held = None
            y = self.conv_norm(y, block.project, hidden, inputs, width, f"{here}.project", side * side)
            x = self.node("Add", [x, y], f"{here}.add") if block.residual else y
        return x, inputs, side

    def image(self) -> str:
        """Add the input ``image``, uint8, and its normalisation."""
        x = self.node("Cast", ["image"], "pixels", to=TensorProto.FLOAT)
        x = self.node("Sub", [x, self.constant("pixel_mean", np.float32(PIXEL_MEAN))], "centred")
        return self.node("Mul", [x, self.constant("pixel_scale", np.float32(1 / PIXEL_STD))], "normalised")

    def tail(self, x: str, tail: Tail, features: int, side: int, name: str = "tail") -> str:
        """Add the later blocks and the classifier of a task; returns the logits' name."""
        x, inputs, side = self.blocks(x, list(tail.typed_blocks()), features, 1.0, name, side)
        top = tail.top
        x = self.conv_norm(x, top, inputs, top.conv.out_channels, 1.0, f"{name}.top", side * side)
        x = self.node("GlobalAveragePool", [x], f"{name}.pool")
        x = self.node("Flatten", [x], f"{name}.flat")
        weight = self.stored(f"{name}.classify.weight", tail.classify.weight.detach().numpy())
        bias = self.constant(f"{name}.classify.bias", tail.classify.bias.detach().numpy())
        self.macs += tail.classify.weight.numel()
        self.parameters += tail.classify.weight.numel() + tail.classify.bias.numel()
        return self.node("Gemm", [x, weight, bias], "logits", transB=1)

    def serialise(self, inputs: list[ValueInfoProto], output: str, shape: list[int | str]) -> bytes:
        """Check the finished graph and give its bytes."""
        result = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
        weights = [numpy_helper.from_array(value, name) for name, value in self.weights.items()]
        graph = helper.make_graph(self.nodes, "headwater", inputs, [result], weights)
        model = helper.make_model(
            graph, producer_name="headwater", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        checker.check_model(model, full_check=True)
        serialised: bytes = model.SerializeToString()
        return serialised


def head_graph(head: Head, width: float, spec: InputSpec) -> tuple[bytes, Graph]:
    """The head at a width: ``image`` uint8 [1, C_in, H_in, W_in] to ``latent`` float32 [1, C, H, W]."""
    graph = Graph()
    x, _, side = _early(graph, head.stem, list(head.inverted_residuals()), width, head.stem_channels(width), spec)
    bias = head.bottleneck.bias
    assert bias is not None
    x = graph.conv(x, head.bottleneck.weight, bias, "bottleneck", area=side * side)
    x = graph.node("Identity", [x], "latent")
    return graph.serialise([_image_input(spec)], x, [1, head.latent_channels, side, side]), graph


def decoder_graph(decoder: Decoder, side: int) -> tuple[bytes, Graph]:
    """The decoder: ``latent`` float32 [B, C, H, W] and ``mode`` int64 [B] to ``features`` [B, F, H, W]."""
    graph, area = Graph(), side * side
    x = _plain_conv(graph, "latent", decoder.enter, "enter", area)
    scale = decoder.scale.detach().numpy()[:, :, np.newaxis, np.newaxis]
    shift = decoder.shift.detach().numpy()[:, :, np.newaxis, np.newaxis]
    scale_of = graph.node("Gather", [graph.constant("scale", scale), "mode"], "scale_of")
    shift_of = graph.node("Gather", [graph.constant("shift", shift), "mode"], "shift_of")
    x = graph.node("Mul", [x, scale_of], "scaled")
    x = graph.node("Relu", [graph.node("Add", [x, shift_of], "shifted")], "entered")
    y = _plain_conv(graph, x, decoder.filter, "filter", area, groups=decoder.filter.groups)
    y = graph.node("Relu", [_plain_conv(graph, y, decoder.mix, "mix", area)], "mixed")
    x = _plain_conv(graph, graph.node("Add", [x, y], "added"), decoder.leave, "leave", area)
    direct = _plain_conv(graph, "latent", decoder.direct, "direct", area)
    graph.node("Add", [x, direct], "features")
    inputs = [
        helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["B", decoder.enter.in_channels, side, side]),
        helper.make_tensor_value_info("mode", TensorProto.INT64, ["B"]),
    ]
    return graph.serialise(inputs, "features", ["B", decoder.leave.out_channels, side, side]), graph


def tail_graph(tail: Tail, features: int, side: int) -> tuple[bytes, Graph]:
    """A task's tail: ``features`` float32 [B, F, H, W] to ``logits`` [B, K]."""
    graph = Graph()
    graph.tail("features", tail, features, side)
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", features, side, side])]
    return graph.serialise(inputs, "logits", ["B", tail.classify.out_features]), graph


def exit_graph(model: ExitNet, temperature: NDArray[np.float32]) -> tuple[bytes, Graph]:
    """The local exit: ``latent`` float32 [1, C, H, W] and ``width`` int64 [1], an index, to ``logits`` [1, K].

    ``temperature`` [W] divides the logits of each width. The norms differ by width, so they are not folded.
    """
    graph, side, x = Graph(), model.side, "latent"
    for name, layer in (("enter", model.enter), ("filter", model.filter), ("mix", model.mix)):
        side = -(-side // layer.stride)
        groups = layer.conv.in_channels if layer.depthwise else 1
        bias = torch.zeros(layer.conv.out_channels)
        x = graph.conv(x, layer.conv.weight, bias, name, area=side * side, stride=layer.stride, groups=groups)
        x = _norm_of_width(graph, x, layer, model.widths, name)
    x = graph.node("Flatten", [graph.node("GlobalAveragePool", [x], "pool")], "flat")
    weight = graph.constant("classify.weight", model.classify.weight.detach().numpy())
    bias_of_class = graph.constant("classify.bias", model.classify.bias.detach().numpy())
    x = graph.node("Gemm", [x, weight, bias_of_class], "raw", transB=1)
    graph.macs += model.classify.weight.numel()
    certainty = graph.constant("certainty", 1 / temperature[:, np.newaxis])
    graph.node("Mul", [x, graph.node("Gather", [certainty, "width"], "certainty_of")], "logits")
    inputs = [
        helper.make_tensor_value_info("latent", TensorProto.FLOAT, [1, model.channels, model.side, model.side]),
        helper.make_tensor_value_info("width", TensorProto.INT64, [1]),
    ]
    return graph.serialise(inputs, "logits", [1, model.classify.out_features]), graph


def _norm_of_width(graph: Graph, x: str, layer: ConvNorm, widths: Sequence[float], name: str) -> str:
    """The norm of the width that the graph is told, and the layer's activation."""
    factors = [layer.norm_factors(width) for width in widths]
    for kind, node, values in zip(("scale", "shift"), ("Mul", "Add"), zip(*factors, strict=True), strict=True):
        table = graph.constant(f"{name}.{kind}", torch.stack(values)[:, :, None, None].numpy())
        x = graph.node(node, [x, graph.node("Gather", [table, "width"], f"{name}.{kind}_of")], f"{name}.{kind}d")
    return graph.activated(x, layer, name)


def picture_graph(model: Reconstructor, features: int, side: int) -> tuple[bytes, Graph]:
    """The tail that gives a picture: ``features`` float32 [B, F, H, W] to ``image`` [B, C_in, H_in, W_in], 0..255."""
    graph = Graph()
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["B", features, side, side])]
    x = _plain_conv(graph, "features", model.enter, "enter", side * side)
    for index, step in enumerate(model.typed_steps()):
        name, area = f"step.{index}", side * side
        x = graph.node("LeakyRelu", [x], f"{name}.relu", alpha=SLOPE)
        y = _plain_conv(graph, x, step.filter, f"{name}.filter", area, groups=step.filter.groups)
        y = _plain_conv(graph, y, step.mix, f"{name}.mix", area)
        y = graph.node("LeakyRelu", [y], f"{name}.mixed", alpha=SLOPE)
        x = _plain_conv(graph, graph.node("Add", [x, y], f"{name}.add"), step.spread, f"{name}.spread", area)
        x = graph.node("DepthToSpace", [x], f"{name}.double", blocksize=2, mode="CRD")
        side *= 2
    direct = _plain_conv(graph, "features", model.direct, "direct", (side // model.patch) ** 2)
    direct = graph.node("DepthToSpace", [direct], "patches", blocksize=model.patch, mode="CRD")
    x = graph.node("Add", [x, direct], "added")
    x = graph.node("Mul", [x, graph.constant("pixel_spread", np.float32(PIXEL_SPREAD))], "spread")
    x = graph.node("Add", [x, graph.constant("pixel_middle", np.float32(PIXEL_MIDDLE))], "pixels")
    low, high = graph.constant("black", np.float32(0)), graph.constant("white", np.float32(255))
    graph.node("Clip", [x, low, high], "image")
    return graph.serialise(inputs, "image", ["B", model.channels, side, side]), graph


def local_graph(model: Lite0, spec: InputSpec) -> tuple[bytes, Graph]:
    """The whole unsplit network for its first task: ``image`` uint8 [1, C, H, W] to ``logits`` [1, K]."""
    graph = Graph()
    stem_channels = model.stem.conv.out_channels
    x, channels, side = _early(graph, model.stem, list(model.typed_blocks()), 1.0, stem_channels, spec)
    tail = next(model.typed_tails())
    graph.tail(x, tail, channels, side)
    return graph.serialise([_image_input(spec)], "logits", [1, tail.classify.out_features]), graph


def _early(
    graph: Graph, stem: ConvNorm, blocks: list[InvertedResidual], width: float, stem_channels: int, spec: InputSpec
) -> tuple[str, int, int]:
    """Stem and blocks; returns the result, its channels and its side."""
    side = -(-spec.height // stem.stride)
    x = graph.conv_norm(graph.image(), stem, spec.channels, stem_channels, width, "stem", side * side)
    return graph.blocks(x, blocks, stem_channels, width, "early", side, merge=True)


def _cheaper_as_one(block: InvertedResidual, following: InvertedResidual, hidden: int, width: float) -> bool:
    """Whether a block's projection and the next one's expansion take fewer multiply-adds as one convolution.

    They can be one where nothing else reads what is between them.
    """
    if block.residual or following.residual or following.expand is None:
        return False
    between, wide = block.project.conv.out_channels, following.hidden_at(width)
    return hidden * wide < hidden * between + between * wide


class _Linear(NamedTuple):
    """A convolution of one place, without an activation, that is not written by itself."""

    weight: torch.Tensor
    """[O, I, 1, 1]."""
    bias: torch.Tensor
    """[O]."""

    def then(self, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """This and then a convolution of weight [P, O, 1, 1] and bias [P], as the weight and bias of one."""
        first, second = self.weight.flatten(1).double(), weight.flatten(1).double()
        return (second @ first)[:, :, None, None].float(), (bias + second @ self.bias.double()).float()


def _plain_conv(graph: Graph, x: str, layer: torch.nn.Conv2d, name: str, area: int, groups: int = 1) -> str:
    assert layer.bias is not None
    return graph.conv(x, layer.weight, layer.bias, name, area=area, groups=groups)


def with_batch(data: bytes) -> bytes:
    """A head's graph that takes any number of images at a time, for training; the head is written for one."""
    model = onnx.load_from_string(data)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "B"
    serialised: bytes = model.SerializeToString()
    return serialised


def _image_input(spec: InputSpec) -> ValueInfoProto:
    return helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *spec.shape])
