"""Whether a bundle computes on this device what it computed where it was built: a few images that it carries itself.

A hash says that the bytes are right. That they do what they should here, with this processor and this version of
onnxruntime, is another question, and it is asked before the first picture depends on it.

Letters: N images, C_w channels of a mode's latent, H W its sides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from headwater.compression.errors import BundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headwater.compression.bundle import Bundle
    from headwater.device.head import FrameMaker

FILE = "golden.safetensors"
TOLERANCE = 0.01
"""Of the largest value of a latent. Processors agree to a hundredth of that; what is broken is off by all of it."""


def check(bundle: Bundle, maker: FrameMaker) -> None:
    """Raise :class:`BundleError` unless every width gives the latents, and every mode frames, that it should."""
    if FILE not in bundle:
        raise BundleError(f"the bundle {bundle.manifest.name} {bundle.short_id} has no {FILE} to be checked by")
    arrays = bundle.arrays(FILE)
    coder = bundle.coder()
    for number, image in enumerate(_images(bundle, arrays)):
        for width in bundle.manifest.widths:
            latent = maker.head.latent(image, width)
            _compare(latent, _wanted(arrays, width, number), f"head of width {width:g}, golden image {number}")
            for mode in (mode for mode in bundle.manifest.modes if mode.width == width):
                symbols = maker.head.quantise(latent[: mode.channels], mode.index)
                coded = coder.encode(symbols, mode.index)
                if not np.array_equal(coder.decode(coded.payload, mode.index), symbols):
                    raise BundleError(f"mode {mode.index} does not decode to what was coded; build the bundle again")
                _check_exit(maker, latent, mode.index)


def _images(bundle: Bundle, arrays: dict[str, NDArray[np.generic]]) -> NDArray[np.uint8]:
    images = arrays.get("image")
    if images is None or images.dtype != np.uint8 or images.shape[1:] != bundle.manifest.input.shape or not len(images):
        raise BundleError(f"{FILE} holds no images of shape {bundle.manifest.input.shape}; build the bundle again")
    return images.astype(np.uint8, copy=False)


def _wanted(arrays: dict[str, NDArray[np.generic]], width: float, number: int) -> NDArray[np.float32]:
    latents = arrays.get(f"latent_{width:g}")
    if latents is None or number >= len(latents):
        raise BundleError(f"{FILE} holds no latents of width {width:g}; build the bundle again")
    latent: NDArray[np.float32] = latents[number].astype(np.float32)
    return latent


def _compare(got: NDArray[np.float32], wanted: NDArray[np.float32], what: str) -> None:
    if got.shape != wanted.shape:
        raise BundleError(f"{what}: the latent is {list(got.shape)}, the bundle says {list(wanted.shape)}")
    off = float(np.abs(got - wanted).max()) if np.isfinite(got).all() else math.inf
    most = TOLERANCE * max(1.0, float(np.abs(wanted).max()))
    if not off <= most:
        raise BundleError(f"{what}: the latent is off by {off:.3g} on this device; at most {most:.3g} is right")


def _check_exit(maker: FrameMaker, latent: NDArray[np.float32], mode: int) -> None:
    judged = None if maker.local_exit is None else maker.local_exit.judge(latent, mode)
    if judged is not None and not math.isfinite(judged.confidence):
        raise BundleError(f"the local exit is not sure of a number at mode {mode}; build the bundle again")
