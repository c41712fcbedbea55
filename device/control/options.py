"""What a picture can be sent as: the bundle's modes and their cuts, those that are worth choosing from.

The accuracies in a manifest are measured on some hundred images, so that a point up or down is noise. Finer
quantisation at the same width keeps all that a coarser one does, so within a width accuracy is taken not to fall with
the gain: where the table says that it does, the modes get their mean (pool adjacent violators, Ayer and others,
"An Empirical Distribution Function for Sampling with Incomplete Information", 1955), and of equals the one with the
fewest bytes counts. A frame cut after some channel groups is never taken for better than the whole one. Across widths
nothing is assumed: each was trained for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater.device.control.controller import OVERHEAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from headwater.compression.manifest import Mode


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """A mode with so many channel groups."""

    mode: int
    groups: int | None
    """None for all."""
    width: float
    mean_bytes: float
    """On the wire."""
    slow_bytes: float
    """95 % of frames have no more, on the wire."""
    accuracy: float
    """0 to 1."""


Table = dict[float, tuple[Option, ...]]
"""By width, narrowest first; the options of a width by their bytes, each more accurate than the one before."""


def table(
    modes: Sequence[Mode],
    accuracy: Callable[[Mapping[str, float]], float],
    max_groups: int | None = None,
    max_bytes: int | None = None,
) -> Table:
    """What may be chosen from, at the server's wishes; where none is small enough, the smallest.

    Args:
        modes: of the manifest.
        accuracy: one figure from the accuracy of each task.
        max_groups: channel groups that may be sent; None for any.
        max_bytes: of a mean frame, without OVERHEAD_BYTES; None for any.
    """
    widths = sorted({mode.width for mode in modes})
    every = [option for width in widths for option in _of(width, modes, accuracy, max_groups)]
    if max_bytes is not None:
        most = max_bytes + OVERHEAD_BYTES
        smallest = min(every, key=lambda option: option.mean_bytes)
        every = [option for option in every if option.mean_bytes <= most] or [smallest]
    by_width = {width: _frontier(option for option in every if option.width == width) for width in widths}
    return {width: options for width, options in by_width.items() if options}


def _of(
    width: float, modes: Sequence[Mode], accuracy: Callable[[Mapping[str, float]], float], max_groups: int | None
) -> list[Option]:
    own = sorted((mode for mode in modes if mode.width == width), key=lambda mode: mode.gain)
    found = []
    for mode, pooled in zip(own, pool([accuracy(mode.accuracy) for mode in own]), strict=True):
        tail = mode.p95_bytes / mode.mean_bytes if mode.mean_bytes else 1.0
        sent: list[tuple[int | None, float, float]] = [
            (cut.groups, cut.mean_bytes, min(accuracy(cut.accuracy), pooled))
            for cut in mode.cuts
            if max_groups is None or cut.groups <= max_groups
        ]
        if max_groups is None or max_groups > len(mode.cuts):
            sent.append((max_groups, mode.mean_bytes, pooled))
        for groups, mean, figure in sent:
            found.append(Option(mode.index, groups, width, mean + OVERHEAD_BYTES, mean * tail + OVERHEAD_BYTES, figure))
    return found


def _frontier(options: Iterable[Option]) -> tuple[Option, ...]:
    """Those that no other is both smaller and at least as accurate."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda option: (option.mean_bytes, -option.accuracy)):
        if not kept or option.accuracy > kept[-1].accuracy:
            kept.append(option)
    return tuple(kept)


def pool(values: Sequence[float]) -> list[float]:
    """The nearest sequence that never falls, by least squares."""
    blocks: list[tuple[float, int]] = []
    for value in values:
        mean, count = value, 1
        while blocks and blocks[-1][0] > mean:
            before, more = blocks.pop()
            mean, count = (mean * count + before * more) / (count + more), count + more
        blocks.append((mean, count))
    return [mean for mean, count in blocks for _ in range(count)]
