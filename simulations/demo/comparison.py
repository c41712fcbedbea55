"""One link's frames beside JPEG and WebP: the same pictures, the same accuracy, what each costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.simulations.codecs import Name, Scored, cheapest, paired_standard_error, standard_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.simulations.demo.tally import Tally

TOLERANCE = 0.01
"""How much less accurate than ours a codec's setting may be and still count as the same."""
CODECS: tuple[Name, ...] = ("WebP", "JPEG")


@dataclass(frozen=True)
class Peer:
    """A codec at our accuracy."""

    codec: Name
    scored: Scored | None
    """Its cheapest setting that is accurate enough, on the pictures compared; None if no setting is."""
    times_ours: float | None
    """Its bytes over ours; None where ours has none, as the device answered all."""
    difference: float | None
    """Its accuracy less ours."""
    error: float | None
    """Standard error of that difference, picture by picture."""
    transfer_s: float | None
    """Time of such a picture on the link."""


@dataclass(frozen=True)
class Comparison:
    """One link's frames and what codecs would have cost on the same pictures."""

    tally: Tally
    count: int
    """Pictures that both were measured on."""
    mean_bytes: float
    accuracy: float
    error: float
    """Standard error of the accuracy."""
    untouched: float
    """Accuracy of the unsplit network on the pictures as they are."""
    transfer_s: float
    """Time of one of our frames on the link, by its bytes; reckoned like the peers'."""
    peers: tuple[Peer, ...]


def compare(tally: Tally, scored: Sequence[Scored]) -> Comparison | None:
    """Compare a link's frames with scored codecs; None if no picture was both sent and scored.

    A time on the link is that of the bytes and of what gRPC adds to each of our frames (nothing, if the run was too
    short to see it), at the link's rate and delay.
    """
    index, right, sizes = tally.first_of(len(scored[0].correct))
    if len(index) == 0:
        return None
    same = [
        Scored(one.setting, one.sizes[index], one.file_sizes[index], one.correct[index]) for one in scored
    ]  # the pictures that this device got through
    accuracy, mean_bytes = float(right.mean()), float(sizes.mean())
    added = 0.0 if math.isnan(tally.added_bytes) else tally.added_bytes

    def transfer_s(size: float) -> float:
        return tally.link.up.finish(0, size + added) + tally.link.up_delay_s

    def peer(codec: Name) -> Peer:
        found = cheapest(same, codec, accuracy, TOLERANCE)
        if found is None:
            return Peer(codec, None, None, None, None, None)
        size = float(found.sizes.mean())
        error = paired_standard_error(found.correct, right)
        return Peer(
            codec, found, size / mean_bytes if mean_bytes else None, found.accuracy - accuracy, error, transfer_s(size)
        )

    return Comparison(
        tally=tally,
        count=len(index),
        mean_bytes=mean_bytes,
        accuracy=accuracy,
        error=standard_error(accuracy, len(index)),
        untouched=same[0].accuracy,
        transfer_s=transfer_s(mean_bytes),
        peers=tuple(map(peer, CODECS)),
    )
