"""The prior as integers: one frequency table a mode and channel, built once and shipped in the bundle.

Training learns a float prior. Floats round differently on different machines, and an entropy coder whose two ends
disagree by one slot decodes noise; so the float prior is turned into integers once, here, on the machine that builds
the bundle, and both ends load the same integers.

A table has 65536 slots. It lists the slots of the symbols low, low + 1, ... and last those of ESCAPE, by which a symbol
outside the table is sent. docs/wire-format.md has the arrays of ``tables.safetensors`` one by one.

Letters: M modes, C channels of the full latent, G channel groups, n symbols of a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from headwater.compression.arrays import ArrayFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOTAL = 1 << 16
"""Slots of a table: probabilities are multiples of 1 / 65536."""
MAX_MODES = 64
MAX_CHANNELS = 255
TWO_LANES_FROM_BYTES = 4000
"""Mean payload from which on a mode is coded in two lanes: they double the speed and cost about ten bytes."""
TRIM_BELOW_SLOTS = 0.5
"""A symbol at a table's edge that is due fewer slots is left to ESCAPE: its one slot would cost the others more."""


@dataclass(frozen=True, eq=False)
class PriorTables(ArrayFile):
    """Integer frequency tables, gains and channel groups of all modes of a bundle; checked when made."""

    FILE: ClassVar[str] = "tables.safetensors"
    DTYPES: ClassVar[Mapping[str, type[np.generic]]] = {
        "frequencies": np.uint16,
        "starts": np.uint32,
        "low": np.int16,
        "gain": np.float32,
        "step": np.float32,
        "group_ends": np.uint8,
        "lanes": np.uint8,
    }

    frequencies: NDArray[np.uint16]
    """[total]: slots of every symbol, table after table; each at least 1, each table's sum 65536."""
    starts: NDArray[np.uint32]
    """[M * C + 1]: where table m * C + c begins in `frequencies`. A mode has no tables for channels that it lacks."""
    low: NDArray[np.int16]
    """[M * C]: the first symbol of each table."""
    gain: NDArray[np.float32]
    """[M, C]: a symbol is ``rint(latent * gain)``."""
    step: NDArray[np.float32]
    """[M, C]: the decoder's latent is ``symbol * step``."""
    group_ends: NDArray[np.uint8]
    """[G]: channels up to the end of each group, rising; the last is C."""
    lanes: NDArray[np.uint8]
    """[M]: 1, or 2 where a mode's frames are large enough to be coded in two lanes."""

    def __post_init__(self) -> None:
        """Check every array against the others; raises :class:`BundleError`."""
        self.check_dtypes()
        self._check_shapes()
        self._check_values()
        self._check_tables()

    def _check_shapes(self) -> None:
        if self.gain.ndim != 2 or not (1 <= self.modes <= MAX_MODES and 1 <= self.channels <= MAX_CHANNELS):
            raise self.wrong(f"gain has shape {self.gain.shape}; want [M, C], 1 to {MAX_MODES} by 1 to {MAX_CHANNELS}")
        tables = self.modes * self.channels
        wanted: dict[str, tuple[int, ...]] = {
            "step": self.gain.shape,
            "starts": (tables + 1,),
            "low": (tables,),
            "lanes": (self.modes,),
            "frequencies": (self.frequencies.size,),
            "group_ends": (self.group_ends.size,),
        }
        self.check_shapes(wanted)

    def _check_values(self) -> None:
        ends = self.group_ends.astype(np.int64)
        if not ends.size or ends[0] < 1 or (np.diff(ends) < 1).any() or ends[-1] != self.channels:
            raise self.wrong(f"group_ends are {ends.tolist()}; want them to rise from at least 1 to {self.channels}")
        if not np.isin(self.lanes, (1, 2)).all():
            raise self.wrong(f"lanes are {self.lanes.tolist()}; want 1 or 2 each")
        if not (np.isfinite(self.gain).all() and np.isfinite(self.step).all()):
            raise self.wrong("a gain or step is not finite")

    def _check_tables(self) -> None:
        starts = self.starts.astype(np.int64)
        sizes = np.diff(starts)
        if starts[0] != 0 or starts[-1] != self.frequencies.size or (sizes < 0).any():
            raise self.wrong(f"starts do not rise from 0 to the {self.frequencies.size} frequencies there are")
        there = sizes.reshape(self.modes, self.channels) > 0
        if not there[:, 0].all() or (np.diff(there.astype(np.int8), axis=1) > 0).any():
            raise self.wrong("a mode's tables are not those of its first channels")
        if (sizes == 1).any() or (self.low + np.maximum(sizes - 2, 0) > np.iinfo(np.int16).max).any():
            raise self.wrong("a table has no symbol beside ESCAPE, or symbols past 32767")
        if (self.frequencies == 0).any():
            raise self.wrong("a symbol has no slot; every frequency has to be at least 1")
        sums = np.add.reduceat(self.frequencies.astype(np.int64), starts[:-1][sizes > 0])
        if (sums != TOTAL).any():
            table = np.flatnonzero(sizes)[int(np.argmax(sums != TOTAL))]
            mode, channel = divmod(int(table), self.channels)
            raise self.wrong(
                f"the table of mode {mode}, channel {channel} sums to {sums[sums != TOTAL][0]}; want {TOTAL}"
            )

    @property
    def modes(self) -> int:
        """M, the number of modes."""
        return int(self.gain.shape[0])

    @property
    def channels(self) -> int:
        """C, the channels of the full latent."""
        return int(self.gain.shape[1])

    @cached_property
    def mode_channels(self) -> tuple[int, ...]:
        """Channels of each mode's latent, a prefix of the C."""
        sizes = np.diff(self.starts.astype(np.int64)).reshape(self.modes, self.channels)
        return tuple(int(count) for count in (sizes > 0).sum(axis=1))

    def channels_of(self, mode: int, groups: int) -> int:
        """Channels that the first `groups` groups of a frame of `mode` hold."""
        return min(self.mode_channels[mode], self._ends[groups - 1])

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(self.group_ends.tolist())

    def table(self, mode: int, channel: int) -> tuple[int, NDArray[np.uint16]]:
        """The first symbol and the frequencies [n + 1], ESCAPE's last, of a channel."""
        index = mode * self.channels + channel
        return int(self.low[index]), self.frequencies[self.starts[index] : self.starts[index + 1]]

    @classmethod
    def from_counts(
        cls,
        counts: Sequence[Sequence[NDArray[Any]]],
        low: Sequence[Sequence[int]],
        gain: NDArray[Any],
        step: NDArray[Any],
        group_ends: Sequence[int],
        *,
        plane: int,
    ) -> PriorTables:
        """Make integer tables of float weights or of counts.

        Args:
            counts: for each mode, for each channel that it has, weights [n + 1] of the symbols low .. low + n - 1 and
                of ESCAPE last; they need not sum to one. Symbols so rare that they are due less than half a slot
                are dropped from both ends of a table, their weight added to ESCAPE's; so a generous n costs nothing.
            low: the first symbol of each of these weights.
            gain: [M, C]; what a mode lacks is ignored.
            step: [M, C].
            group_ends: channels up to the end of each group; the last is C.
            plane: H * W of the latent, from which a mode's mean payload follows, and with it its lanes.

        Raises:
            BundleError: if shapes do not fit together, or a weight is negative or not finite.
        """
        gain, step = np.asarray(gain, np.float32), np.asarray(step, np.float32)
        channels = gain.shape[-1]
        trimmed = [[_trim(*table) for table in zip(*mode, strict=True)] for mode in zip(counts, low, strict=True)]
        tables = [[integer_frequencies(weights) for weights, _ in mode] for mode in trimmed]
        sizes = [[table.size for table in mode] + [0] * (channels - len(mode)) for mode in tables]
        return cls(
            frequencies=np.concatenate([table for mode in tables for table in mode]),
            starts=np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint32),
            low=np.array(
                [[low for _, low in mode] + [0] * (channels - len(mode)) for mode in trimmed], np.int16
            ).ravel(),
            gain=gain,
            step=step,
            group_ends=np.array(group_ends, np.uint8),
            lanes=np.array([_lanes(mode, plane) for mode in tables], np.uint8),
        )


