"""What hostile devices send in place of what they learnt: updates that pass for honest ones in their bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.compression.learning.layout import belongs
from headwater.compression.updates import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from flwr.app import ConfigRecord, Message
    from numpy.typing import NDArray

    from headwater.compression.updates import Layout

    Change = Callable[[NDArray[np.float32]], NDArray[np.float32]]

SCALED = 10.0
"""How many times too long a scaled update is."""


def lied(reply: Message, kind: str, layout: Layout, seed: int) -> Message:
    """The reply with another update: `sign-flip`, `scaled` or `noise` as strong as what was learnt."""
    if reply.has_error() or "up" not in reply.content:
        return reply
    up = reply.content.config_records["up"]
    block, change = _block(layout, up), _change(kind, seed)
    update = decode(bytes(up["update"]), block)  # type: ignore[arg-type]  # the app has written bytes
    up["update"] = encode(
        {name: change(array) for name, array in update.arrays.items()}, block, update.scheme, base=update.base
    ).data
    return reply


def _change(kind: str, seed: int) -> Change:
    rng = np.random.default_rng(seed)

    def noise(array: NDArray[np.float32]) -> NDArray[np.float32]:
        return rng.normal(0, float(np.abs(array).max(initial=0)) or 1e-3, array.shape).astype(np.float32)

    changes: dict[str, Change] = {
        "sign-flip": lambda array: -array,
        "scaled": lambda array: np.float32(SCALED) * array,
        "noise": noise,
    }
    return changes[kind]


def _block(layout: Layout, up: ConfigRecord) -> Layout:
    """The layout of what the update is of."""
    inside = layout.at(float(up["width"]))  # type: ignore[arg-type]  # the app has written a number
    if up["part"] == "all":
        return inside
    shapes: dict[str, Any] = {name: shape for name, shape in inside.shapes.items() if belongs(name, "head")}
    return replace(inside, shapes=shapes)
