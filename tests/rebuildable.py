"""A bundle of a few thousand weights that carries all that building it again takes, made in a second."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from PIL import Image

from headwater.compression.bundle import Bundle, to_safetensors
from headwater.compression.learning.reading import WEIGHTS, stored
from headwater.compression.learning.samples import Samples
from headwater.compression.manifest import Manifest, Task
from headwater.server.rollout.build import Held
from headwater.server.training.build import WHOLE, finish, split_graphs
from headwater.server.training.recipe import DIGITS
from tests.compression.learning import small

TASK = Task("kind", ("a", "b", "c"))
THEN = "2026-01-01T00:00:00+00:00"


def samples(count: int, seed: int) -> Samples:
    labels = torch.arange(count) % small.CLASSES
    return Samples(small.images(count, seed), {TASK.name: labels})


IMAGES = Held(samples(12, 1), samples(12, 2))


@cache
def parent() -> Bundle:
    """A bundle of a network of a few thousand weights; its whole model is the widest head, which does for a file."""
    network = small.network()
    graphs = split_graphs(network, small.SPEC, (TASK,))
    files = {**graphs.files, WEIGHTS: to_safetensors(stored(network)), WHOLE: whole()}
    manifest = Manifest(
        *("small", THEN, small.SPEC, graphs.latent, graphs.modes, (TASK,)), data={"name": "small", "split": "0"}
    )
    return finish(manifest, files, network, IMAGES.train, IMAGES.test).bundle


def whole() -> bytes:
    """Logits of the mean of each third of the picture."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["rows"], axes=[1, 3], keepdims=0),
        helper.make_node("Slice", ["rows", "starts", "ends", "axes"], ["logits"]),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("starts", 0), ("ends", small.CLASSES), ("axes", 1))
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *small.SPEC.shape])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, small.CLASSES])
    graph = helper.make_graph(nodes, "whole", [image], [logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@cache
def with_recipe() -> Bundle:
    """The parent, with what `headwater train` says of itself."""
    gains = {"start_gains": (1.0, 4.0), "rate_weights": (3e-4, 1e-4), "widths": small.WIDTHS}
    recipe = replace(DIGITS, colour=small.SPEC.mode, side=small.SPEC.width, **gains).to_json()
    manifest = replace(parent().manifest, recipe=recipe)
    return Bundle.build(manifest, {name: parent().read(name) for name in parent().manifest.files})


def photos(folder: Path, count: int) -> Path:
    """Pictures, a sub-folder a class: of each class another third is bright."""
    for at in range(count):
        kind = at % small.CLASSES
        pixels = small.images(1, at)[0, 0].numpy() // 4
        pixels[:, kind * 11 : (kind + 1) * 11] += 150
        path = folder / TASK.labels[kind] / f"{at:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder
