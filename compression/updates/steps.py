"""Sizes of quantisation steps: quarters of an octave, so that both ends have the same, and an array's costs few bits.

Step c is 2^(c / 4), rounded to float32 once, here: four literal mantissas, shifted by whole octaves, which no machine
rounds. An update names the largest of its steps, and for each array how many quarters its own lies below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PER_OCTAVE = 4
MANTISSAS = np.array([0x3F800000, 0x3F9837F0, 0x3FB504F3, 0x3FD744FD], np.uint32).view(np.float32)
"""2^0, 2^(1/4), 2^(1/2), 2^(3/4)."""
LOWEST, HIGHEST = -126 * PER_OCTAVE, 127 * PER_OCTAVE
"""Codes of the steps from float32's smallest in full precision to its largest power of two."""
NONE = 127
"""In the place of an array's distance below the largest step: its step is 0, all of it is zeros."""


def value(code: int) -> np.float32:
    """The step of a code."""
    octave, quarter = divmod(code, PER_OCTAVE)
    return np.float32(np.ldexp(MANTISSAS[quarter], octave))


def nearest(size: float) -> int:
    """Code of the step that is nearest to a positive number, by their ratio."""
    return int(np.clip(np.rint(PER_OCTAVE * np.log2(size)), LOWEST, HIGHEST))


def above(size: float) -> int:
    """Code of the smallest step that is no smaller than a positive number."""
    code = int(np.clip(np.floor(PER_OCTAVE * np.log2(size)), LOWEST, HIGHEST))
    return code if value(code) >= size else min(code + 1, HIGHEST)


def pack(codes: Sequence[int | None]) -> tuple[int, NDArray[np.int8]]:
    """Give the largest code, and for each array [T] how far it is below, less the same of the array before.

    None is a step of 0, and so is what lies 127 quarters or more, nearly 32 octaves, below the largest.
    """
    top = max((code for code in codes if code is not None), default=0)
    below = [NONE if code is None else min(top - code, NONE) for code in codes]
    return top, np.diff(below, prepend=0).astype(np.int8)


def unpack(top: int, differences: NDArray[np.int8]) -> NDArray[np.float32]:
    """Every array's step [T]; raises ValueError for what `pack` never gives."""
    below = np.cumsum(differences.astype(np.int64))
    if not LOWEST <= top <= HIGHEST or (below < 0).any() or (below > NONE).any():
        raise ValueError(
            f"the largest step is {top}, others {below.tolist()} below; want {LOWEST} to {HIGHEST}, 0 to 127"
        )
    return np.array([0 if each == NONE else value(max(top - int(each), LOWEST)) for each in below], np.float32)
