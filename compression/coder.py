"""The entropy coder as its users see it: a latent's symbols to bytes and back.

    coder = Coder(tables, height, width)
    encoded = coder.encode(symbols, mode)                           # int16 [C_w, H, W] -> bytes
    symbols = coder.decode(encoded.payload, mode)                   # and back, exactly
    latents, errors = coder.decode_batch(payloads, modes, groups)   # many frames -> float32 [B, C, H, W], in one call

The work is done by ``_rans.c``, which lets other threads run meanwhile, or where it was not built by its plain Python
twin ``rans.py``; both give the same bytes. A frame is progressive: ``payload[:group_ends[g - 1]]`` decodes the first g
groups of channels. A symbol that its table lacks is sent through ESCAPE, so every int16 latent can be coded.
docs/wire-format.md has every byte.

Letters: B frames, C channels of the full latent, C_w those of a mode, H W the latent's sides, G channel groups.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from headwater.compression.errors import BundleError, FrameError
from headwater.compression.rans import Rans, Status

try:
    from headwater.compression import _rans
except ImportError:  # installed where there was no C compiler
    _rans = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwater.compression.tables import PriorTables

Implementation = Literal["c", "python"]

MAX_SYMBOLS = 1 << 24
"""Largest latent, C * H * W: 32 MiB of symbols."""

_INT16 = np.dtype(np.int16)
_log = logging.getLogger(__name__)

_WORDS = {
    Status.TRUNCATED: "it is too short to be one",
    Status.TRAILING: "bytes are left over when all symbols are decoded",
    Status.DAMAGED: "the decoder does not end in the state in which every encoder begins",
    Status.BAD_ESCAPE: "it has a symbol outside int16",
}


class Encoded(NamedTuple):
    """One latent's bits."""

    payload: bytes
    group_ends: tuple[int, ...]
    """[G]: ``payload[:group_ends[g - 1]]`` decodes the first g groups. Groups that the mode lacks take no bytes."""


class _Rans(Protocol):
    """What `rans.Rans` and `_Compiled` have in common; statuses are those of `rans.Status`."""

    def encode(self, symbols: NDArray[np.int16], mode: int) -> tuple[bytes, tuple[int, ...]]: ...

    def decode(self, payload: bytes, mode: int, groups: int, out: NDArray[np.int16]) -> int: ...

    def decode_batch(
        self, payloads: Sequence[bytes], modes: Sequence[int], groups: Sequence[int], out: NDArray[np.float32]
    ) -> tuple[int, ...]: ...


class _Compiled:
    """``_rans.c`` with a bundle's tables. Its functions are bound, not wrapped: a small frame takes microseconds."""

    def __init__(self, tables: PriorTables, plane: int) -> None:
        channels = np.array(tables.mode_channels, np.uint8)
        t = tables
        model = _rans.prepare(t.frequencies, t.starts, t.low, t.step, t.lanes, channels, t.group_ends, plane)
        self.encode = partial(_rans.encode, model)
        self.decode = partial(_rans.decode, model)
        self.decode_batch = partial(_rans.decode_batch, model)


