from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

class _Model: ...  # a capsule

def prepare(
    frequencies: NDArray[np.uint16],
    starts: NDArray[np.uint32],
    low: NDArray[np.int16],
    step: NDArray[np.float32],
    lanes: NDArray[np.uint8],
    mode_channels: NDArray[np.uint8],
    group_ends: NDArray[np.uint8],
    plane: int,
    /,
) -> _Model: ...
def encode(model: _Model, symbols: NDArray[np.int16], mode: int, /) -> tuple[bytes, tuple[int, ...]]: ...
def decode(model: _Model, payload: bytes, mode: int, groups: int, out: NDArray[np.int16], /) -> int: ...
def decode_batch(
    model: _Model,
    payloads: Sequence[bytes],
    modes: Sequence[int],
    groups: Sequence[int],
    out: NDArray[Any],
    /,
) -> tuple[int, ...]: ...
def encode_values(values: NDArray[np.int8], live: NDArray[np.uint8], sides: NDArray[np.uint32], /) -> bytes: ...
def decode_values(
    data: bytes, live: NDArray[np.uint8], sides: NDArray[np.uint32], values: NDArray[np.int8], /
) -> int: ...
