"""From a picture of any size and mode to the array that a head takes.

Both ends use this one function: the trainer on its data, the agent on its camera. The resampling filter is part of
what the network learnt, so it is fixed here and nowhere else.

Legend: C channels (1 for ``L``, 3 for ``RGB``), H height, W width.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from PIL import Image

from headwater.compression.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MODES = ("L", "RGB")
MAX_SIDE = 4096


@dataclass(frozen=True)
class InputSpec:
    """What a head takes: uint8 [C, H, W]."""

    mode: Literal["L", "RGB"]
    """Grey (``L``) or colour (``RGB``)."""
    height: int
    width: int

    def __post_init__(self) -> None:
        """Check the ranges; raises :class:`BundleError`."""
        if self.mode not in MODES:
            raise BundleError(f"input mode is {self.mode!r}; it must be one of {', '.join(MODES)}")
        if not (1 <= self.height <= MAX_SIDE and 1 <= self.width <= MAX_SIDE):
            raise BundleError(f"input size is {self.width}x{self.height}; each side must be 1 to {MAX_SIDE}")

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return 1 if self.mode == "L" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def apply(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the image as uint8 [C, H, W]: converted to the mode, then resized (bilinear with antialiasing).

        The aspect ratio is not kept: a head sees the whole picture.
        """
        if image.mode != self.mode:
            image = to_eight_bits(image).convert(self.mode)
        if image.size != (self.width, self.height):
            image = image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        array = np.asarray(image, dtype=np.uint8)
        return array[np.newaxis] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InputSpec:
        """Build it from a manifest's ``input``."""
        height, width = data["height"], data["width"]
        if not (isinstance(height, int) and isinstance(width, int)):
            raise BundleError(f"input size is {width!r}x{height!r}; want two whole numbers")
        return cls(cast("Literal['L', 'RGB']", data["mode"]), height, width)


def to_png(image: NDArray[np.uint8]) -> bytes:
    """Encode an image [C, H, W], as :meth:`InputSpec.apply` gives it, as PNG."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale a 16-bit, 32-bit or float picture to 0..255; Pillow's own conversion would clip it to white."""
    if image.mode not in {"I", "F", "I;16", "I;16B", "I;16L"}:
        return image
    array = np.asarray(image, dtype=np.float64)
    top = 65535.0 if array.max(initial=0.0) > 255.0 else 255.0
    return Image.fromarray(np.clip(array * (255.0 / top), 0, 255).astype(np.uint8))
