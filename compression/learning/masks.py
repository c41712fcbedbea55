"""Which weights of a sparse network are there: densities, the shared prune-and-grow step, masks as bytes.

A mask is True where a weight is active. Server and devices make the first masks from the arrays that all hold when
sparse rounds begin; later ones differ by what an adjustment dropped and grew, and only that travels, beside the update
that leads to the version that has them.

    every dT rounds until T_end, in every layer:   k = share * active,   share = (a / 2) * (1 + cos(pi * t / T_end))
        drop the k active weights of least magnitude
        grow the k inactive ones of largest aggregated gradient, from 0

The step is RigL's (Evci et al., "Rigging the Lottery", ICML 2020) with gradients from all devices (FedTiny, Huang et
al., ICDCS 2023; FedMef, Huang et al., CVPR 2024). Densities are those of Erdős-Rényi-Kernel (the same RigL paper):
a layer with few weights keeps more of them. Norms, biases and whatever has no mask stay dense.
"""

from __future__ import annotations

import hashlib
import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import zstandard

from headwater.compression.errors import LearningError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Masks = Mapping[str, NDArray[np.bool_]]
    Arrays = Mapping[str, NDArray[np.float32]]
    Shapes = Mapping[str, tuple[int, ...]]

FALL = 0.2
"""The a of the schedule: the share of active weights that an adjustment at the very start replaces."""
_DIGEST = 8
_HEADER = struct.Struct("<2sBd8s8s")
"""Magic, version, density of the first masks (0 if they were made before), digests of the masks before and after."""
_MAGIC, _VERSION = b"hM", 1
_LEVEL = 19
ENDED = _MAGIC + b"\0"
"""In the place of masks: from this version on there are none, all weights are active."""


# ---------------------------------------------------------------- densities


def densities(shapes: Shapes, density: float) -> dict[str, float]:
    """Share of each layer's weights that stay, by Erdős-Rényi-Kernel; together they are ``density`` of all.

    ``shapes`` are [O, I, k, k] or [O, I]. Raises :class:`LearningError` unless ``0 < density <= 1``.
    """
    if not 0 < density <= 1:
        raise LearningError(f"the density is {density}; it has to be above 0 and at most 1")
    full: set[str] = set()
    while True:
        raw = {name: sum(shape) / math.prod(shape) for name, shape in shapes.items() if name not in full}
        wanted = density * sum(map(math.prod, shapes.values())) - sum(math.prod(shapes[name]) for name in full)
        scale = wanted / sum(raw[name] * math.prod(shapes[name]) for name in raw) if raw else 0.0
        crowded = {name for name in raw if scale * raw[name] > 1}
        if not crowded:  # the layers in `full` would get more weights than they have: they stay dense
            return {name: 1.0 if name in full else scale * raw[name] for name in shapes}
        full |= crowded


def first(arrays: Arrays, shapes: Shapes, density: float) -> dict[str, NDArray[np.bool_]]:
    """The first masks: in each layer of ``shapes`` the weights of largest magnitude, as many as its density says."""
    share = densities(shapes, density)
    return {name: largest(np.abs(arrays[name]), round(share[name] * arrays[name].size)) for name in shapes}


def largest(values: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """Where the ``count`` largest values are; of equal ones those that come first."""
    chosen = np.zeros(values.size, np.bool_)
    if count > 0:
        chosen[np.argsort(-values, axis=None, kind="stable")[:count]] = True
    return chosen.reshape(values.shape)


# ---------------------------------------------------------------- prune and grow


def share_due(time: float, fall: float = FALL) -> float:
    """Share of a layer's active weights that an adjustment at ``time`` (0 at the start, 1 at T_end) replaces."""
    return fall / 2 * (1 + math.cos(math.pi * min(max(time, 0.0), 1.0)))


def due(weights: NDArray[np.float32], mask: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """The active weights of least magnitude, a share of all active ones: what the next adjustment drops.

    No more than there are inactive ones to grow in their place: of a layer that is dense nothing is due.
    """
    active = int(mask.sum())
    count = min(int(share * active), mask.size - active)
    return largest(np.where(mask, -np.abs(weights), np.float32(-np.inf)), count)


def adjust(
    arrays: Arrays, masks: Masks, gradients: Arrays, share: float
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.bool_]]]:
    """One prune-and-grow step: the arrays with dropped and grown weights at 0, and the new masks.

    Args:
        arrays: the network's; those without a mask are passed on.
        masks: of now.
        gradients: aggregated over the devices, 0 where nobody reported one; shaped like the masks.
        share: of each layer's active weights that are replaced. As many are dropped as can be grown: where fewer
            inactive weights have a gradient, fewer are.
    """
    arrays, changed = dict(arrays), dict(masks)
    for name, mask in masks.items():
        candidates = np.where(mask, np.float32(0), np.abs(gradients[name]))
        count = min(int(share * int(mask.sum())), int((candidates > 0).sum()))
        grown = largest(candidates, count)
        dropped = largest(np.where(mask, -np.abs(arrays[name]), np.float32(-np.inf)), count)
        changed[name] = (mask & ~dropped) | grown
        arrays[name] = np.where(changed[name] & ~grown, arrays[name], np.float32(0))
    return arrays, changed


