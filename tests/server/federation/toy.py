"""A ClientApp of numpy alone: a linear map learnt by gradient steps, with nested widths and all of the wire's records.

It speaks what headwater's own app speaks, so that rounds can be tried without torch and in milliseconds.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from headwater.compression.learning.arrays import version_of
from headwater.compression.updates import Layout, Scheme, decode, encode
from headwater.server.federation.outline import Outline

Arrays = dict[str, np.ndarray[Any, np.dtype[np.float32]]]
OUT, IN = 4, 6
SHAPES = {"head.w": (OUT, IN), "tail.b": (OUT,)}
LAYOUT = Layout(
    SHAPES,
    {
        0.5: {"head.w": (slice(0, 2), slice(0, 3)), "tail.b": (slice(0, 2),)},
        0.25: {"head.w": (slice(0, 1), slice(0, 2))},
    },
)
OUTLINE = Outline.of(LAYOUT, frozenset({"head.w"}))
ZERO = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
EXACT = Scheme("float32").to_json()


def truth() -> Arrays:
    rng = np.random.default_rng(5)
    return {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in SHAPES.items()}


def error_of(arrays: Arrays) -> float:
    """Mean squared distance from what is to be learnt."""
    return float(np.mean([np.square(arrays[name] - array).mean() for name, array in truth().items()]))


def initial() -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in ZERO.items()})


app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    arrays, version = _arrive(message, context)
    asked = message.content["round"]
    width = min(float(asked["width"]), float(context.node_config.get("width", 1.0)))
    width = max(w for w in LAYOUT.widths if w <= width)
    part = str(context.node_config.get("part", asked["part"]))
    layout = OUTLINE.block(width, part)
    start = {name: array.copy() for name, array in LAYOUT.cut(arrays, width).items() if name in layout.shapes}
    steps = int(context.node_config.get("steps", 5))
    after, loss = _learn(start, context, int(asked["seed"]), steps, float(asked["rate"]))
    rest = _rest(context, width, layout)
    delta = {name: after[name] - start[name] + rest[name] for name in start}
    coded = encode(delta, layout, Scheme.from_json(str(asked["scheme"])), base=bytes.fromhex(version))
    _keep_rest(context, width, {name: delta[name] - coded.decoded[name] for name in delta})
    nonce = hashlib.sha256(f"{context.node_id}/{asked['round']}/{version}".encode()).hexdigest()
    up = {"base": version, "width": width, "part": part, "update": coded.data, "nonce": nonce}
    metrics = {"num-examples": 40, "loss": loss, "steps": steps, "seconds": 0.1, "peak-bytes": 1000}
    records = {"up": ConfigRecord(up), "metrics": MetricRecord(metrics)}  # type: ignore[arg-type]
    if asked["gather"]:
        records["gradients"] = ArrayRecord({"head.w": Array(np.ones((OUT, IN), np.float32))})  # type: ignore[assignment]
    return Message(RecordDict(records), reply_to=message)  # type: ignore[arg-type]


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    arrays, _ = _arrive(message, context)
    figures = {"num-examples": 40, "loss": error_of(arrays), "accuracy": 1 / (1 + error_of(arrays))}
    return Message(RecordDict({"metrics": MetricRecord(figures)}), reply_to=message)  # type: ignore[arg-type]


def _arrive(message: Message, context: Context) -> tuple[Arrays, str]:
    """Follow the chain to the base; what is held lives in the state."""
    down, base = message.content["down"], str(message.content["round"]["base"])
    state = context.state
    held = _arrays(state["held"]) if "held" in state else {n: a.copy() for n, a in ZERO.items()}
    versions: list[str] = list(down["versions"])
    version = version_of(held)
    todo = list(down["updates"])[versions.index(version) + 1 :] if version in versions else list(down["updates"])
    for data in todo if version != base else []:
        update = decode(data, LAYOUT)
        if update.base.hex() != version:
            raise ValueError(
                f"unknown version: this device holds {version}, the update starts from {update.base.hex()}"
            )
        held = {name: held[name] + update.arrays[name] for name in held}
        version = version_of(held)
    if version != base:
        raise ValueError(f"unknown version: this device holds {version}, and was asked for {base}")
    state["held"] = ArrayRecord({name: Array(array) for name, array in held.items()})
    return held, version


def _learn(arrays: Arrays, context: Context, seed: int, steps: int, rate: float) -> tuple[Arrays, float]:
    rng = np.random.default_rng([seed, context.node_id % 2**32])
    goal = truth()
    x = rng.normal(0, 1, (40, IN)).astype(np.float32)
    y = x @ goal["head.w"].T + goal["tail.b"]
    arrays, loss = dict(arrays), 0.0
    rows, columns = arrays["head.w"].shape
    for _ in range(steps):
        bias = arrays.get("tail.b", np.zeros(rows, np.float32))[:rows]
        off = x[:, :columns] @ arrays["head.w"].T + bias - y[:, :rows]
        loss = float(np.square(off).mean())
        arrays["head.w"] = (arrays["head.w"] - rate * off.T @ x[:, :columns] / 40).astype(np.float32)
        if "tail.b" in arrays:
            arrays["tail.b"] = (arrays["tail.b"] - rate * off.mean(axis=0)).astype(np.float32)
    return arrays, loss


def _rest(context: Context, width: float, layout: Layout) -> Arrays:
    key = f"rest-{width}"
    rest = _arrays(context.state[key]) if key in context.state else {}
    return {name: rest.get(name, np.zeros(shape, np.float32)) for name, shape in layout.shapes.items()}


def _keep_rest(context: Context, width: float, rest: Arrays) -> None:
    context.state[f"rest-{width}"] = ArrayRecord({name: Array(array) for name, array in rest.items()})


def _arrays(record: ArrayRecord) -> Arrays:
    return {name: array.numpy() for name, array in record.items()}


def scheme(**values: object) -> str:
    return json.dumps(values)
