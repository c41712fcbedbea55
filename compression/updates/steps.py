"""Sizes of quantisation steps: eighths of an octave, so that an array's costs one byte and both ends have the same.

Step c is 2^(c / 8), rounded to float32 once, here: eight literal mantissas, shifted by whole octaves, which no machine
rounds. An update names the largest of its steps, and for each array how many eighths its own lies below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PER_OCTAVE = 8
MANTISSAS = np.array(
    [0x3F800000, 0x3F8B95C2, 0x3F9837F0, 0x3FA5FED7, 0x3FB504F3, 0x3FC5672A, 0x3FD744FD, 0x3FEAC0C7], np.uint32
).view(np.float32)
"""2^0, 2^(1/8), ... 2^(7/8)."""
LOWEST, HIGHEST = -126 * PER_OCTAVE, 127 * PER_OCTAVE - 1
"""Codes of the steps that float32 has in full precision."""
NONE = 255
"""In the place of an array's distance from the largest step: the array is all zeros."""


def value(code: int) -> np.float32:
    """The step of a code."""
    octave, eighth = divmod(code, PER_OCTAVE)
    return np.float32(np.ldexp(MANTISSAS[eighth], octave))


def nearest(size: float) -> int:
    """Code of the step that is nearest to a positive number, by their ratio."""
    return int(np.clip(np.rint(PER_OCTAVE * np.log2(size)), LOWEST, HIGHEST))


def above(size: float) -> int:
    """Code of the smallest step that is no smaller than a positive number."""
    code = int(np.clip(np.floor(PER_OCTAVE * np.log2(size)), LOWEST, HIGHEST))
    return code if value(code) >= size else min(code + 1, HIGHEST)


def pack(codes: list[int | None]) -> tuple[int, NDArray[np.uint8]]:
    """The largest code and every array's distance below it; None, or 255 eighths below, is `NONE`."""
    top = max((code for code in codes if code is not None), default=0)
    return top, np.array([NONE if code is None else min(top - code, NONE) for code in codes], np.uint8)


def unpack(top: int, below: NDArray[np.uint8]) -> list[np.float32]:
    """Every array's step, 0 where it has `NONE`; a step too small for float32 is the smallest there is."""
    return [np.float32(0) if each == NONE else value(max(top - int(each), LOWEST)) for each in below]
