"""The integers of an update to bytes and back, by C where it was built and by its plain Python twin elsewhere.

``_rans_updates.c`` lets other threads run meanwhile; ``adaptive.py`` says how both work and gives the same bytes.

Letters: n integers of all arrays together, T arrays.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.errors import UpdateError
from headwater.compression.rans import Status
from headwater.compression.updates import adaptive

try:
    from headwater.compression import _rans
except ImportError:  # installed where there was no C compiler
    _rans = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwater.compression.coder import Implementation

_EMPTY = np.zeros(0, np.uint8)
_WORDS = {
    Status.TRUNCATED: "it is cut off",
    Status.TRAILING: "bytes are left over when all is decoded",
    Status.DAMAGED: "the decoder does not end in the state in which every encoder begins",
}
_log = logging.getLogger(__name__)


def encode_integers(
    values: NDArray[np.int8],
    live: NDArray[np.uint8] | None,
    sides: NDArray[np.uint32],
    *,
    implementation: Implementation | None = None,
) -> bytes:
    """Encode integers.

    Args:
        values: int8 [n], array after array; -128 is not allowed, and 0 is wanted where `live` is 0.
        live: uint8 [n], 0 for what is not coded since both ends know it to be 0; None codes everything.
        sides: uint32 [T, 3]: rows, columns and alphabet (`HAS_ZEROS` and so on in adaptive.py) of each array.
        implementation: "c" or "python"; None takes C, or Python with a warning where C was not built.
    """
    if (implementation or _choose()) == "c":
        return _rans.encode_values(values, _EMPTY if live is None else live, sides)
    return adaptive.encode_integers(_arrays(values, live, sides))


def decode_integers(
    data: bytes,
    live: NDArray[np.uint8] | None,
    sides: NDArray[np.uint32],
    *,
    implementation: Implementation | None = None,
) -> NDArray[np.int8]:
    """Decode what `encode_integers` was given, int8 [n], in time and memory that depend on the sides alone.

    Raises:
        UpdateError: if the data is seen to be another's. Most strings decode to something; codec.py has a checksum.
    """
    count = int((sides[:, 0].astype(np.uint64) * sides[:, 1]).sum())
    values = np.zeros(count, np.int8)
    if (implementation or _choose()) == "c":
        status = Status(_rans.decode_values(data, _EMPTY if live is None else live, sides, values))
    else:
        arrays = _arrays(values, live, sides)
        status = adaptive.decode_integers(data, arrays)
        values = np.array([value for array in arrays for value in array.values], np.int8)
    if status != Status.OK:
        raise UpdateError(f"{len(data)} bytes are not the integers of an update: {_WORDS[status]}")
    return values


def _arrays(
    values: NDArray[np.int8], live: NDArray[np.uint8] | None, sides: NDArray[np.uint32]
) -> list[adaptive.Integers]:
    """The arrays as lists, for the Python coder."""
    ends = np.cumsum(sides[:, 0].astype(np.int64) * sides[:, 1]).tolist()
    found = []
    for begin, end, side in zip([0, *ends], ends, sides.tolist(), strict=False):
        alive = None if live is None else live[begin:end].tolist()
        found.append(adaptive.Integers(values[begin:end].tolist(), alive, *side))
    return found


@cache
def _choose() -> Implementation:
    """C where it was built. Cached, so that the warning is given once."""
    if _rans is not None:
        return "c"
    _log.warning(
        "the C coder of updates was not built, so the Python one is used: minutes for a million coordinates; "
        "install headwater where there is a C compiler"
    )
    return "python"
