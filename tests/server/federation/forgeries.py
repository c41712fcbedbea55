"""Replies of a device that are wrong, each in its own way; what a round makes of one is nothing, and a word for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Message, MetricRecord

from headwater.compression.updates import Scheme, encode
from headwater.server.federation.survey import survey
from headwater.server.federation.versions import FOLDER
from tests.server.federation import fleets, toy

Forgery = Callable[[Message], Message]


def _up(**changes: object) -> Forgery:
    def forged(reply: Message) -> Message:
        if "up" in reply.content:
            for name, value in changes.items():
                reply.content["up"][name] = value  # type: ignore[assignment]
        return reply

    return forged


def _without(name: str) -> Forgery:
    def forged(reply: Message) -> Message:
        del reply.content[name]
        return reply

    return forged


def _update(change: Callable[[bytes], bytes]) -> Forgery:
    def forged(reply: Message) -> Message:
        reply.content["up"]["update"] = change(bytes(reply.content["up"]["update"]))  # type: ignore[arg-type]
        return reply

    return forged


def _metrics(**changes: float) -> Forgery:
    def forged(reply: Message) -> Message:
        reply.content["metrics"] = MetricRecord({"num-examples": 40, "loss": 1.0, **changes})
        return reply

    return forged


def _coded(width: float, value: float, base: str = "") -> Forgery:
    """An update of this width whose values are all the same."""

    def forged(reply: Message) -> Message:
        layout = toy.OUTLINE.block(width, "all")
        delta = {name: np.full(shape, value, np.float32) for name, shape in layout.shapes.items()}
        sent = str(reply.content["up"]["base"])
        data = encode(delta, layout, Scheme("float32"), base=bytes.fromhex(base or sent)).data
        reply.content["up"]["update"] = data
        return reply

    return forged


WRONG: dict[str, tuple[str, Forgery]] = {
    "no record": ("malformed", _without("up")),
    "no metrics": ("malformed", _without("metrics")),
    "no update": ("malformed", _up(update="text")),
    "no bytes": ("malformed", _up(update=b"")),
    "cut bytes": ("malformed", _update(lambda data: data[: len(data) // 2])),
    "a flipped bit": ("malformed", _update(lambda data: data[:-1] + bytes([data[-1] ^ 1]))),
    "random bytes": ("malformed", _update(lambda data: np.random.default_rng(0).bytes(len(data)))),
    "no nonce": ("malformed", _up(nonce="")),
    "a huge nonce": ("malformed", _up(nonce="x" * 5000)),
    "an unknown width": ("width", _up(width=0.7)),
    "not a number for a width": ("width", _up(width=float("nan"))),
    "an unknown part": ("width", _up(part="feet")),
    "the shapes of another width": ("malformed", _coded(0.5, 1.0)),
    "an old version": ("stale", _up(base="00" * 16)),
    "bytes of an old version": ("stale", _coded(1.0, 1.0, base="00" * 16)),
    "no examples": ("examples", _metrics(**{"num-examples": 0})),
    "endless examples": ("examples", _metrics(**{"num-examples": float("inf")})),
    "fewer than no examples": ("examples", _metrics(**{"num-examples": -5})),
    "an absurd norm": ("norm", _coded(1.0, 1e6)),
}


def round_without_b(folder: Path) -> bytes:
    """The model of a round in which the device `b` does not take part."""
    honest = fleets.grid({name: width for name, width in fleets.FIVE.items() if name != "b"})
    return fleets.bytes_of(fleets.run(fleets.strategy(folder, fleets.settings(rounds=1)), honest))


def round_with(folder: Path, forgery: Forgery) -> tuple[dict[str, int], list[int], bytes]:
    """A round in which `b` replies like this: how often it was refused by which word, whether the others counted, and
    the model."""
    grid = fleets.grid(tamper={"b": forgery})
    arrays = fleets.run(fleets.strategy(folder / FOLDER, fleets.settings(rounds=1)), grid)
    devices = {each.device: each for each in survey(folder).devices}
    return dict(devices["b"].refusals), [devices[name].states["believed"] for name in "acde"], fleets.bytes_of(arrays)