def integer_frequencies(weights: NDArray[Any]) -> NDArray[np.uint16]:
    """Share 65536 slots out by weight, at least one to each, by the method of largest remainders.

    Args:
        weights: [n], float or integer, not negative, n from 2 to 65536; only their ratios matter.

    Returns:
        Frequencies [n] that sum to exactly 65536.

    Raises:
        BundleError: if a weight is negative or not finite, all are 0, or there are too few or too many.
    """
    weights = np.asarray(weights, np.float64)
    if weights.ndim != 1 or not 2 <= weights.size <= TOTAL:
        raise PriorTables.wrong(f"a table's weights have shape {weights.shape}; want [n], n from 2 to {TOTAL}")
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise PriorTables.wrong("a table's weights have to be finite, not negative, and not all 0")
    shares = _with_floor(weights / weights.sum())
    frequencies = np.floor(shares)
    # The last few slots go to whom rounding down took most from; the stable sort settles ties by position.
    short = int(TOTAL - frequencies.sum())
    frequencies[np.argsort(frequencies - shares, kind="stable")[:short]] += 1
    return frequencies.astype(np.uint16)


def _trim(weights: NDArray[Any], low: int) -> tuple[NDArray[np.float64], int]:
    """Move the weight of the rarest symbols at both ends to ESCAPE; at least the likeliest symbol stays."""
    weights = np.array(weights, np.float64)
    if weights.ndim != 1 or weights.size < 2:
        raise PriorTables.wrong(f"a table's weights have shape {weights.shape}; want [n + 1], ESCAPE's last")
    symbols = weights[:-1]
    keep = symbols * TOTAL >= TRIM_BELOW_SLOTS * weights.sum()
    keep[np.argmax(symbols)] = True
    there = np.flatnonzero(keep)
    first, end = int(there[0]), int(there[-1]) + 1
    escape = weights[-1] + symbols[:first].sum() + symbols[end:].sum()
    return np.append(symbols[first:end], escape), low + first


def _with_floor(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Real shares of the slots, at least one each; what the rare take is taken from the others in proportion."""
    rare = np.zeros(probabilities.shape, np.bool_)
    while True:
        left = TOTAL - int(rare.sum())
        common = probabilities[~rare]
        shares = np.where(rare, 1.0, probabilities * (left / common.sum() if common.size else 1.0))
        if not (fell := shares < 1).any():
            return shares
        rare |= fell


def _lanes(tables: Sequence[NDArray[np.uint16]], plane: int) -> int:
    """Two lanes if frames drawn from these tables take at least TWO_LANES_FROM_BYTES on average."""
    bits = sum(float(16 - (f.astype(np.float64) @ np.log2(f)) / TOTAL) for f in tables)
    return 2 if bits * plane / 8 >= TWO_LANES_FROM_BYTES else 1
