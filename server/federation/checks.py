"""What a device's reply has to be before it may touch the network; each reason to refuse one has a word of its own.

A reply is bytes from a machine that may be broken, out of date or in other hands. Whatever is wrong with it, it is
refused alone, counted, and named by its device and this word, and the round goes on with the others.

    error        the device itself says that it could not
    malformed    records are missing, or the update's bytes are none
    examples     the number of examples is no positive number
    width        another width or part than was asked for, or none that the network has
    stale        it starts from a version that is too old, or that was never sent to it
    replayed     an update with this nonce was taken before
    non-finite   a value is infinite or not a number
    norm         it is longer, for each of its coordinates, than the bound times the median of its round
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.compression.errors import LearningError, UpdateError
from headwater.compression.updates import decode
from headwater.server.federation.averaging import Contribution

if TYPE_CHECKING:
    from flwr.app import ConfigRecord, Message
    from numpy.typing import NDArray

    from headwater.server.federation.outline import Outline

MOST_EXAMPLES = 10.0
"""A device weighs at most so many times the median of its round, whatever it claims."""
_NONCE_LETTERS = 128


class Refused(LearningError):  # noqa: N818 - it is a verdict, and caught as one
    """A reply that must not be used; the word and the detail of why."""

    def __init__(self, word: str, detail: str) -> None:
        super().__init__(f"{word}: {detail}")
        self.word = word


@dataclass(frozen=True)
class Asked:
    """What the device was asked for, and what may be known of its reply already."""

    node: int
    device: str
    base: str
    width: float = 1.0
    part: str = "all"
    masks: Mapping[str, NDArray[np.bool_]] | None = None
    """Outside these its update codes nothing."""


def read(reply: Message, asked: Asked, outline: Outline, seen: Callable[[str], bool]) -> tuple[Contribution, str]:
    """The contribution that a reply holds, and its nonce; `seen` says whether a nonce was used.

    Raises:
        Refused: it must not be used.
    """
    if reply.has_error():
        raise Refused("error", reply.error.reason or "no reason given")
    up, metrics = _record(reply, "up"), metrics_of(reply)
    base, width, part, nonce = (_field(up, name, kind) for name, kind in _UP)
    if base != asked.base:
        raise Refused("stale", f"it starts from version {base[:40]!r}; the device was sent {asked.base}")
    if not 0 < len(nonce) <= _NONCE_LETTERS:
        raise Refused("malformed", f"its nonce has {len(nonce)} letters; it needs 1 to {_NONCE_LETTERS}")
    if seen(nonce):
        raise Refused("replayed", f"an update with the nonce {nonce} was taken before")
    _check_size(width, part, asked, outline)
    delta = _decoded(_field(up, "update", bytes), width, part, asked, outline)
    examples = metrics.get("num-examples", 0.0)
    if not (math.isfinite(examples) and examples > 0):
        raise Refused("examples", f"it says that it trained on {examples} examples")
    places = {name: outline.layout.slices[width][name] if width < 1 else () for name in delta}
    gathered = {name: _plain(record) for name, record in reply.content.items() if name not in {"up", "metrics"}}
    return (
        Contribution(
            asked.node, asked.device, examples, delta, places, width, part, base, metrics=metrics, gathered=gathered
        ),
        nonce,
    )


_UP: Sequence[tuple[str, Any]] = (("base", str), ("width", float), ("part", str), ("nonce", str))


def _record(reply: Message, name: str) -> ConfigRecord:
    records = reply.content.config_records
    if name not in records:
        raise Refused("malformed", f"it has no record {name!r}, only {', '.join(reply.content) or 'nothing'}")
    return records[name]


def metrics_of(reply: Message) -> dict[str, float]:
    """The figures of a reply; raises :class:`Refused` if it has none."""
    records = reply.content.metric_records
    if "metrics" not in records:
        raise Refused("malformed", "it has no record 'metrics'")
    return {name: float(value) for name, value in records["metrics"].items() if isinstance(value, int | float)}


def _field(record: ConfigRecord, name: str, kind: Any) -> Any:  # noqa: ANN401 - the kind is the type
    value = record.get(name)
    if not isinstance(value, kind):
        raise Refused("malformed", f"of its record 'up', {name} is {value!r:.60}; a {kind.__name__} is wanted")
    return value


def _check_size(width: float, part: str, asked: Asked, outline: Outline) -> None:
    if width not in outline.widths:
        raise Refused("width", f"it trained width {width}; the network has {', '.join(map(str, outline.widths))}")
    if width > asked.width:
        raise Refused("width", f"it trained width {width}; it was asked for {asked.width} at most")
    if part not in outline.parts:
        raise Refused("width", f"it trained the part {part[:40]!r}; there are {', '.join(outline.parts)}")
    if asked.part not in {"all", part}:
        raise Refused("width", f"it trained the part {part!r}; it was asked for {asked.part!r}")


def _decoded(data: bytes, width: float, part: str, asked: Asked, outline: Outline) -> dict[str, NDArray[np.float32]]:
    layout = outline.block(width, part)
    try:
        update = decode(data, layout, mask=outline.cut_masks(asked.masks, width, part))
    except UpdateError as error:
        raise Refused("non-finite" if "not finite" in str(error) else "malformed", str(error)) from error
    if update.base != bytes.fromhex(asked.base):
        raise Refused("stale", f"its bytes start from version {update.base.hex()}; it says {asked.base}")
    return dict(update.arrays)


def _plain(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any record of Flower
    """A record as a dictionary: arrays as numpy, whatever else as it is."""
    return {name: value.numpy() if hasattr(value, "numpy") else value for name, value in record.items()}


# ---------------------------------------------------------------- what only shows beside the others


def length(contribution: Contribution) -> float:
    """The root mean square of its coordinates: that of a narrow update can be held against that of a wide one."""
    total = math.fsum(float(np.square(array, dtype=np.float64).sum()) for array in contribution.delta.values())
    return math.sqrt(total / max(1, sum(array.size for array in contribution.delta.values())))


def too_long(contributions: Sequence[Contribution], bound: float, known: float) -> dict[int, Refused]:
    """Those whose length is beyond `bound` times the median of three or more; of fewer, times the last `known` median.

    By their index in `contributions`; a `known` of 0 is none.
    """
    lengths = [length(each) for each in contributions]
    middle = typical(lengths) if len(lengths) >= 3 else known
    return {
        i: Refused("norm", f"its length is {found:.3g}, {found / middle:.1f} times the usual; {bound:g} is the bound")
        for i, found in enumerate(lengths)
        if middle > 0 and found > bound * middle
    }


def typical(lengths: Sequence[float]) -> float:
    """The median of those that are not 0; 0 if all are."""
    some = [each for each in lengths if each > 0]
    return float(np.median(some)) if some else 0.0


def capped(contributions: Sequence[Contribution]) -> list[Contribution]:
    """No device weighs more than `MOST_EXAMPLES` times the median, however many examples it claims."""
    most = MOST_EXAMPLES * float(np.median([each.examples for each in contributions])) if contributions else 0.0
    return [replace(each, examples=min(each.examples, most)) for each in contributions]
