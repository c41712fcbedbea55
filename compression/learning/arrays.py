"""A network's trainable arrays by name, and the version that names them all.

    version   SHA-256 over, for each array in the order of the names: name, NUL, shape as text, NUL, its bytes
              (float32, little-endian, C order); the first 32 hex digits

Devices and server hold the very same arrays, to the last bit, or an update would mean something else at each end.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from headwater.compression.errors import LearningError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn

    Arrays = Mapping[str, NDArray[np.float32]]

VERSION_DIGITS = 32


def arrays_of(network: nn.Module) -> dict[str, NDArray[np.float32]]:
    """Copies of all trainable arrays, by name, sorted."""
    parameters = dict(network.named_parameters())
    return {name: np.array(parameters[name].detach().numpy(), np.float32, order="C") for name in sorted(parameters)}


@torch.no_grad()
def load(network: nn.Module, arrays: Arrays) -> None:
    """Put arrays into a network; raises :class:`LearningError` unless they are all of it, in the right shapes."""
    parameters = dict(network.named_parameters())
    if arrays.keys() != parameters.keys():
        unlike = sorted(arrays.keys() ^ parameters.keys())
        raise LearningError(
            f"{len(unlike)} arrays are missing or unknown, such as {unlike[0]}; the network has {len(parameters)}"
        )
    for name, array in arrays.items():
        if array.shape != tuple(parameters[name].shape):
            raise LearningError(f"{name} is {array.shape}; the network has {tuple(parameters[name].shape)}")
    for name, array in arrays.items():
        parameters[name].copy_(torch.from_numpy(np.array(array, np.float32)))


def version_of(arrays: Arrays) -> str:
    """The name of these arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], "<f4")
        digest.update(f"{name}\0{','.join(map(str, array.shape))}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:VERSION_DIGITS]