# ---------------------------------------------------------------- what devices say of growing


def top_gradients(gradient: NDArray[np.float32], mask: NDArray[np.bool_], count: int) -> dict[str, NDArray[Any]]:
    """The ``count`` largest gradients of inactive weights: flat positions ``at``, uint32, and ``value`` float32."""
    inactive = np.where(mask, np.float32(0), gradient)
    at = np.flatnonzero(largest(np.abs(inactive), min(count, int((~mask).sum()))))
    return {"at": at.astype(np.uint32), "value": inactive.reshape(-1)[at]}


def apply(arrays: Arrays, masks: Masks) -> dict[str, NDArray[np.float32]]:
    """The arrays with 0 wherever a mask says that there is no weight."""
    return {
        name: np.where(masks[name], array, np.float32(0)) if name in masks else array for name, array in arrays.items()
    }


# ---------------------------------------------------------------- as bytes


def digest(masks: Masks) -> bytes:
    """Eight bytes that name these masks."""
    found = hashlib.sha256()
    for name in sorted(masks):
        found.update(repr((name, masks[name].shape)).encode())
        found.update(np.packbits(masks[name]).tobytes())
    return found.digest()[:_DIGEST]


def to_bytes(masks: Masks, known: Masks, density: float = 0.0) -> bytes:
    """What has changed since ``known``: a bit a weight, of which few are set, compressed.

    With a ``density``, ``known`` are the first masks, which whoever reads this makes from the arrays that are held.
    """
    changed = [np.packbits(masks[name] ^ known[name]).tobytes() for name in sorted(masks)]
    header = _HEADER.pack(_MAGIC, _VERSION, density, digest(known), digest(masks))
    return header + zstandard.ZstdCompressor(level=_LEVEL).compress(b"".join(changed))


def from_bytes(data: bytes, known: Masks | None, arrays: Arrays, shapes: Shapes) -> dict[str, NDArray[np.bool_]]:
    """The masks of :func:`to_bytes`.

    Args:
        data: the bytes; untrusted.
        known: the masks of now, if there are any.
        arrays: of the version before: where there are no masks yet, the first ones are made from these.
        shapes: of what may be sparse.

    Raises :class:`LearningError` if these bytes are no masks, or start from others.
    """
    if len(data) < _HEADER.size:
        raise LearningError(f"{len(data)} bytes are no masks: their header alone has {_HEADER.size}")
    magic, version, density, start, end = _HEADER.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION):
        raise LearningError(f"bytes that start with {data[:3].hex()} are no masks of version {_VERSION}")
    known = known if density == 0 else first(arrays, shapes, density)
    if known is None or start != digest(known):
        here = "none" if known is None else digest(known).hex()
        raise LearningError(f"these masks start from {start.hex()}, but {here} are here")
    changed = _bits(data[_HEADER.size :], sum(-(-mask.size // 8) for mask in known.values()))
    masks: dict[str, NDArray[np.bool_]] = {}
    done = 0
    for name in sorted(known):
        mask = known[name]
        bits = np.unpackbits(changed[done : done + -(-mask.size // 8)], count=mask.size).astype(np.bool_)
        masks[name] = mask ^ bits.reshape(mask.shape)
        done += -(-mask.size // 8)
    if digest(masks) != end:
        raise LearningError(f"these masks should be {end.hex()} and are {digest(masks).hex()}")
    return masks


def _bits(data: bytes, size: int) -> NDArray[np.uint8]:
    try:
        raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise LearningError(f"these masks cannot be decompressed: {error}") from error
    if len(raw) != size:
        raise LearningError(f"these masks have {len(raw)} bytes; {size} are wanted")
    return np.frombuffer(raw, np.uint8)