class Coder:
    """Entropy coder for the latents of one bundle. One coder may serve many threads at a time."""

    def __init__(
        self, tables: PriorTables, height: int, width: int, *, implementation: Implementation | None = None
    ) -> None:
        """Take a bundle's tables and the sides of its latent.

        Args:
            tables: the prior of every mode.
            height: H.
            width: W.
            implementation: "c" or "python"; None takes C, or Python with a warning where C was not built.

        Raises:
            BundleError: if the latent is larger than 16 Mi symbols.
            ImportError: if C is asked for and was not built.
        """
        if height < 1 or width < 1 or tables.channels * height * width > MAX_SYMBOLS:
            raise BundleError(f"a latent of {tables.channels}x{height}x{width} symbols; want 1 to {MAX_SYMBOLS} in all")
        self.tables = tables
        self.height = height
        self.width = width
        self._groups = len(tables.group_ends)
        self._shapes = [(channels, height, width) for channels in tables.mode_channels]
        self.implementation: Implementation = implementation or _choose()
        if self.implementation == "c" and _rans is None:
            raise ImportError(
                "headwater.compression._rans was not built; install headwater where there is a C compiler"
            )
        self._rans: _Rans = (_Compiled if self.implementation == "c" else Rans)(tables, height * width)

    def encode(self, symbols: NDArray[np.int16], mode: int) -> Encoded:
        """Encode the symbols int16 [C_w, H, W] of a mode; raises ValueError for another shape, type or mode."""
        if not 0 <= mode < len(self._shapes):
            raise ValueError(f"mode is {mode}; want 0 to {len(self._shapes) - 1}")
        shape = self._shapes[mode]
        if symbols.dtype != _INT16 or symbols.shape != shape:
            raise ValueError(
                f"symbols are {symbols.dtype} {list(symbols.shape)}; mode {mode} wants int16 {list(shape)}"
            )
        return Encoded._make(self._rans.encode(np.ascontiguousarray(symbols), mode))

    def decode(self, payload: bytes, mode: int, groups: int | None = None) -> NDArray[np.int16]:
        """Decode the symbols of a frame, or of its first groups.

        Args:
            payload: what `encode` gave, whole or up to the end of a group.
            mode: the mode that it was encoded with.
            groups: how many groups to decode, 1 to G; None for all. A longer payload than these need is no error.

        Returns:
            int16 [channels, H, W]: the mode's channels, or fewer where groups are.

        Raises:
            FrameError: if the payload is seen not to be of this mode. Most strings decode to some symbols: to notice
                damage is the business of the checksum in `headwater.compression.frame`.
        """
        groups = self._groups if groups is None else groups
        if error := self._refusal(mode, groups):
            raise error
        out = np.empty((self.tables.channels_of(mode, groups), self.height, self.width), _INT16)
        if status := self._rans.decode(payload, mode, groups, out):
            raise _frame_error(status, payload, mode)
        return out

    def decode_batch(
        self, payloads: Sequence[bytes], modes: Sequence[int], groups: Sequence[int]
    ) -> tuple[NDArray[np.float32], list[FrameError | None]]:
        """Decode and dequantise many frames, of any modes, in one call.

        Args:
            payloads: [B], each whole or up to the end of its groups.
            modes: [B].
            groups: [B], how many groups of each to decode, 1 to G.

        Returns:
            Latents float32 [B, C, H, W], symbol times step, 0 where a mode or cut frame lacks a channel; and for each
            frame None, or the error that made its row all zeros. The rows of other frames are unharmed by it.
        """
        if not len(payloads) == len(modes) == len(groups):
            raise ValueError(
                f"{len(payloads)} payloads, {len(modes)} modes and {len(groups)} groups; want as many of each"
            )
        out = np.empty((len(payloads), self.tables.channels, self.height, self.width), np.float32)
        errors = [self._refusal(*frame) for frame in zip(modes, groups, strict=True)]
        if any(errors):  # a frame of 0 groups is decoded to zeros
            modes = [0 if error else mode for error, mode in zip(errors, modes, strict=True)]
            groups = [0 if error else count for error, count in zip(errors, groups, strict=True)]
        statuses = self._rans.decode_batch(payloads, modes, groups, out)
        for i, status in enumerate(statuses):
            if status and errors[i] is None:
                errors[i] = _frame_error(status, payloads[i], modes[i])
        return out, errors

    def _refusal(self, mode: int, groups: int) -> FrameError | None:
        """The error for a mode or number of groups that there is not."""
        if not 0 <= mode < len(self._shapes):
            return FrameError(f"the frame has mode {mode}; this bundle has 0 to {len(self._shapes) - 1}")
        if not 1 <= groups <= self._groups:
            return FrameError(f"the frame has {groups} channel groups; this bundle has 1 to {self._groups}")
        return None


def _frame_error(status: int, payload: bytes, mode: int) -> FrameError:
    return FrameError(f"{len(payload)} bytes are no payload of mode {mode}: {_WORDS[Status(status)]}")


@cache
def _choose() -> Implementation:
    """C where it was built. Cached, so that the warning is given once."""
    if _rans is not None:
        return "c"
    _log.warning(
        "the C entropy coder was not built, so the Python one is used, about 200 times slower; "
        "install headwater where there is a C compiler"
    )
    return "python"
