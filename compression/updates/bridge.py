"""A long chain of updates as one that is short and exact: for who was away for long, or comes new.

A device reaches the newest version by adding every update since its own, in turn, and has then the server's very bits.
The sum of them all added at once would be rounded elsewhere and give other bits, so another version. Instead the
difference of the two versions is sent without loss; where adding even that is rounded, which happens to weights that
come near zero, what is missing is sent as another update, which is next to nothing.

Of a network that changed all over this is some 2 bytes a coordinate, however long the chain was. Sparse updates are
far smaller, so that it pays off after hundreds of them: `cheaper` takes what is less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.errors import UpdateError
from headwater.compression.updates.codec import Encoded, encode
from headwater.compression.updates.scheme import Scheme

if TYPE_CHECKING:
    from headwater.compression.updates.flat import Arrays
    from headwater.compression.updates.layout import Layout

MAX_UPDATES = 8
"""Far more than it takes: each leaves nothing, or what its own rounding did, and two or three leave nothing."""


def bridge(held: Arrays, target: Arrays, layout: Layout, *, base: bytes) -> list[Encoded]:
    """Encode updates that lead from one version to another, to the last bit, when their arrays are added in turn.

    Args:
        held: float32 arrays of the version that the receiver has.
        target: of the version that it is to have.
        layout: of both.
        base: the version that is held; all updates carry it.

    Returns:
        None, one or a few updates.

    Raises:
        UpdateError: if arrays are not the layout's, or the target has a -0.0, which no sum gives.
    """
    layout.check(held)
    layout.check(target)
    found: list[Encoded] = []
    while not _same(held, target):
        if len(found) == MAX_UPDATES:
            raise UpdateError("a version cannot be reached by adding: it has a -0.0, or what is held is not finite")
        missing = {name: target[name] - held[name] for name in layout.shapes}
        found.append(encode(missing, layout, Scheme("float32"), base=base))
        held = {name: held[name] + found[-1].decoded[name] for name in layout.shapes}
    return found


def cheaper(chain: Sequence[bytes], bridged: Sequence[Encoded]) -> bool:
    """Whether the updates of a bridge are fewer bytes than those of a chain."""
    return sum(len(each.data) for each in bridged) < sum(map(len, chain))


def _same(held: Arrays, target: Arrays) -> bool:
    return all(np.array_equal(held[name].view(np.uint32), target[name].view(np.uint32)) for name in target)
